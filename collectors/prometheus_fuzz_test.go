package collectors

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/outrider-agent/outrider/metrics"
)

// promTexts are texts to begin from. Each is one that some program writes, or
// one in which parsers have gone wrong.
var promTexts = []string{
	"", "\n", "a 1\n", "a 1", "a{b=\"c\"} 1 123\n", "a{b=\"c\",} -1.5e3\r\n", "a {b = \"c\" , d=\"\"} +Inf\n", "a+1\n", "a{}NaN\n",
	"# HELP a one\\ntwo \\\\ three\n# TYPE a counter\na 1\na{b=\"\\\"\\\\\\n\"} 2\n",
	"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n",
	"# TYPE h histogram\nh_bucket{a=\"x\",le=\"2\"} 1\nh_bucket{le=\"1\",a=\"x\"} 0\nh_bucket{a=\"x\",le=\"Inf\"} 3\nh_count{a=\"x\"} 3\nh_sum{a=\"x\"} NaN\nh_count{a=\"y\"} 1\n",
	"# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.99\",a=\"\"} 2\ns_sum 3\ns_count 2\ns_bucket 1\n",
	"# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum{quantile=\"0.5\"} 3\ns_count{quantile=\"1\"} 2\n",
	"# TYPE g gaugehistogram\ng_bucket{le=\"1\"} 1\ng_bucket{le=\"+Inf\"} 2\ng_sum 4\ng_count 2\n",
	"h_count 1\n# TYPE h histogram\nh_count 2\nh_bucket{le=\"+Inf\"} 2\n",
	"# TYPE c counter\nc_total 1\nc_created 5\nc 2\n# TYPE c_total gauge\n",
	"{\"my.metric\",a=\"b\"} 1\n{\"other metric\"} 2\n{a=\"b\",\"third\"} 3\nfo\"o b{ar\" 4\n",
	"# TYPE \"my.metric\" counter\n# HELP \"my.metric\" text\n{\"my.metric\"} 1\n{\"my.metric\",\"a.b\"=\"c\"} 1\n",
	"a{b=\"}\",c=\"\\\"}\"} 1 # {trace_id=\"x\"} 0.5 1.5\n", "a 0x1\n", "a 1_000\n", "a 1 2 3\n", "a{b=\"c\"\n", "a{b=c} 1\n", "a{1=\"c\"} 1\n",
	"# TYPE i info\ni_info{v=\"1\"} 1\n# UNIT a seconds\n# EOF\nb 1\n", "a{__name__=\"x\"} 1\n", "#\n# \n#TYPE a counter\n#HELP\na 1\n", "a{b=\"\xff\"} 1\n", "a{b=\"1\",b=\"2\"} 1\n",
	"<html>\n", "\x00\x01\x02", "a 1\na 2\na{b=\"\"} 3\n", "a 123456789012345678\na 1e400\n",
}

// FuzzPrometheusText holds the parser to the reference: what that accepts, this
// accepts, and finds the same. Nothing may panic.
func FuzzPrometheusText(f *testing.F) {
	for _, text := range promTexts {
		f.Add([]byte(text), []byte("a 1\n"), false)
		f.Add([]byte(text), []byte(strings.ToUpper(text)), true)
	}
	f.Fuzz(func(t *testing.T, text, before []byte, openMetrics bool) {
		got := promScan(t, 1000, openMetrics, string(text))
		// What was read before changes nothing.
		table := newPromTable(1000, nil)
		_ = table.scan(bytes.NewReader(before), openMetrics)
		table.account()
		table.result()
		for range 2 {
			_ = table.scan(bytes.NewReader(text), openMetrics)
			table.account()
			if diff := cmp.Diff(got, table.result(), promEqual, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("read after %q (-alone +after):\n%s", before, diff)
			}
		}
		if openMetrics {
			return
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		fams, err := parser.TextToMetricFamilies(bytes.NewReader(text))
		if err != nil || promQuirk(text) {
			return
		}
		want, ok := promReference(fams)
		if !ok {
			return
		}
		if diff := cmp.Diff(want, promFlat(got), promEqual); diff != "" {
			t.Fatalf("%q (-reference +got):\n%s", text, diff)
		}
	})
}

// promEqual compares numbers by what they are: a NaN is a NaN.
var promEqual = cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })

