package collectors

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/metrics"
)

// promReads reads one text more.
func promReads(t *testing.T, table *promTable, text string) []metrics.Family {
	t.Helper()
	if err := table.scan(strings.NewReader(text), false); err != nil {
		t.Fatal(err)
	}
	table.account()
	promBooks(t, table)
	return table.result()
}

// TestPrometheusLabelsAtRandom: labels of a few names come and go, in any order and
// written in several ways; what was read before changes nothing.
func TestPrometheusLabelsAtRandom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	table := newPromTable(100, nil)
	for round := range 500 {
		var b strings.Builder
		b.WriteString("# TYPE h histogram\n")
		names := []string{"a", "b", "h_bucket", "h_count"}[:1+r.IntN(4)]
		for range r.IntN(30) {
			var labels []string
			for _, i := range r.Perm(4)[:r.IntN(4)] {
				labels = append(labels, fmt.Sprintf(`%c="%s"`, 'a'+i, []string{"", "x", "y"}[r.IntN(3)]))
			}
			name := names[r.IntN(len(names))]
			if name == "h_bucket" {
				labels = append(labels, `le="1"`)
			}
			fmt.Fprintf(&b, "%s{%s}%s%d\n", name, strings.Join(labels, ","), []string{"", " ", "\t"}[r.IntN(3)], r.IntN(9))
		}
		got, alone := promReads(t, table, b.String()), newPromTable(100, nil)
		if diff := cmp.Diff(promReads(t, alone, b.String()), got, promEqual, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("text %d (-alone +after the others):\n%s\n%s", round, b.String(), diff)
		}
		if diff := cmp.Diff(alone.read.dropped, table.read.dropped); diff != "" {
			t.Fatalf("text %d: dropped (-alone +after the others):\n%s", round, diff)
		}
	}
}

// TestPrometheusManyLabels: each series has a label of its own. A place for each in
// each series would be a hundred million.
func TestPrometheusManyLabels(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&b, "a{l%d=\"x\"} 1\n", i)
	}
	b.WriteString("b{l1=\"x\"} 1\n")
	table := newPromTable(20000, nil)
	for range 2 {
		fams := promReads(t, table, b.String())
		if len(fams) != 2 || len(fams[0].Points) != promMaxLabels || len(fams[0].Desc.Tags) != promMaxLabels || len(fams[1].Points) != 1 {
			t.Fatalf("got %d families, want the first %d series of a, and b", len(fams), promMaxLabels)
		}
		if got, want := table.read.dropped[promDropLabels], int64(10000-promMaxLabels); got != want {
			t.Errorf("%d samples left out for their labels, want %d", got, want)
		}
		if len(table.entries) > 2*promMaxLabels {
			t.Errorf("%d lines remembered, want those of the series that are kept", len(table.entries))
		}
	}
	// After a read, labels that were not in it take no place.
	promReads(t, table, "a{l9000=\"x\"} 1\n")
	if fams := promReads(t, table, "a{l9000=\"x\"} 1\n"); len(fams) != 1 || len(fams[0].Points) != 1 {
		t.Errorf("got %v afterwards, want the series of the label that is left", fams)
	}
}

// TestPrometheusForgetsWhatIsWrittenOddly: a sign may follow the name at once, and
// then the name's end is not where it is looked for first.
func TestPrometheusForgetsWhatIsWrittenOddly(t *testing.T) {
	t.Parallel()
	table := newPromTable(100, nil)
	for range 50 {
		if diff := cmp.Diff([]string{"gauge a{}1"}, promShort(promReads(t, table, "a+1\n"))); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	linked := 0
	for e := table.groups["a"].entries; e != nil; e = e.same {
		linked++
	}
	if linked != 1 || len(table.entries) != 1 {
		t.Errorf("%d lines are linked and %d known, want the one", linked, len(table.entries))
	}
}

// TestPrometheusSharesTags: series of several metrics with the same labels have the
// same tags, and of tags that differ the values that do not.
func TestPrometheusSharesTags(t *testing.T) {
	t.Parallel()
	fams := promReads(t, newPromTable(100, nil), "a{x=\"long\",y=\"1\"} 1\nb{y=\"1\",x=\"long\"} 2\nb{x=\"long\",y=\"2\"} 2\nc 1\n")
	a, b, other := fams[0].Points[0].Tags, fams[1].Points[0].Tags, fams[1].Points[1].Tags
	if &a[0] != &b[0] {
		t.Error("a and b have tags of their own, want the same")
	}
	if diff := cmp.Diff([]string{"long", "2"}, other); diff != "" {
		t.Errorf("the other series of b (-want +got):\n%s", diff)
	}
	var p promShared
	for i := range 3 * promSharedMost { // it forgets, and never takes one for another
		v := fmt.Sprint(i % (2 * promSharedMost))
		if row := p.row([]string{v, "x"}); row[0] != v || row[1] != "x" {
			t.Fatalf("got the row %q, want %q", row, v)
		}
	}
	if len(p.rows) != promSharedMost || len(p.texts) != promSharedMost {
		t.Errorf("%d rows and %d texts are kept, want %d", len(p.rows), len(p.texts), promSharedMost)
	}
}

// TestPrometheusRemembersLittle: what is kept of 9,000 lines from read to read.
func TestPrometheusRemembersLittle(t *testing.T) {
	text := promTypical(9000)
	reachable := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := reachable()
	table := newPromTable(10000, nil)
	promReads(t, table, text)
	lines := len(table.entries)
	if each := (reachable() - before) / float64(lines); each > 250 {
		t.Errorf("%.0f bytes are kept for each of %d lines, want 250 at most", each, lines)
	} else {
		t.Logf("%.0f bytes are kept for each of %d lines", each, lines)
	}
	runtime.KeepAlive(table)
	runtime.KeepAlive(text)
}
