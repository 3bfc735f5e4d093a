package collectors

import (
	"expvar"
	"fmt"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

func TestExpvarNumbersBecomeSeries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		text  string
		rules expvarRules
		want  []string
		says  string
	}{
		{"numbers, truth and nothing else", `{"a": 1.5, "b": true, "cmdline": ["x", 1], "c": "text", "d": null, "e": -1e400}`, expvarRules{}, []string{"gauge a{}1.5", "gauge b{}1", "gauge e{}-Inf"}, ""},
		{"names are joined", `{"api": {"v1/get": {"ok": 3}}, "2xx": 1}`, expvarRules{}, []string{"gauge _2xx{}1", "gauge api_v1_get_ok{}3"}, ""},
		{"counters", `{"requests": {"ok": 3}, "requests_total": 4, "memstats": {"Mallocs": 5, "HeapAlloc": 6, "PauseNs": [1,2]}}`, expvarRules{counters: []string{"requests*"}}, []string{"gauge memstats_HeapAlloc{}6", "counter memstats_Mallocs_total{}5", "counter requests_ok_total{}3", "counter requests_total{}4"}, ""},
		{"maps become tags", `{"requests": {"GET": {"200": 7, "500": 1}, "POST": {"200": 2, "more": {"deep": 9}}, "all": 10}}`, expvarRules{tags: map[string][]string{"requests": {"method", "status"}}}, []string{"gauge requests{method=GET,status=200}7", "gauge requests{method=GET,status=500}1", "gauge requests{method=POST,status=200}2", "gauge requests{method=all}10", "gauge requests_deep{method=POST,status=more}9"}, ""},
		{"twice", `{"a-b": 1, "a_b": 2}`, expvarRules{}, []string{"gauge a_b{}1"}, "a_b: got it twice"},
		{"too deep", `{"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": 1}}}}}}}}}, "z": 1}`, expvarRules{}, []string{"gauge z{}1"}, "maps within maps more than 8 deep"},
		{"cut short", `{"a": 1, "b": {"c": 2, "d"`, expvarRules{}, []string{"gauge a{}1"}, "got the end of the text within it, want JSON to its end"},
		{"no JSON", "# HELP a\n", expvarRules{}, nil, "invalid character '#'"},
		{"a list", "[1]", expvarRules{}, nil, `got "[", want an object`},
		{"nested without end", `{"a": ` + strings.Repeat("[", 100000), expvarRules{}, nil, "more than 1000 deep"},
		{"too many numbers", `{"a": {"x": 1, "y": 2}, "big": {"1": 1, "2": 2, "3": 3, "4": 4, "5": 5, "6": 6}, "c": 7, "e": 8}`, expvarRules{limit: 5}, []string{"gauge a_x{}1", "gauge a_y{}2", "gauge c{}7", "gauge e{}8"}, "sample_limit: got 10 samples, want at most 5: left out big (6)"},
		{"a long name", `{"` + strings.Repeat("x", 2000) + `": 1, "a": 2}`, expvarRules{}, []string{"gauge a{}2"}, "want one of 1 to 1024 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.rules.limit == 0 {
				tt.rules.limit = 100
			}
			fams, read, err := tt.rules.parse(strings.NewReader(tt.text))
			if diff := cmp.Diff(tt.want, promShort(fams)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := fmt.Sprint(err, read.first, read.cutError(tt.rules.limit)); !strings.Contains(got, tt.says) || tt.says == "" && got != "<nil> <nil> <nil>" {
				t.Errorf("got %s, want it to say %q", got, tt.says)
			}
		})
	}
}

// TestExpvarReadsAProgram reads what package expvar writes.
func TestExpvarReadsAProgram(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(expvar.Handler())
	t.Cleanup(server.Close)
	env, value := scrapeEnv(t)
	col, err := (&ExpvarConfig{ScrapeConfig: ScrapeConfig{URL: server.URL}}).Build(env)
	if err != nil {
		t.Fatal(err)
	}
	fams, err := col.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for name, most := range map[string]float64{"memstats_HeapAlloc": 1e12, "memstats_Mallocs_total": float64(m.Mallocs), "memstats_NextGC": 1e12} {
		i := slices.IndexFunc(fams, func(f metrics.Family) bool { return f.Desc.Name == name })
		if i < 0 || !(fams[i].Points[0].Value > 0) || fams[i].Points[0].Value > most {
			t.Errorf("%s: %v, want it, more than 0 and at most %v", name, fams, most)
		}
	}
	if up := value("outrider_neighbour_up", "api"); up != 1 {
		t.Errorf("up %v, want 1", up)
	}
}

func TestExpvarBadAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(answers("text/html", "<html>"))
	t.Cleanup(server.Close)
	env, value := scrapeEnv(t)
	col, err := (&ExpvarConfig{ScrapeConfig: ScrapeConfig{URL: server.URL}}).Build(env)
	if err != nil {
		t.Fatal(err)
	}
	const want = "got text/html, want JSON: invalid character '<'"
	if _, err = col.Collect(t.Context()); err == nil || !strings.Contains(err.Error(), want) || value("outrider_scrape_failures_total", "api", "format") != 1 {
		t.Errorf("error %v, want it to say %q", err, want)
	}
}

func TestExpvarConfigErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{url: http://x/, tags: {requests: []}}":                      "p.tags.requests: got no tag",
		"{url: http://x/, tags: {requests: [a, a]}}":                  "p.tags.requests[1]: got \"a\"",
		"{url: http://x/, counters: ['']}":                            "p.counters[0]: got nothing",
		"{url: http://x/, sample_limit: 0}":                           "p.sample_limit: got 0",
		"{url: http://x/, relabel: []}":                               "p.relabel",
		"{url: 'http://x/', body_limit: 1KiB, tls: {server_name: x}}": "p.tls: got settings",
	} {
		var c ExpvarConfig
		_, err := config.Parse("f", []byte("p: "+text+"\n"), ".", config.Options{Sections: map[string]any{"p": &c}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want it to say %q", text, err, want)
		}
	}
}

// FuzzExpvar: nothing may panic, or keep more than the limit.
func FuzzExpvar(f *testing.F) {
	f.Add([]byte(`{"a": 1, "memstats": {"Mallocs": 5}, "m": {"x": {"y": 2}}}`))
	f.Add([]byte(`{"a": [1, {"b": 2}], "": 1, "c": 1e999, "d": {}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		rules := expvarRules{limit: 5, tags: map[string][]string{"m": {"k"}}, counters: []string{"a*b*"}}
		fams, _, _ := rules.parse(strings.NewReader(string(text)))
		n := 0
		for _, f := range fams {
			n += len(f.Points)
		}
		if n > 5 {
			t.Errorf("%d series of %q, want at most 5", n, text)
		}
	})
}