// promScan reads one text with a new table.
func promScan(t *testing.T, limit int, openMetrics bool, text string) []metrics.Family {
	t.Helper()
	table := newPromTable(limit, nil)
	_ = table.scan(strings.NewReader(text), openMetrics)
	table.account()
	promBooks(t, table)
	return table.result()
}

// promBooks checks that every sample was kept, or dropped for a reason.
func promBooks(t *testing.T, table *promTable) {
	t.Helper()
	kept, dropped := table.admitted, 0
	for reason, n := range table.read.dropped {
		if reason != promDropParse && reason != promDropLong { // those were no samples
			dropped += int(n)
		}
	}
	if table.read.dropped[promDropTruncated] > 0 {
		kept -= int(table.read.dropped[promDropTruncated])
	}
	if kept+dropped != table.read.samples {
		t.Errorf("%d samples kept and %d dropped, want %d in all: %v", kept, dropped, table.read.samples, table.read.dropped)
	}
}

var (
	promBraceFirst = regexp.MustCompile(`(?m)^[ \t]*\{`)
	promBackslash  = regexp.MustCompile(`(?mi)^[ \t]*#[ \t]*TYPE.*\\`)
	promEmptyHelp  = regexp.MustCompile(`(?m)^[ \t]*#[ \t]*(HELP|TYPE)[ \t]+\S+[ \t]*$`)
)

// promQuirk finds what the reference reads in a way that nobody can have meant:
// with a name in braces it takes the type of the metric before, and in a TYPE
// line it leaves out backslashes. A line of HELP without text declares a metric
// there.
func promQuirk(text []byte) bool {
	lower := bytes.ToLower(text)
	typed := bytes.Contains(lower, []byte("histogram")) || bytes.Contains(lower, []byte("summary"))
	return typed && (promBraceFirst.Match(text) || promEmptyHelp.Match(text)) || promBackslash.Match(text) ||
		slices.ContainsFunc(bytes.Split(text, []byte("\n")), func(l []byte) bool { return len(l) >= promMaxLine })
}

// promReference flattens what the reference found; false: it is of a kind of
// which it and we may think differently.
func promReference(fams map[string]*dto.MetricFamily) (map[string]float64, bool) {
	out := map[string]float64{}
	ok := true
	owner := map[string]string{}
	put := func(fam, name string, labels []*dto.LabelPair, v float64, more ...string) {
		flat := map[string]string{}
		for _, l := range labels {
			name := promSanitize(l.GetName(), false)
			if _, twice := flat[name]; twice || name != l.GetName() && name == more0(more) {
				ok = false
			}
			flat[name] = l.GetValue()
		}
		if len(more) > 0 {
			if _, twice := flat[more[0]]; twice {
				ok = false
			}
			flat[more[0]] = more[1]
		}
		clean := promSanitize(name, true)
		if o, known := owner[clean]; known && o != fam {
			ok = false // two metrics with one name
		}
		owner[clean] = fam
		key := promFlatKey(clean, flat)
		if _, twice := out[key]; !twice {
			out[key] = v
		}
	}
	for _, f := range fams {
		fam, name := f.GetName(), f.GetName()
		for _, m := range f.GetMetric() {
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				put(fam, name, m.Label, m.Counter.GetValue())
			case dto.MetricType_GAUGE:
				put(fam, name, m.Label, m.Gauge.GetValue())
			case dto.MetricType_UNTYPED:
				put(fam, name, m.Label, m.Untyped.GetValue())
			case dto.MetricType_SUMMARY:
				s := m.Summary
				if s == nil || s.SampleCount == nil || s.SampleSum == nil || len(s.Quantile) == 0 {
					return nil, false
				}
				for _, q := range s.Quantile {
					put(fam, name, m.Label, q.GetValue(), "quantile", promNumber(q.GetQuantile()))
				}
				put(fam, name+"_sum", m.Label, s.GetSampleSum())
				put(fam, name+"_count", m.Label, float64(s.GetSampleCount()))
			default:
				h := m.Histogram
				if f.GetType() != dto.MetricType_HISTOGRAM || !promWellFormed(h) {
					return nil, false
				}
				for _, b := range h.Bucket {
					put(fam, name+"_bucket", m.Label, float64(b.GetCumulativeCount()), "le", promNumber(b.GetUpperBound()))
				}
				put(fam, name+"_sum", m.Label, h.GetSampleSum())
				put(fam, name+"_count", m.Label, float64(h.GetSampleCount()))
			}
		}
	}
	return out, ok
}

