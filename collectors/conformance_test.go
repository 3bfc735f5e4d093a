package collectors

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
)

// A kindCase says what is a kind's own of what every kind is held to.
type kindCase struct {
	// lacks is what an empty configuration is told, after collectors[0]; empty: it
	// is one.
	lacks string
	// least makes a configuration of nothing but what must be there, of a source
	// that gives something. feed, if not nil, is called before each read, with how
	// many there were; the source changes with it.
	least func(t *testing.T) (text string, feed func(round int))
	// hangs makes the configuration of a source that never answers; nil: it reads
	// what cannot hang, or has a test of its own for it.
	hangs func(t *testing.T) string
	// finds is one of the metrics that it gives.
	finds string
	// others is true where names, units and budgets are whoever's it reads.
	others bool
}

func kindCases() map[string]kindCase {
	nothing := func(*testing.T) (string, func(int)) { return "{}", nil }
	return map[string]kindCase{
		"cgroup": {least: func(*testing.T) (string, func(int)) {
			return "{proc: testdata/cgroup/v2/proc, sys: testdata/cgroup/v2/sys}", nil
		}, finds: "outrider_cgroup_memory_bytes"},
		"dogstatsd": {least: leastStatsD, finds: "orders_total", others: true},
		"drops":     {least: nothing, finds: "outrider_drops_rate"},
		"expvar":    {lacks: ".expvar.url: got nothing, want text", least: leastExpvar, hangs: hungServer, finds: "orders_total", others: true},
		"host": {least: func(*testing.T) (string, func(int)) {
			return `{exclude_mounts: ".+"}`, nil // one of this machine's may be broken
		}, finds: "outrider_host_memory_total_bytes"},
		"process":     {lacks: ".process: got none of them, want exactly one of pid, pidfile, name, unit", least: leastProcess, finds: "outrider_process_threads"},
		"prometheus":  {lacks: ".prometheus.url: got nothing, want text", least: leastPrometheus, hangs: hungServer, finds: "orders_total", others: true},
		"queue_depth": {least: nothing, finds: "outrider_queue_depth"},
		"retries":     {least: nothing, finds: "outrider_retries_rate"},
		"runtime":     {least: nothing, finds: "outrider_runtime_goroutines"},
		"throughput":  {least: nothing, finds: "outrider_throughput_in_rate"},
	}
}

// TestEveryKind holds each kind of the table to the contracts of [Collector],
// [Runner] and [Builder].
func TestEveryKind(t *testing.T) {
	cases := kindCases()
	for kind := range cases {
		if Kinds()[kind] == nil {
			t.Errorf("the suite has %s, which the table of kinds has not", kind)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(Kinds())) {
		c, ok := cases[kind]
		if !ok {
			t.Errorf("the table of kinds has %s, and the suite has not: add it to kindCases", kind)
			continue
		}
		t.Run(kind, func(t *testing.T) {
			// What is begun in there has the label, and so has what that begins.
			pprof.Do(t.Context(), pprof.Labels("conformance", kind), func(context.Context) {
				t.Run("configuration", func(t *testing.T) { configurationConforms(t, kind, c) })
				t.Run("reads", func(t *testing.T) { readsConform(t, kind, c) })
				t.Run("deadline", func(t *testing.T) { deadlineConforms(t, kind, c) })
			})
			if left := leftBehind(kind); left != "" {
				t.Errorf("goroutines are left behind:\n%s", left)
			}
		})
	}
}

// promptly is how soon what was told to end must have ended.
const promptly = time.Second

// parseKind reads an entry of collectors.
func parseKind(kind, text string) (Builder, error) {
	var items []Item
	_, err := config.Parse("f.yaml", fmt.Appendf(nil, "collectors:\n  - name: it\n    %s: %s\n", kind, text), ".", config.Options{
		Sections: map[string]any{"collectors": &items}, Kinds: map[string]config.Kinds{"collectors": Kinds()},
	})
	if err != nil {
		return nil, err
	}
	b, ok := items[0].Config.(Builder)
	if !ok {
		return nil, fmt.Errorf("BUG: %T is not a Builder", items[0].Config)
	}
	return b, nil
}

func configurationConforms(t *testing.T, kind string, c kindCase) {
	least, _ := c.least(t)
	withMore := strings.TrimSuffix(least, "}") + ", no_such_key: 1}"
	if least == "{}" {
		withMore = "{no_such_key: 1}"
	}
	for _, tt := range []struct{ text, want string }{
		{"{}", c.lacks},
		{least, ""},
		{withMore, "." + kind + ".no_such_key: got an unknown key, want "},
		{"7", "." + kind + ": got 7, want a mapping"},
	} {
		_, err := parseKind(kind, tt.text)
		if tt.want == "" && err != nil {
			t.Errorf("%s: %v, want it accepted", tt.text, err)
		} else if want := "f.yaml:3: collectors[0]" + tt.want; tt.want != "" && !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: got %v, want %q", tt.text, err, want)
		}
	}
}

