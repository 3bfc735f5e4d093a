// Package metricstest has registries for tests, whose books must balance at the end.
//
// What a neighbour counts is left out, as it is the neighbour's to balance, and
// so is a pipeline of which a term is not known. What its owner has taken out of
// the registry before the end of the test cannot be asked any more: such a test
// calls [Balanced] while it is there.
package metricstest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// Registry returns a new registry. At the end of the test every pipeline in it
// must balance: see [Balanced]. What the test cleans up after it made the
// registry has ended by then. In a bubble of testing/synctest it is made with the
// bubble's t, and the wait costs nothing.
func Registry(t testing.TB) *metrics.Registry {
	t.Helper()
	reg := metrics.NewRegistry()
	t.Cleanup(func() {
		t.Helper()
		Balanced(t, reg)
	})
	return reg
}

// Who still counts when a test ends is about to be done with it.
const (
	patience = 2 * time.Second
	pause    = time.Millisecond // and twice as long each time
)

// Balanced wants every pipeline to have the balance 0, and no term below 0, now
// or shortly. It names those that do not, with all their terms.
func Balanced(t testing.TB, reg *metrics.Registry) {
	t.Helper()
	for end, wait := time.Now().Add(patience), pause; ; wait *= 2 {
		wrong := unbalanced(reg.Pipelines())
		left := time.Until(end)
		if len(wrong) == 0 {
			return
		}
		if left <= 0 {
			t.Errorf("pipelines: %d do not balance %v after the test:\n%s", len(wrong), patience, strings.Join(wrong, "\n"))
			return
		}
		<-time.After(min(wait, left))
	}
}

// unbalanced are the pipelines whose books are wrong, a line each.
func unbalanced(pipes []metrics.PipelineSnapshot) (out []string) {
	for _, p := range pipes {
		balance, known := p.Balance()
		if p.Service != "" || !known {
			continue
		}
		least := min(p.Carried, p.In, p.Out, p.Queued)
		for _, terms := range []map[string]int64{p.Retries, p.Dropped} {
			for _, n := range terms {
				least = min(least, n)
			}
		}
		if balance != 0 || least < 0 {
			out = append(out, line(p, balance))
		}
	}
	return out
}

func line(p metrics.PipelineSnapshot, balance int64) string {
	return fmt.Sprintf("%s target %s: carried %d + in %d - out %d - queued %d - dropped %d = balance %d, want 0 and nothing below 0%s%s",
		p.Name, cmp.Or(p.Target, "(none)"), p.Carried, p.In, p.Out, p.Queued, p.TotalDropped(), balance,
		byKey("dropped", p.Dropped), byKey("retries", p.Retries))
}

func byKey(what string, terms map[string]int64) string {
	if len(terms) == 0 {
		return ""
	}
	var parts []string
	for key, n := range terms {
		parts = append(parts, fmt.Sprintf("%s %d", key, n))
	}
	slices.Sort(parts)
	return "; " + what + ": " + strings.Join(parts, ", ")
}
