package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAPlaceWithinATextIsOneOfTheFile(t *testing.T) {
	const at, got = "statesync.kinds[0].cel: got a question", ", want an answer"
	for name, tt := range map[string]struct{ cel, want string }{
		"plain":                              {"a == ?", "f.yaml:5:17: " + at + got},
		"in single quotes":                   {"'a == ?'", "f.yaml:5:18: " + at + got},
		"in double quotes":                   {`"é == ?" # why`, "f.yaml:5:18: " + at + got},
		"behind an anchor":                   {"&here a == ?", "f.yaml:5:23: " + at + got},
		"a quote in quotes":                  {"'it''s ?'", "f.yaml:5: " + at + " (line 1, column 6 of the text)" + got},
		"an escape":                          {`"\x41 ?"`, "f.yaml:5: " + at + " (line 1, column 3 of the text)" + got},
		"an escaped line":                    {`"a\n?"`, "f.yaml:5: " + at + " (line 2, column 1 of the text)" + got},
		"a dollar":                           {"a $$ ?", "f.yaml:5: " + at + " (line 1, column 5 of the text)" + got},
		"the environment":                    {`"${A} ?"`, "f.yaml:5: " + at + " (line 1, column 8 of the text)" + got},
		"lines":                              {"|\n        a ||\n\n          é?", "f.yaml:8:12: " + at + got},
		"lines with Windows' ends":           {"|\r\n        a\r\n        ?\r\n", "f.yaml:7:9: " + at + got},
		"lines, their indentation given":     {"|2-\n         ?", "f.yaml:6:10: " + at + got},
		"lines behind a comment":             {"| # b\n        a\n        ?", "f.yaml:7:9: " + at + got},
		"one line, folded":                   {">\n        a ?", "f.yaml:6:11: " + at + got},
		"lines, folded":                      {">\n        a\n        ?", "f.yaml:5: " + at + " (line 1, column 3 of the text)" + got},
		"a plain text that goes on":          {"a\n          ?", "f.yaml:5: " + at + " (line 1, column 3 of the text)" + got},
		"two in a line, the first one first": {"??", "f.yaml:5:12: " + at + got + "\nf.yaml:5:13: " + at + got},
	} {
		t.Run(name, func(t *testing.T) {
			var s fakeSections
			text := "service: a\nstatesync:\n  kinds:\n    - kind: Pod\n      cel: " + tt.cel + "\n"
			_, err := Parse("f.yaml", []byte(text), ".", s.options(map[string]string{"A": "secret"}))
			if err == nil {
				t.Fatal("got no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPlaceWithinAnAliasIsWhereItsTextStands(t *testing.T) {
	var s fakeSections
	_, err := Parse("f.yaml", []byte("statesync:\n  kinds:\n    - {kind: &a '?', cel: b}\n    - {kind: Pod, cel: *a}\n"), ".", s.options(nil))
	const want = "f.yaml:3:18: statesync.kinds[1].cel: got a question, want an answer"
	if err == nil || !cmp.Equal(err.Error()[max(0, len(err.Error())-len(want)):], want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
