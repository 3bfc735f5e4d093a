package house

import (
	"slices"
	"strings"
	"testing"
)

// A rule looks at a tree and says what breaks it: one sentence a place, which
// says where, what, and what to do instead.
type rule struct {
	name string
	find func(*tree) []string
}

// rules are all of them.
func rules() []rule {
	return []rule{
		{"imports point one way", wrongImports},
		{"modules have their importers", reservedImports},
		{"pure packages do no I/O", impureImports},
		{"what is embedded links nothing heavy", heavyDeps},
		{"packages have one comment", packageComments},
		{"packages are named for what they do", packageNames},
		{"files are short", longFiles},
		{"functions are short", longFuncs},
		{"interfaces are small", bigInterfaces},
		{"no init", inits},
		{"no mutable package variables", packageVars},
		{"only commands exit", exits},
		{"tests do not sleep", sleeps},
		{"tests balance their books", unchecked},
		{"gofmt", unformatted},
		{"no replace directives", replaceDirectives},
		{"top-level folders are the design's", topFolders},
		{"Makefile explains itself", makefile},
		{"links in Markdown resolve", brokenLinks},
		{"every rule has a runbook", poorRunbooks},
		{"no file names a workplace", workplaces},
	}
}

// TestHouse holds the project to its rules.
func TestHouse(t *testing.T) {
	tr := checkout(t)
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			for _, broken := range r.find(tr) {
				t.Error(broken)
			}
		})
	}
}

// A sample is a small tree and what a rule must say of it; empty means that
// the rule must stay silent.
type sample struct {
	rule  string
	name  string
	files map[string]string
	deps  map[string][]string
	want  string
}

// TestEveryRuleCanFail shows every rule a tree that breaks it and one that
// does not.
func TestEveryRuleCanFail(t *testing.T) {
	samples := slices.Concat(importSamples(), packageSamples(), sizeSamples(), stateSamples(), sleepSamples(), balanceSamples(), runbookSamples(), fileSamples())
	for _, r := range rules() {
		var fails, passes bool
		for _, s := range samples {
			if s.rule != r.name {
				continue
			}
			fails, passes = fails || s.want != "", passes || s.want == ""
			t.Run(r.name+"/"+s.name, func(t *testing.T) {
				got := r.find(newTree(t, s.files, s.deps))
				switch {
				case s.want == "" && len(got) > 0:
					t.Errorf("got %q, want silence", got)
				case s.want != "" && !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, s.want) }):
					t.Errorf("got %q, want %q in it", got, s.want)
				}
			})
		}
		if !fails || !passes {
			t.Errorf("rule %q: has a sample that fails: %t, one that passes: %t; want both", r.name, fails, passes)
		}
	}
}
