package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

func searchOf(t *testing.T, world string, events uint8, without ...string) result {
	t.Helper()
	for _, c := range configurations() {
		if !strings.HasPrefix(c.Name, world) {
			continue
		}
		c.Events = events
		for _, rule := range without {
			if err := c.Rules.remove(rule); err != nil {
				t.Fatal(err)
			}
		}
		q := search{config: &c, maxStates: 1 << 30, cycles: true}
		return q.run(context.Background())
	}
	t.Fatalf("no world starts with %s", world)
	return result{}
}

// A search that saw fewer states than there are would hold as well. So the
// numbers are fixed; whoever changes the model on purpose changes them.
func TestEveryStateIsSeen(t *testing.T) {
	for _, c := range []struct {
		world        string
		states, rest int
	}{{"A1", 47605, 1518}, {"B1", 30111, 684}, {"E1", 2664, 76}, {"D1", 5061, 55}} {
		r := searchOf(t, c.world, 2)
		if r.violation != "" || r.endless || r.cut {
			t.Errorf("%s: violation %q, endless %t, cut %t; want none", c.world, r.violation, r.endless, r.cut)
		}
		if r.states != c.states || r.rests != c.rest {
			t.Errorf("%s: got %d states and %d of them at rest, want %d and %d", c.world, r.states, r.rests, c.states, c.rest)
		}
	}
}

func TestACounterexampleIsTheShortestAndToldStepByStep(t *testing.T) {
	r := searchOf(t, "A1", 2, "LowWater")
	want := []string{"API", "relist", "API", "watch", "commit", "flush", "commit", "=> P6"}
	if len(r.trace) > len(want) || len(r.trace) < 3 {
		t.Fatalf("got %d lines, want at most %d:\n%s", len(r.trace), len(want), strings.Join(r.trace, "\n"))
	}
	if last := r.trace[len(r.trace)-1]; !strings.HasPrefix(last, "=> P6") {
		t.Errorf("got %q, want P6", last)
	}
	for i, line := range r.trace {
		if line == "" {
			t.Errorf("line %d is empty", i+1)
		}
	}
}

func TestEveryRuleIsRemovedSomewhere(t *testing.T) {
	removed := map[string]bool{}
	for _, m := range removals() {
		found := false
		for _, c := range configurations() {
			found = found || strings.HasPrefix(c.Name, m.in)
		}
		if !found {
			t.Errorf("removal of %s is in %q, which is no world", m.rules, m.in)
		}
		for name := range strings.SplitSeq(m.rules, ",") {
			if err := new(rules).remove(name); err != nil {
				t.Error(err)
			}
			removed[name] = removed[name] || !m.spare
		}
	}
	for _, name := range ruleNames() {
		if !removed[name] {
			t.Errorf("rule %s is never removed: nothing shows that it is needed", name)
		}
	}
}

func TestAStateComesBackFromTheFrontierAsItWas(t *testing.T) {
	var f frontier
	var states []state
	for i := range 300 {
		var s state
		for k, b := range stateBytes(&s) {
			_ = b
			if (k*7+i)%11 == 0 || i == 299 {
				stateBytes(&s)[k] = byte(k + i)
			}
		}
		states = append(states, s)
		f.push(&s, uint32(i+1))
	}
	i := 0
	f.each(func(s *state, id uint32) bool {
		if *s != states[i] || id != uint32(i+1) {
			t.Fatalf("state %d came back changed, or with ID %d", i+1, id)
		}
		i++
		return true
	})
	if i != len(states) {
		t.Errorf("got %d states back, want %d", i, len(states))
	}
}

func TestARunWithoutEndIsFound(t *testing.T) {
	for _, c := range []struct {
		edges [][2]uint32
		want  bool
	}{
		{[][2]uint32{{1, 2}, {2, 3}, {1, 3}}, true},
		{[][2]uint32{{1, 2}, {2, 3}, {3, 2}}, false},
	} {
		g := graph{seen: newTable(), edges: c.edges}
		for f := range uint64(3) {
			g.seen.add(f+1, 0)
		}
		if got := g.acyclic(); got != c.want {
			t.Errorf("%v: acyclic %t, want %t", c.edges, got, c.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args, says string
		want       int
	}{
		{"-part hold -only D1 -events 1", "holds", 0},
		{"-remove Atomic -only A1 -events 2", "VIOLATED", 1},
		{"-part hold -only D1 -events 1 -max 1", "CUT", 1},
		{"-remove Nothing", `got "Nothing"`, 2},
		{"-only X", `got "X"`, 2},
		{"-part half", `got "half"`, 2},
		{"-events 99", "got 99", 2},
		{"more", `got argument "more"`, 2},
		{"-help", "Examples:", 0},
		{"-list", "LowWater", 0},
	} {
		var out bytes.Buffer
		if got := run(strings.Fields(c.args), &out, &out); got != c.want || !strings.Contains(out.String(), c.says) {
			t.Errorf("model %s: exit %d, want %d; it says %q, want %q in it", c.args, got, c.want, out.String(), c.says)
		}
	}
}

func TestASearchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	c := configurations()[0]
	q := search{config: &c, maxStates: 1 << 30}
	if r := q.run(ctx); !r.cut || r.states > 1000 {
		t.Errorf("cut %t after %d states, want true after a few", r.cut, r.states)
	}
}
