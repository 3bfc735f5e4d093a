package checks

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func TestHTTPJSON(t *testing.T) {
	t.Parallel()
	s := pages(t)
	const pass, fail = verdict.Pass, verdict.Fail
	tests := []struct {
		name, json string
		status     verdict.Status
		message    string
	}{
		{"a list is no value", `{path: data.items}`, fail, "data.items: got a list, want text, a number"},
		{"a text that equals passes", `{path: "data.items[1].state", equals: done}`, pass, "status 200"},
		{"another text fails", `{path: "$.data.items[0].state", equals: done}`, fail, "$.data.items[0].state is open, want done"},
		{"a number that equals passes", `{path: "data.items[1].n", equals: "7.50"}`, pass, "status 200"},
		{"true equals true", `{path: 'data.items[1]["a.b"]', equals: "true"}`, pass, "status 200"},
		{"null equals null", `{path: 'data.items[1].none', equals: "null"}`, pass, "status 200"},
		{"a match passes", `{path: "data.items[1].state", matches: "^d"}`, pass, "status 200"},
		{"no match fails", `{path: "data.items[0].state", matches: "^d"}`, fail, "is open, want a match of ^d"},
		{"a number in its range passes", `{path: "data.items[1].n", range: "5:10"}`, pass, "status 200"},
		{"one outside fails", `{path: "data.items[1].n", range: "8:"}`, fail, "is 7.5, want 8:"},
		{"a text is in no range", `{path: "data.items[1].state", range: "8:"}`, fail, "is done, want a number"},
		{"a key that is missing fails", `{path: data.other}`, fail, `data.other: step 2: got no key "other"`},
		{"an index that is missing fails", `{path: "data.items[2]"}`, fail, "step 3: got no index 2"},
		{"a list has no keys", `{path: data.items.state}`, fail, `step 3: got a list, want one with key "state"`},
		{"an object has no index", `{path: "data[0]"}`, fail, "step 2: got an object, want one with index 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := ask(t, checker[HTTPConfig](t, fmt.Sprintf("{url: %s/json, json: %s}", s.URL, tt.json), nil))
			wantResult(t, r, tt.status, tt.message)
			if strings.Contains(tt.json, `"8:"`) && strings.Contains(tt.json, ".n") {
				if m := r.Measures[len(r.Measures)-1]; m.Value != 7.5 || m.Crit != "8:" {
					t.Errorf("measure %+v, want 7.5 with the range 8:", m)
				}
			}
		})
	}
	wantResult(t, ask(t, checker[HTTPConfig](t, "{url: "+s.URL+"/ok, json: {path: a}}", nil)), fail, "a: got what is no JSON: it begins with all is well")
	wantResult(t, ask(t, checker[HTTPConfig](t, "{url: "+s.URL+"/big, max_body: 1KiB, json: {path: a}}", nil)), fail, "got a body of more than 1KiB")
}

func TestParsePath(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"a": "[{a -1}]", "$.a.b[0][12].c": "[{a -1} {b -1} { 0} { 12} {c -1}]", `["a.b"].c`: "[{a.b -1} {c -1}]", "$[1]": "[{ 1}]", `a["x\"]"]`: `[{a -1} {x"] -1}]`,
	}
	for text, want := range good {
		if got, err := parsePath(text); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "$", "a.", "a..b", "a[", "a[]", "a[-1]", "a[x]", `a["b]`, "a[0]b", strings.Repeat("a.", 100) + "a"} {
		if got, err := parsePath(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func FuzzHTTPJSON(f *testing.F) {
	f.Add(`a[0]["b.c"]`, []byte(`{"a":[{"b.c":1}]}`))
	f.Add("$.x", []byte(`{"x":{"y":[]},"x":2}`))
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		path, err := parsePath(text)
		if err != nil {
			return
		}
		got, err := findJSON(body, path)
		if err != nil {
			return
		}
		// The same by way of decoding all of it. Of keys that are there twice the
		// two may take different ones.
		var v any
		d := json.NewDecoder(strings.NewReader(string(body)))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("found %q in what is no JSON: %v", got, err)
		}
		for _, s := range path {
			switch at := v.(type) {
			case map[string]any:
				v = at[s.key]
			case []any:
				v = at[s.index]
			}
		}
		if want := fmt.Sprint(v); got != want && !(v == nil && got == "null") && unique(body) {
			t.Errorf("%s of %s: got %q, want %q", text, body, got, want)
		}
	})
}

// unique reports whether no object of a document has a key twice.
func unique(body []byte) bool {
	o, err := objectOf(body)
	if err != nil {
		list, err := listOf(body)
		if err != nil {
			return true
		}
		for _, e := range list {
			if !unique(e) {
				return false
			}
		}
		return true
	}
	seen := map[string]bool{}
	for _, f := range o {
		if seen[f.key] || !unique(f.value) {
			return false
		}
		seen[f.key] = true
	}
	return true
}
