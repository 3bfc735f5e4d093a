package house

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// packageComments wants one package comment a package, which says in its
// first words whose it is.
func packageComments(tr *tree) []string {
	name, docs := map[string]string{}, map[string][]*goFile{}
	for _, f := range tr.code {
		if f.test || ignored(f) {
			continue
		}
		name[f.pkg] = f.Name.Name
		if f.Doc != nil {
			docs[f.pkg] = append(docs[f.pkg], f)
		}
	}
	var out []string
	for _, pkg := range slices.Sorted(maps.Keys(name)) {
		want := "Package " + name[pkg] + " "
		if name[pkg] == "main" {
			want = "Command " + path.Base(pkg) + " "
		}
		switch d := docs[pkg]; {
		case len(d) == 0:
			out = append(out, fmt.Sprintf("%s: no package comment: say in one sentence, starting with %q, what it is", pkg, want))
		case len(d) > 1:
			out = append(out, fmt.Sprintf("%s: package comments in %s and %s: keep one", pkg, d[0].path, d[1].path))
		case !strings.HasPrefix(d[0].Doc.Text(), want):
			first, _, _ := strings.Cut(d[0].Doc.Text(), "\n")
			out = append(out, fmt.Sprintf("%s: package comment starts %.40q, want %q", d[0].path, first, want))
		}
	}
	return out
}

// ignored reports whether the file is a program of its own, for go run.
func ignored(f *goFile) bool {
	for _, c := range f.Comments {
		if c.Pos() < f.Package && strings.Contains(c.List[0].Text, "//go:build ignore") {
			return true
		}
	}
	return false
}

// packageNames refuses names that say nothing of what a package does.
func packageNames(tr *tree) []string {
	banned := []string{"base", "common", "helper", "helpers", "lib", "manager", "misc", "pkg", "shared", "types", "util", "utils"}
	bad := map[string]string{}
	for _, f := range tr.code {
		for _, word := range append(strings.Split(f.pkg, "/"), f.Name.Name) {
			if slices.Contains(banned, word) {
				bad[f.pkg] = word
			}
		}
	}
	var out []string
	for _, pkg := range slices.Sorted(maps.Keys(bad)) {
		out = append(out, fmt.Sprintf("%s: %q says nothing: name the package for what it does, or put the code where it is used", pkg, bad[pkg]))
	}
	return out
}

func packageSamples() []sample {
	const comments, names = "packages have one comment", "packages are named for what they do"
	return []sample{
		{rule: comments, name: "none", files: map[string]string{"agent/a.go": "package agent\n"}, want: `starting with "Package agent "`},
		{rule: comments, name: "two", files: map[string]string{"agent/a.go": "// Package agent runs.\npackage agent\n", "agent/b.go": "// Package agent stops.\npackage agent\n"}, want: "keep one"},
		{rule: comments, name: "of another form", files: map[string]string{"agent/a.go": "// The agent runs.\npackage agent\n"}, want: `starts "The agent runs."`},
		{rule: comments, name: "a command like a package", files: map[string]string{"cmd/outrider/a.go": "// Package main runs.\npackage main\n"}, want: `want "Command outrider "`},
		{rule: comments, name: "only a test's", files: map[string]string{"agent/a.go": "package agent\n", "agent/a_test.go": "// Package agent runs.\npackage agent\n"}, want: "no package comment"},
		{rule: comments, name: "right", files: map[string]string{
			"agent/a.go": "// Package agent runs.\npackage agent\n", "agent/b.go": "package agent\n",
			"agent/gen.go":         "//go:build ignore\n\n// Writes b.go.\npackage main\n",
			"cmd/outrider/main.go": "// Command outrider runs.\npackage main\n",
		}},
		{rule: names, name: "a folder", files: map[string]string{"agent/util/a.go": "package clock\n"}, want: `"util" says nothing`},
		{rule: names, name: "a package clause", files: map[string]string{"agent/clock/a.go": "package helpers\n"}, want: `"helpers" says nothing`},
		{rule: names, name: "right", files: map[string]string{"agent/clock/a.go": "package clock\n"}},
	}
}