func more0(more []string) string {
	if len(more) == 0 {
		return ""
	}
	return more[0]
}

// promWellFormed reports whether a histogram is one: growing, whole, with a sum
// and a count that is that of its last bucket.
func promWellFormed(h *dto.Histogram) bool {
	if h == nil || h.SampleCount == nil || h.SampleSum == nil || len(h.Bucket) == 0 {
		return false
	}
	seen := map[float64]bool{}
	below := map[float64]uint64{}
	for _, b := range h.Bucket {
		if b.CumulativeCount == nil || seen[b.GetUpperBound()] {
			return false
		}
		seen[b.GetUpperBound()] = true
		below[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	bounds := slices.Clone(h.Bucket)
	slices.SortFunc(bounds, func(a, b *dto.Bucket) int {
		return promCompareBounds(promBucket{bound: a.GetUpperBound()}, promBucket{bound: b.GetUpperBound()})
	})
	for i, b := range bounds[1:] {
		if b.GetCumulativeCount() < bounds[i].GetCumulativeCount() {
			return false
		}
	}
	return math.IsInf(bounds[len(bounds)-1].GetUpperBound(), 1) && bounds[len(bounds)-1].GetCumulativeCount() == h.GetSampleCount() && h.GetSampleCount() < 1<<53
}

// promFlat writes families as the samples that they came from.
func promFlat(fams []metrics.Family) map[string]float64 {
	out := map[string]float64{}
	for _, f := range fams {
		for _, p := range f.Points {
			labels := map[string]string{}
			for i, v := range p.Tags {
				if f.Desc.Tags[i] == "quantile" && strings.HasSuffix(f.Desc.Datadog, ".quantile") {
					if q, ok := promFloat([]byte(v)); ok {
						v = promNumber(q)
					}
				}
				labels[f.Desc.Tags[i]] = v
			}
			if p.Hist == nil {
				out[promFlatKey(f.Desc.Name, labels)] = p.Value
				continue
			}
			out[promFlatKey(f.Desc.Name+"_sum", labels)] = p.Hist.Sum
			out[promFlatKey(f.Desc.Name+"_count", labels)] = float64(p.Hist.Count)
			upTo := uint64(0)
			for i, n := range p.Hist.Counts {
				upTo += n
				labels["le"] = "+Inf"
				if i < len(p.Hist.Bounds) {
					labels["le"] = promNumber(p.Hist.Bounds[i])
				}
				out[promFlatKey(f.Desc.Name+"_bucket", labels)] = float64(upTo)
			}
		}
	}
	return out
}

func promFlatKey(name string, labels map[string]string) string {
	var parts []string
	for name, value := range labels {
		if value != "" {
			parts = append(parts, fmt.Sprintf("%s=%q", name, value))
		}
	}
	slices.Sort(parts)
	return name + "{" + strings.Join(parts, ",") + "}"
}

func promNumber(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
