package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger"
	"github.com/outrider-agent/outrider/statesync/ledger/inspect"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// Actions are what the agent can be told to do, by path below /act/: to look
// into its ledger, and
//
//	ledger/attach  sink=NAME  deliver to a sink again that was detached
//	ledger/forget  sink=NAME  remove what is kept of a sink that is not configured
//	ledger/replay  see [replay.Parse]
func (c *Controller) Actions() map[string]http.Handler {
	actions := inspect.Actions(filepath.Join(c.opts.Dir, ledger.File))
	maps.Copy(actions, map[string]http.Handler{
		"ledger/attach": onSink("attached again, with a gap", c.attach),
		"ledger/forget": onSink("forgotten", c.forget),
		"ledger/replay": replay.Handler(c.ledger, c.lettersGone),
	})
	return actions
}

// lettersGone tells a sink's dispatcher that dead letters are being replayed.
func (c *Controller) lettersGone(name string, n int64) {
	if s := find(c.running(), name); s != nil && s.failure == nil {
		s.dispatcher.LettersGone(n)
	}
}

// onSink serves what is done to one sink.
func onSink(done string, do func(ctx context.Context, name string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.FormValue("sink")
		err := do(r.Context(), name)
		var refused *refusal
		switch {
		case errors.As(err, &refused):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			fmt.Fprintf(w, "sink %s: %s\n", name, done)
		}
	})
}

// A refusal is an error of whoever asked.
type refusal struct{ got, want string }

func (e *refusal) Error() string { return "got " + e.got + ", want " + e.want }

func (c *Controller) attach(ctx context.Context, name string) (err error) {
	failure := c.ask(ctx, func(ctx context.Context, _ *errgroup.Group) {
		var did string
		switch s := find(c.running(), name); {
		case s == nil:
			err = &refusal{"sink " + show(name), "one of " + strings.Join(c.names(), ", ")}
		case s.failure != nil:
			err = &refusal{"sink " + name + ", which is not open", "one that is: mend it and reload"}
		default:
			if did, err = c.attachIfDetached(ctx, s); did == "" && err == nil {
				err = &refusal{"sink " + name + ", which is attached", "one that is detached"}
			}
		}
	})
	return errors.Join(failure, err)
}

func (c *Controller) forget(ctx context.Context, name string) (err error) {
	failure := c.ask(ctx, func(ctx context.Context, _ *errgroup.Group) {
		if find(c.running(), name) != nil {
			err = &refusal{"sink " + name + ", which is configured", "one that is not: take it out and reload first"}
			return
		}
		if err = c.ledger.Forget(ctx, name); err == nil {
			c.forgetLetters(name)
		} else if cursors, failed := c.ledger.Sinks(ctx); failed == nil && !slices.ContainsFunc(cursors, func(k statesync.Cursor) bool { return k.Sink == name }) {
			err = &refusal{"sink " + show(name), "one of which the ledger has a cursor: outrider ledger sinks"}
		}
	})
	return errors.Join(failure, err)
}

// names are those of the sinks that are configured.
func (c *Controller) names() (names []string) {
	for _, s := range c.running() {
		names = append(names, s.config.Name)
	}
	return names
}
