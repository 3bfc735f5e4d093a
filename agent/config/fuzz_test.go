package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzParse holds that no bytes make the decoder panic, and that every mistake
// has a line and fits in one.
func FuzzParse(f *testing.F) {
	names, _ := filepath.Glob("testdata/invalid-*.yaml")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(issue))
	f.Add([]byte("a: &a [*a]\nchecks: &c [{name: x, tcp: *c}, *c]\n"))
	f.Add([]byte("statesync: {kinds: [{kind: Pod, cel: '?'}, {kind: Pod, cel: &b \"?\\n?\"}, {kind: A, cel: *b}, {kind: B, cel: $$?}]}\n"))
	f.Add([]byte("statesync:\n  kinds:\n  - kind: Pod\n    cel: |2\n       a\n\n      ?\n  - kind: Pod\n    cel: >-\n      ?\n      ?\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s fakeSections
		_, err := Parse("f.yaml", data, "testdata", s.options(map[string]string{"A": "1"}))
		if err == nil {
			return
		}
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 {
			t.Fatalf("got %T, want Errors", err)
		}
		for _, e := range errs {
			if e.Line < 1 || e.Column < 0 || e.File != "f.yaml" || e.Got == "" || strings.ContainsAny(e.Error(), "\n\r") {
				t.Errorf("got %q, want a line from 1 and one line of text", e.Error())
			}
		}
	})
}
