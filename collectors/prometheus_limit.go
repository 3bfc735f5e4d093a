package collectors

// Of a text with more samples than sample_limit some metrics are left out whole:
// those with the most samples. Part of a metric would be worse than none, because
// its sum would be wrong without a sign of it; and to leave out everything, as
// Prometheus does, would let one bad metric blind the agent to all the others.
//
// A text is read once and not kept, so the choice is made when the limit is
// passed, among the metrics seen so far. At the end all sizes are known: the next
// read begins with the right choice, and a metric that was left out for one that
// came later is back.

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	promOthers = "__other__" // metrics that are not named on their own
	promNames  = 5           // that an error lists
)

// admit reports whether a sample is kept.
func (t *promTable) admit(g *promGroup) bool {
	if g.samples++; g.samples == max(1, t.limit/100) {
		t.big = append(t.big, g)
	}
	if t.admitted++; t.admitted > t.limit {
		t.cut(t.largest(g))
	}
	return !g.cut
}

// leaveOut counts a line of a metric that is left out, before it is parsed.
func (t *promTable) leaveOut(line []byte) bool {
	i := bytes.IndexAny(line, "{ \t")
	if i < 1 {
		return false
	}
	n := t.names[string(line[:i])]
	if n == nil || n.gen != t.gen || !n.group.cut {
		return false
	}
	t.read.samples++
	n.group.samples++
	return true
}

// largest returns the metric to be left out: the one with the most samples, or
// the one at hand, g, where none has more than a hundredth of what is kept. So
// there are never more than a hundred to be compared.
func (t *promTable) largest(g *promGroup) *promGroup {
	t.big = slices.DeleteFunc(t.big, func(o *promGroup) bool { return o.cut })
	for _, o := range t.big {
		if o.samples > g.samples {
			g = o
		}
	}
	return g
}

// cut leaves a metric out of this read.
func (t *promTable) cut(g *promGroup) {
	t.admitted -= g.samples
	g.cut = true
	t.forget(g)
}

// forget takes out all that is known of a metric's lines.
func (t *promTable) forget(g *promGroup) {
	for e := g.entries; e != nil; e = g.entries {
		if s := e.series; s != nil {
			s.gone = true
		}
		t.remove(e)
	}
}

// account counts what was left out for the limit, and chooses for the next read.
func (t *promTable) account() {
	var all []*promGroup
	total := 0
	for _, g := range t.groups {
		if g.gen != t.gen || g.samples == 0 {
			continue
		}
		if g.cut {
			t.read.cut[g.name] += int64(g.samples)
			t.read.dropped[promDropLimit] += int64(g.samples)
		}
		total += g.samples
		all = append(all, g)
	}
	t.read.dropped[promDropLimit] += t.read.cut[promOthers]
	// With rules, what a metric has after them is only known by reading it.
	if total <= t.limit || len(t.relabel) > 0 {
		return
	}
	slices.SortFunc(all, func(a, b *promGroup) int {
		return cmp.Or(cmp.Compare(b.samples, a.samples), strings.Compare(a.name, b.name))
	})
	for _, g := range all {
		if total <= t.limit {
			break
		}
		g.keepCut = true
		total -= g.samples
	}
}

// cutError names what was left out; nil: nothing was.
func (r promRead) cutError(limit int) error {
	if len(r.cut) == 0 {
		return nil
	}
	cut := r.cut
	names := slices.SortedFunc(maps.Keys(cut), func(a, b string) int {
		return cmp.Or(cmp.Compare(cut[b], cut[a]), strings.Compare(a, b))
	})
	var list []string
	for _, name := range names[:min(len(names), promNames)] {
		list = append(list, fmt.Sprintf("%s (%d)", promCut(name), cut[name]))
	}
	if more := len(names) - promNames; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("sample_limit: got %d samples, want at most %d: left out %s", r.samples, limit, strings.Join(list, ", "))
}

// promCut makes a name fit where it is shown.
func promCut(name string) string {
	const limit = 128
	return promSanitize(name[:min(len(name), limit)], true)
}
