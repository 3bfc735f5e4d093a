package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// unwritable takes so many bytes, and no more.
type unwritable int

var errFull = errors.New("full")

func (w *unwritable) Write(text []byte) (int, error) {
	if *w -= unwritable(len(text)); *w < 0 {
		return 0, errFull
	}
	return len(text), nil
}

func TestVoiceThatNobodyHears(t *testing.T) {
	ctx, gone := context.WithCancelCause(t.Context())
	times := 0
	room := unwritable(10)
	v := &voice{to: &room, broken: func(err error) { times++; gone(err) }}
	fmt.Fprint(v, "12345")
	if err := unread(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("with room: %v, %v, want the run to go on", err, ctx.Err())
	}
	for range 3 {
		fmt.Fprint(v, "123456")
	}
	if err := unread(ctx); times != 1 || !errors.Is(err, errFull) || !errors.Is(err, errUnread) {
		t.Errorf("got %v, %d times, want it once that it cannot be written", err, times)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := unread(stopped); err != nil {
		t.Errorf("after Ctrl-C: %v, want nothing", err)
	}
}

func TestVoiceTakesThePlaceOfCtrlC(t *testing.T) {
	for terminal, want := range map[bool]string{true: "\r1:05: stopped; what is on its way has 1s\n", false: "1:05: stopped; what is on its way has 1s\n"} {
		var b bytes.Buffer
		v := &voice{to: &b, terminal: terminal}
		v.stopping(65 * time.Second)
		if b.String() != want {
			t.Errorf("terminal %t: %q, want %q", terminal, b.String(), want)
		}
	}
}

// TestCause has a cluster of its own process die: what is noticed first says
// nothing of it.
func TestCause(t *testing.T) {
	pipe := errors.New("simulated cluster: write |1: broken pipe")
	died := hasEnded("the simulated cluster", errors.New("signal: killed"))
	for _, c := range []struct {
		name     string
		separate bool
		err      error
		failed   []error
		want     error
	}{
		{"the end of the process is told later", true, pipe, []error{pipe, died}, died},
		{"the end of the process is told first", true, died, []error{pipe}, died},
		{"it still runs", true, pipe, nil, pipe},
		{"all is one process", false, pipe, []error{died}, pipe},
	} {
		d := &demo{failed: make(chan error, 8)}
		d.Separate = c.separate
		for _, err := range c.failed {
			d.failed <- err
		}
		if got := d.cause(t.Context(), c.err); !errors.Is(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestEndedErrorSaysHow(t *testing.T) {
	for want, err := range map[string]error{
		"the agent has ended: full":                       hasEnded("the agent", errFull),
		"the agent has ended by itself, without an error": hasEnded("the agent", nil),
	} {
		if !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}
