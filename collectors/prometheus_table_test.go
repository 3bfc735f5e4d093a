package collectors

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestPrometheusTextsThatChange: what is remembered of one text never changes
// what the next one says.
func TestPrometheusTextsThatChange(t *testing.T) {
	t.Parallel()
	for name, texts := range map[string][]string{
		"labels after a blank":     {"x 1\na 1\n", "x 1\na {b=\"c\"} 2\n", "x 1\na 3\n"},
		"another type":             {"# TYPE a gauge\na 1\n", "# TYPE a counter\na 1\n", "a 1\n"},
		"parts, then a metric":     {"a_count 1\na_sum 2\n", "# TYPE a histogram\na_count 1\na_sum 2\n", "a_count 1\na_sum 2\n"},
		"two types of one name":    {"{\"a.b\"} 1\n# TYPE a_b counter\na_b 2\n", "# TYPE a_b counter\na_b 2\n{\"a.b\"} 1\n", "{\"a.b\"} 1\n# TYPE a_b counter\na_b 2\n"},
		"another type takes over":  {"{\"a.b\"} 1\n", "# TYPE a_b counter\na_b 2\n{\"a.b\"} 1\n", "{\"a.b\"} 1\n"},
		"another description":      {"# HELP a one\na 1\n", "# HELP a two\na 1\n", "a 1\n"},
		"labels come and go":       {"a{b=\"1\"} 1\na{c=\"1\"} 2\n", "a{b=\"1\"} 1\n", "a 1\na{c=\"1\",d=\"2\"} 2\n"},
		"a bound comes and goes":   {"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n", "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\n", "# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\n"},
		"in another order":         {"a 1\nb 2\nc 3\n", "c 1\nb 2\na 3\n", "b 1\nc 2\na 3\n"},
		"nothing":                  {"a 1\n", "", "a 1\n"},
		"a series with two writes": {"a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\n", "a{y=\"2\",x=\"1\"} 3\n", "a{x=\"1\",y=\"2\"} 4\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := newPromTable(100, nil)
			for i, text := range append(texts, texts...) {
				if err := table.scan(strings.NewReader(text), false); err != nil {
					t.Fatal(err)
				}
				table.account()
				promBooks(t, table)
				alone := newPromTable(100, nil)
				_ = alone.scan(strings.NewReader(text), false)
				alone.account()
				if diff := cmp.Diff(alone.result(), table.result(), promEqual, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("text %d (-alone +after the others):\n%s", i, diff)
				}
				if diff := cmp.Diff(alone.read.dropped, table.read.dropped); diff != "" {
					t.Errorf("text %d: dropped (-alone +after the others):\n%s", i, diff)
				}
			}
		})
	}
}

// TestPrometheusResultStaysAsItWas: the caller keeps families while later texts
// are read.
func TestPrometheusResultStaysAsItWas(t *testing.T) {
	t.Parallel()
	table := newPromTable(100, nil)
	read := func(text string) string {
		_ = table.scan(strings.NewReader(text), false)
		table.account()
		fams := table.result()
		was := promRender(fams)
		_ = table.scan(strings.NewReader("# TYPE h histogram\nh_bucket{le=\"0.1\"} 5\nh_bucket{le=\"1\"} 7\nh_bucket{z=\"1\",le=\"1\"} 7\na{new=\"x\"} 9\na{c=\"d\"} 8\n"), false)
		table.account()
		table.result()
		if now := promRender(fams); now != was {
			t.Errorf("it was\n%sand is\n%s", was, now)
		}
		return was
	}
	const text = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\na{c=\"d\"} 1\n"
	if first, again := read(text), read(text); first != again {
		t.Errorf("first\n%sthen\n%s", first, again)
	}
}

// TestPrometheusForgets: series, bounds and names that come and go leave nothing.
func TestPrometheusForgets(t *testing.T) {
	t.Parallel()
	table := newPromTable(1000, nil)
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var b strings.Builder
		b.WriteString("# TYPE h histogram\n")
		for range 50 {
			fmt.Fprintf(&b, "h_bucket{le=\"%d\"} 1\na{id=\"%d\"} 1\nname_%d 1\nb{} bad%d\n", random.Uint32(), random.Uint32(), random.Uint32(), random.Uint32())
		}
		b.WriteString("h_bucket{le=\"+Inf\"} 1\n")
		if err := table.scan(strings.NewReader(b.String()), false); err != nil {
			t.Fatal(err)
		}
		table.account()
		table.result()
	}
	buckets := 0
	if h := table.families["h"]; h != nil {
		for _, s := range h.series {
			buckets += len(s.hist.buckets)
		}
	}
	if len(table.entries) > 200 || len(table.names) > 60 || len(table.groups) > 60 || len(table.families) > 60 || buckets > 200 {
		t.Errorf("%d lines, %d names, %d metrics, %d families and %d buckets remembered, want no more than two texts have",
			len(table.entries), len(table.names), len(table.groups), len(table.families), buckets)
	}
}

// TestPrometheusRefusesLines: each is named, and the line after it is read.
func TestPrometheusRefusesLines(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"a":                                "got the value nothing, want a number",
		"a one":                            `got the value "one", want a number`,
		"a 0x1p3":                          "want a number",
		"a 1_000":                          "want a number",
		"a 1 soon":                         `got the timestamp "soon", want a number`,
		"a 1 2 3":                          `got "3" after the value, want the end of the line`,
		"1a 1":                             `got "1a", want the name of a metric`,
		"{} 1":                             "got braces without a name",
		`{b="c"} 1`:                        "got braces without a name",
		`a{b="c" 1`:                        `got "1" after label "b", want a comma or }`,
		`a{b="c"`:                          `after label "b", want a comma or }`,
		`a{b="c`:                           "want the closing quotes",
		`a{b=c} 1`:                         `as value of label "b", want it in quotes`,
		`a{b} 1`:                           `after label "b", want =`,
		`a{b="\x"} 1`:                      `got the escape "\\x", want`,
		`a{b="1",b="2"} 1`:                 `got the label "b" twice`,
		`a{__name__="b"} 1`:                "got the label __name__",
		"a{b=\"\xff\"} 1":                  "with bytes that are not UTF-8",
		"{\"\xff\"} 1":                     "want UTF-8",
		"# TYPE a thing":                   `got the type "thing" of "a", want counter`,
		"# HELP 1a text":                   `want the name of a metric`,
		`h_bucket{le="one"} 1`:             `got the bound le="one", want a number`,
		`h_bucket{le="NaN"} 1`:             `got the bound le="NaN", want a number`,
		`h_bucket 1`:                       "got a bucket without le",
		`h_bucket{le="1"} -1`:              "got the count -1, want one that is not negative",
		`h_count NaN`:                      "got the count NaN",
		`h_bucket{le="1"} +Inf`:            "got the count +Inf",
		`a{b="` + strings.Repeat("x", 500): "want the closing quotes",
	} {
		table := newPromTable(100, nil)
		if err := table.scan(strings.NewReader("# TYPE h histogram\n"+line+"\ngood 1\n"), false); err != nil {
			t.Fatal(err)
		}
		table.account()
		promBooks(t, table)
		if err := table.read.first; table.read.bad != 1 || err == nil || !strings.HasPrefix(err.Error(), "line 2: ") || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%s: %d bad lines, %v, want one and to say %q", line, table.read.bad, err, want)
		}
		if diff := cmp.Diff([]string{"gauge good{}1"}, promShort(table.result())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}