// A kindAtWork is a collector, and what it is made in.
type kindAtWork struct {
	Collector
	config Builder
	reg    *metrics.Registry
	group  *metrics.Group
	stop   func() error // ends Run, and waits for it
}

// putToWork builds a kind as its configuration says, and runs it where it has
// work of its own.
func putToWork(t *testing.T, kind, text string) *kindAtWork {
	t.Helper()
	b, err := parseKind(kind, text)
	if err != nil {
		t.Fatal(err)
	}
	w := &kindAtWork{config: b, reg: metricstest.Registry(t), stop: func() error { return nil }}
	w.group = w.reg.Group()
	var looks atomic.Int64 // each finds that more has gone by, and a second
	began := time.Now()
	w.Collector, err = b.Build(Env{
		Name: "it", Metrics: w.group, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return began.Add(time.Duration(looks.Add(1)) * time.Second) },
		Pipelines: func() []metrics.PipelineSnapshot {
			n := looks.Add(1)
			return []metrics.PipelineSnapshot{{
				Name: "orders", Unit: "orders", In: 12 * n, Out: 7 * n, Queued: 2 * n,
				Retries: map[string]int64{"timeout": n}, Dropped: map[string]int64{"full": 3 * n},
			}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, ok := w.Collector.(Runner)
	if !ok {
		return w
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	w.stop = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(promptly):
			return fmt.Errorf("it runs %v after it was told to end", promptly)
		}
	}
	t.Cleanup(func() { _ = w.stop() })
	return w
}

// readsConform reads twice, and holds what was found to the rules.
func readsConform(t *testing.T, kind string, c kindCase) {
	text, feed := c.least(t)
	w := putToWork(t, kind, text)
	var before, kept []metrics.Family
	for round := range 2 {
		if feed != nil {
			feed(round)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		fams, err := collectFinding(ctx, w, c.finds)
		cancel()
		if err != nil {
			t.Errorf("read %d: %v", round, err)
		}
		for _, wrong := range wrongFamilies(fams, c.others) {
			t.Errorf("read %d: %s", round, wrong)
		}
		for _, wrong := range notDescribed(fams, w.config) {
			t.Errorf("read %d: %s", round, wrong)
		}
		for _, wrong := range wentDown(before, fams) {
			t.Errorf("read %d: %s", round, wrong)
		}
		if diff := gocmp.Diff(kept, before); diff != "" {
			t.Errorf("read %d changed what the read before had given (-then +now):\n%s", round, diff)
		}
		before, kept = fams, copyOf(fams)
	}
	for _, wrong := range wrongFamilies(w.reg.Gather(), false) {
		t.Errorf("of its own work: %s", wrong)
	}
	if err := w.stop(); err != nil {
		t.Errorf("run: %v, want nil soon after its context has ended", err)
	}
	if diff := gocmp.Diff(kept, before); diff != "" {
		t.Errorf("its end changed what it had given (-then +now):\n%s", diff)
	}
	metricstest.Balanced(t, w.reg)
	w.group.Close()
	for _, f := range w.reg.Gather() {
		if len(f.Points) > 0 {
			t.Errorf("%s: %d series are in the registry after its group was closed, want none", f.Desc.Name, len(f.Points))
		}
	}
}

// collectFinding reads until what is sure to be there was found: who sends to a
// collector does not know when it is counted.
func collectFinding(ctx context.Context, w *kindAtWork, name string) ([]metrics.Family, error) {
	for {
		fams, err := w.Collect(ctx)
		if err != nil || slices.ContainsFunc(fams, func(f metrics.Family) bool { return f.Desc.Name == name }) {
			return fams, err
		}
		select {
		case <-ctx.Done():
			return fams, fmt.Errorf("got %d metrics, and %s is none of them", len(fams), name)
		case <-time.After(time.Millisecond):
		}
	}
}

// deadlineConforms reads with no time, with little, and with some that is taken
// away.
func deadlineConforms(t *testing.T, kind string, c kindCase) {
	if c.hangs != nil {
		w := putToWork(t, kind, c.hangs(t))
		little, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if fams, err := collectSoon(little, t, w, "a source that hangs"); err == nil || len(fams) > 0 {
			t.Errorf("a source that hangs: got %d families and error %v, want an error alone", len(fams), err)
		}
		stopped, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := collectSoon(stopped, t, w, "a source that hangs, and the agent's end"); err == nil {
			t.Error("a source that hangs, and the agent's end: got no error")
		}
	}
	text, feed := c.least(t)
	w := putToWork(t, kind, text)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = collectSoon(ended, t, w, "a context that has ended") // what needs no time may be there
	if feed != nil {
		feed(0)
	}
	after, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := collectFinding(after, w, c.finds); err != nil {
		t.Errorf("after a read that was cut short: %v", err)
	}
	if err := w.stop(); err != nil {
		t.Errorf("run: %v, want nil soon after its context has ended", err)
	}
}

func collectSoon(ctx context.Context, t *testing.T, c Collector, what string) ([]metrics.Family, error) {
	t.Helper()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now()
	}
	fams, err := c.Collect(ctx)
	if late := time.Since(deadline); late > promptly {
		t.Errorf("%s: it came back %v late, want %v at most", what, late.Round(time.Millisecond), promptly)
	}
	return fams, err
}

// leftBehind are the goroutines of a kind that do not end.
func leftBehind(kind string) string {
	label := fmt.Sprintf("%q:%q", "conformance", kind)
	for end := time.Now().Add(5 * time.Second); ; {
		var all bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
			return err.Error()
		}
		var left []string
		for stack := range strings.SplitSeq(all.String(), "\n\n") {
			if strings.Contains(stack, label) {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
		<-time.After(time.Millisecond)
	}
}

var (
	ownName    = regexp.MustCompile(`^outrider_[a-z0-9]+(_[a-z0-9]+)*$`)
	ownDatadog = regexp.MustCompile(`^outrider(\.[a-z0-9]+(_[a-z0-9]+)*)+$`)
	anyName    = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	tagName    = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// wrongFamilies says what is wrong with what was read, each thing with its name.
// others is true where the source names, counts and describes.
func wrongFamilies(fams []metrics.Family, others bool) (out []string) {
	for i, f := range fams {
		d := f.Desc
		wrong := func(format string, args ...any) {
			out = append(out, d.Name+": "+fmt.Sprintf(format, args...))
		}
		if i > 0 && fams[i-1].Desc.Name >= d.Name {
			wrong("comes after %s, want each name once, and sorted", fams[i-1].Desc.Name)
		}
		switch d.Type {
		case metrics.CounterType, metrics.GaugeType, metrics.HistogramType:
		default:
			wrong("type %q", d.Type)
		}
		if d.Help == "" {
			wrong("no help")
		}
		if others {
			if !anyName.MatchString(d.Name) {
				wrong("cannot be a name")
			}
		} else if !ownName.MatchString(d.Name) || !ownDatadog.MatchString(d.Datadog) || d.Unit == "" || d.Budget == 0 {
			wrong("name in Datadog %q, unit %q, budget %d, want outrider_..., outrider..., a unit and a budget", d.Datadog, d.Unit, d.Budget)
		}
		if d.Budget != 0 && len(f.Points) > d.Budget {
			wrong("%d series, want %d at most", len(f.Points), d.Budget)
		}
		for j, tag := range d.Tags {
			if !tagName.MatchString(tag) || slices.Contains(d.Tags[:j], tag) {
				wrong("tag %q, want the name of a tag, once", tag)
			}
		}
		for j, p := range f.Points {
			for _, err := range wrongPoint(d, p, others) {
				wrong("series %q: %s", p.Tags, err)
			}
			if j > 0 && slices.Compare(f.Points[j-1].Tags, p.Tags) >= 0 {
				wrong("series %q comes after %q, want each once, and sorted", p.Tags, f.Points[j-1].Tags)
			}
		}
	}
	return out
}

func wrongPoint(d metrics.Desc, p metrics.Point, others bool) (out []string) {
	if len(p.Tags) != len(d.Tags) {
		out = append(out, fmt.Sprintf("%d values, want one for each of the tags %q", len(p.Tags), d.Tags))
	}
	if (p.Hist != nil) != (d.Type == metrics.HistogramType) {
		return append(out, fmt.Sprintf("it has a histogram: %t, want one in a histogram, and only there", p.Hist != nil))
	}
	v := p.Value
	if p.Hist != nil {
		v = p.Hist.Sum
		if n := counted(p.Hist); n != p.Hist.Count {
			out = append(out, fmt.Sprintf("%d values in its buckets, want its count, %d", n, p.Hist.Count))
		}
	}
	switch {
	case (math.IsNaN(v) || math.IsInf(v, 0)) && !others:
		out = append(out, fmt.Sprintf("value %v, want a number", v))
	case v < 0 && d.Type == metrics.CounterType:
		out = append(out, fmt.Sprintf("value %v of a counter, want 0 or more", v))
	}
	return out
}

func counted(h *metrics.HistogramSnapshot) uint64 {
	n := h.Zero
	for _, b := range slices.Concat(h.Buckets, h.Negative) {
		n += b.Count
	}
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// notDescribed are the metrics of which a kind that says what it can give says
// nothing, or something else.
func notDescribed(fams []metrics.Family, kind any) (out []string) {
	d, ok := kind.(interface{ Descs() []metrics.Desc })
	if !ok {
		return nil
	}
	known := map[string]metrics.Desc{}
	for _, desc := range d.Descs() {
		known[desc.Name] = desc
	}
	for _, f := range fams {
		if diff := gocmp.Diff(known[f.Desc.Name], f.Desc); diff != "" {
			out = append(out, fmt.Sprintf("%s: not what Descs says (-descs +read):\n%s", f.Desc.Name, diff))
		}
	}
	return out
}

// wentDown are the counters that a later read found lower.
func wentDown(before, now []metrics.Family) (out []string) {
	was := counts(before)
	is := counts(now)
	for _, key := range slices.Sorted(maps.Keys(was)) {
		if v, ok := is[key]; ok && v < was[key] {
			out = append(out, fmt.Sprintf("%s: went from %v down to %v", key, was[key], v))
		}
	}
	return out
}

// counts are what only grows, by name and tags.
func counts(fams []metrics.Family) map[string]float64 {
	out := map[string]float64{}
	for _, f := range fams {
		for _, p := range f.Points {
			key := fmt.Sprintf("%s%q%q", f.Desc.Name, f.Desc.Tags, p.Tags)
			switch {
			case p.Hist != nil:
				out[key] = float64(p.Hist.Count)
			case f.Desc.Type == metrics.CounterType:
				out[key] = p.Value
			}
		}
	}
	return out
}

func copyOf(fams []metrics.Family) []metrics.Family {
	out := slices.Clone(fams)
	for i := range out {
		out[i].Desc.Tags = slices.Clone(out[i].Desc.Tags)
		out[i].Points = slices.Clone(out[i].Points)
		for j := range out[i].Points {
			p := &out[i].Points[j]
			p.Tags = slices.Clone(p.Tags)
			if p.Hist != nil {
				h := *p.Hist
				h.Buckets, h.Negative = slices.Clone(h.Buckets), slices.Clone(h.Negative)
				h.Bounds, h.Counts = slices.Clone(h.Bounds), slices.Clone(h.Counts)
				p.Hist = &h
			}
		}
	}
	return out
}

// leastStatsD sends to the socket as soon as it is there.
func leastStatsD(t *testing.T) (string, func(int)) {
	dir, err := os.MkdirTemp("", "statsd") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	send := func(round int) error {
		conn, err := net.Dial("unixgram", path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(conn, "orders:%d|c\norders.waiting:1|g|#shop:a\norders.time:%d|ms\n", round+1, round)
		return errors.Join(err, conn.Close())
	}
	return fmt.Sprintf("{listen: 'unix://%s'}", path), func(round int) {
		err := send(round)
		for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); err = send(round) {
			<-time.After(time.Millisecond)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// served makes a server of what text makes of the number of the read.
func served(t *testing.T, text func(round int) string) (url string, feed func(int)) {
	var round atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(text(int(round.Load()))))
	}))
	t.Cleanup(s.Close)
	return s.URL, func(n int) { round.Store(int64(n)) }
}

func leastPrometheus(t *testing.T) (string, func(int)) {
	url, feed := served(t, func(round int) string {
		return fmt.Sprintf("# TYPE orders_total counter\norders_total{shop=\"a\"} %[1]d\norders_total %[1]d\n"+
			"# TYPE wait_seconds histogram\nwait_seconds_bucket{le=\"1\"} %[1]d\nwait_seconds_bucket{le=\"+Inf\"} %[2]d\nwait_seconds_sum %[2]d\nwait_seconds_count %[2]d\n"+
			"# TYPE took summary\ntook{quantile=\"0.5\"} 3\ntook_sum %[1]d\ntook_count %[1]d\n", round+1, round+4)
	})
	return fmt.Sprintf("{url: '%s/metrics'}", url), feed
}

func leastExpvar(t *testing.T) (string, func(int)) {
	url, feed := served(t, func(round int) string {
		return fmt.Sprintf(`{"orders": %d, "waiting": {"a": 1, "b": true}, "memstats": {"Mallocs": %[1]d}}`, round+1)
	})
	return fmt.Sprintf("{url: '%s/debug/vars', counters: [orders]}", url), feed
}

func leastProcess(*testing.T) (string, func(int)) {
	return fmt.Sprintf("{pid: %d}", os.Getpid()), nil
}

// hungServer takes a request and never answers it.
func hungServer(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(s.Close)
	return fmt.Sprintf("{url: '%s/x'}", s.URL)
}

// TestTheRulesOfKindsCanFail shows each rule of what is read something that breaks
// it.
func TestTheRulesOfKindsCanFail(t *testing.T) {
	good := func() []metrics.Family {
		return []metrics.Family{
			{
				Desc:   metrics.Desc{Name: "outrider_a_total", Datadog: "outrider.a", Type: metrics.CounterType, Help: "A.", Unit: "things", Tags: []string{"x", "y"}, Budget: 3},
				Points: []metrics.Point{{Tags: []string{"", "1"}, Value: 1}, {Tags: []string{"a", ""}}, {Tags: []string{"b", ""}}},
			},
			{
				Desc:   metrics.Desc{Name: "outrider_b", Datadog: "outrider.b", Type: metrics.HistogramType, Help: "B.", Unit: "seconds", Budget: 1},
				Points: []metrics.Point{{Hist: &metrics.HistogramSnapshot{Bounds: []float64{1}, Counts: []uint64{2, 1}, Count: 3, Sum: 4}}},
			},
		}
	}
	for name, tt := range map[string]struct {
		breaks func(fams []metrics.Family)
		want   string
		only   bool // of our own
	}{
		"nothing":             {func([]metrics.Family) {}, "", false},
		"a name twice":        {func(f []metrics.Family) { f[1].Desc.Name = f[0].Desc.Name }, "comes after outrider_a_total", false},
		"a type":              {func(f []metrics.Family) { f[0].Desc.Type = "summary" }, `type "summary"`, false},
		"no help":             {func(f []metrics.Family) { f[0].Desc.Help = "" }, "no help", false},
		"no unit":             {func(f []metrics.Family) { f[0].Desc.Unit = "" }, `unit ""`, true},
		"no budget":           {func(f []metrics.Family) { f[0].Desc.Budget = 0 }, "budget 0", true},
		"over budget":         {func(f []metrics.Family) { f[0].Desc.Budget = 2 }, "3 series, want 2 at most", false},
		"a foreign name":      {func(f []metrics.Family) { f[0].Desc.Name = "b_total" }, "want outrider_", true},
		"no name in Datadog":  {func(f []metrics.Family) { f[0].Desc.Datadog = "" }, `name in Datadog ""`, true},
		"no name":             {func(f []metrics.Family) { f[0].Desc.Name = "0-0" }, "0-0: ", false},
		"a tag twice":         {func(f []metrics.Family) { f[0].Desc.Tags = []string{"x", "x"} }, `tag "x"`, false},
		"a tag less":          {func(f []metrics.Family) { f[0].Points[1].Tags = []string{"a"} }, `series ["a"]: 1 values`, false},
		"not sorted":          {func(f []metrics.Family) { slices.Reverse(f[0].Points) }, "want each once, and sorted", false},
		"a series twice":      {func(f []metrics.Family) { f[0].Points[2].Tags = f[0].Points[1].Tags }, "want each once, and sorted", false},
		"no number":           {func(f []metrics.Family) { f[0].Points[0].Value = math.NaN() }, "value NaN", true},
		"a counter below 0":   {func(f []metrics.Family) { f[0].Points[0].Value = -1 }, "value -1 of a counter", false},
		"a histogram's value": {func(f []metrics.Family) { f[1].Points[0].Hist = nil }, "it has a histogram: false", false},
		"a wrong count":       {func(f []metrics.Family) { f[1].Points[0].Hist.Count = 4 }, "3 values in its buckets, want its count, 4", false},
	} {
		for _, others := range []bool{false, true} {
			fams, want := good(), tt.want
			if tt.breaks(fams); tt.only && others {
				want = ""
			}
			got := strings.Join(wrongFamilies(fams, others), "\n")
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s (of others: %t): got %q, want %q", name, others, got, want)
			}
		}
	}
	less := good()
	less[0].Points[0].Value, less[1].Points[0].Hist.Count = 0, 2
	if got := wentDown(good(), less); len(got) != 2 || !strings.Contains(got[0], "outrider_a_total") || !strings.Contains(got[1], "from 3 down to 2") {
		t.Errorf("two that went down: got %q", got)
	}
	if got := wentDown(less, good()); len(got) != 0 {
		t.Errorf("two that went up: got %q", got)
	}
	if got := notDescribed(good(), &RuntimeConfig{}); len(got) != 2 {
		t.Errorf("two that are not described: got %q", got)
	}
	stay := make(chan struct{})
	pprof.Do(t.Context(), pprof.Labels("conformance", "one that stays"), func(context.Context) { go func() { <-stay }() })
	time.AfterFunc(10*time.Millisecond, func() { close(stay) })
	if left := leftBehind("one that stays"); left != "" {
		t.Errorf("one that ends late: got %s", cmp.Or(left, "nothing"))
	}
}
