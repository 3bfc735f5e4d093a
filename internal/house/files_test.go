package house

import (
	"fmt"
	"go/format"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// folders are the top-level folders of the design, section 1.
const folders = " agent alerts bin changelog checks cmd collectors dashboards deploy docs e2e" +
	" examples exporters history incidents internal metrics remedies statesync tools "

func topFolders(tr *tree) []string {
	bad := map[string]string{}
	for p := range tr.text {
		if top, _, nested := strings.Cut(p, "/"); nested && !strings.HasPrefix(top, ".") && !strings.Contains(folders, " "+top+" ") {
			bad[top] = p
		}
	}
	var out []string
	for _, top := range slices.Sorted(maps.Keys(bad)) {
		out = append(out, fmt.Sprintf("%s: the design has no folder %s: put the file where its subject lives, or change docs/design.md and this list", bad[top], top))
	}
	return out
}

const maxTargets = 14

// target is a line that defines a target to call, with its help.
var target = regexp.MustCompile(`(?m)^([a-zA-Z0-9_-]+):([^=\n].*|)$`)

// makefile wants few targets, and a help for each that fits a terminal.
func makefile(tr *tree) []string {
	var out []string
	found := target.FindAllStringSubmatch(tr.text["Makefile"], -1)
	if len(found) == 0 || len(found) > maxTargets {
		out = append(out, fmt.Sprintf("Makefile: %d targets, want 1 to %d: make one a variable of another", len(found), maxTargets))
	}
	for _, m := range found {
		switch _, help, _ := strings.Cut(m[2], "## "); {
		case help == "":
			out = append(out, fmt.Sprintf("Makefile: target %s has no help: write \"%s: ## what it does\"", m[1], m[1]))
		case len("  make nightly  ")+len(help) > 80:
			out = append(out, fmt.Sprintf("Makefile: the help of %s does not fit 80 columns", m[1]))
		}
	}
	return out
}

var (
	code = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	link = regexp.MustCompile(`\]\(([^)\s]+)(?:\s+"[^"]*")?\)|(?m:^\[[^\]]+\]:\s+(\S+))|<(?:img|a)\s[^>]*(?:src|href)="([^"]+)"`)
)

// brokenLinks follows every relative link in Markdown.
func brokenLinks(tr *tree) []string {
	exists := map[string]bool{".": true}
	for p := range tr.text {
		for ; p != "."; p = path.Dir(p) {
			exists[p] = true
		}
	}
	var out []string
	for _, p := range tr.paths(".md") {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(tr.text[p], ""), -1) {
			u, err := url.Parse(m[1] + m[2] + m[3])
			if err != nil {
				out = append(out, fmt.Sprintf("%s: link %s: %v", p, m[0], err))
				continue
			}
			if u.Scheme != "" || u.Host != "" || u.Path == "" {
				continue
			}
			if to := path.Join(path.Dir(p), u.Path); !exists[to] {
				out = append(out, fmt.Sprintf("%s: link to %s: there is no %s", p, u.Path, to))
			}
		}
	}
	return out
}

// workplace is what only one machine knows: its home and work folders, and
// the hosts it gets modules from.
var workplace = regexp.MustCompile(`(?:^|[\s"'=(:,\x60])/(?:root|work)/|\b(?:proxy|sum)\.golang\.org|\bgoproxy\.(?:io|cn)\b`)

func workplaces(tr *tree) []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(tr.text)) {
		for i, line := range strings.Split(tr.text[p], "\n") {
			if found := workplace.FindString(line); found != "" {
				out = append(out, fmt.Sprintf("%s:%d: names %q, which only one machine knows: use a relative path, a variable or t.TempDir()", p, i+1, strings.TrimSpace(found)))
			}
		}
	}
	return out
}

func unformatted(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		src := tr.text[f.path]
		if want, err := format.Source([]byte(src)); err != nil || string(want) != src {
			out = append(out, fmt.Sprintf("%s: not gofmt'ed: run make fmt", f.path))
		}
	}
	return out
}

// replaceDirectives finds what would make `go install` of this module fail.
func replaceDirectives(tr *tree) []string {
	var out []string
	for i, line := range strings.Split(tr.text["go.mod"], "\n") {
		if code, _, _ := strings.Cut(line, "//"); strings.Contains(code, "=>") {
			out = append(out, fmt.Sprintf("go.mod:%d: %s: a module with a replace directive cannot be installed with go install; use a released version", i+1, strings.TrimSpace(line)))
		}
	}
	return out
}

func fileSamples() []sample {
	const top, mk, links, work = "top-level folders are the design's", "Makefile explains itself", "links in Markdown resolve", "no file names a workplace"
	const fmted, noReplace = "gofmt", "no replace directives"
	at := func(path, src string) map[string]string { return map[string]string{path: src} }
	var many strings.Builder
	for i := range maxTargets + 1 {
		fmt.Fprintf(&many, "t%d: ## makes %d\n", i, i)
	}
	return []sample{
		{rule: top, name: "another", files: at("pkg/a.go", "package pkg\n"), want: "no folder pkg"},
		{rule: top, name: "the design's", files: map[string]string{"agent/a.go": "package agent\n", ".ci/run": "", "go.mod": ""}},

		{rule: mk, name: "15 targets", files: at("Makefile", many.String()), want: "15 targets"},
		{rule: mk, name: "no help", files: at("Makefile", "a: b ## makes a\n\nb:\n\ttrue\n"), want: "target b has no help"},
		{rule: mk, name: "a long help", files: at("Makefile", "a: ## "+strings.Repeat("x", 65)+"\n"), want: "does not fit"},
		{rule: mk, name: "no Makefile", want: "0 targets"},
		{rule: mk, name: "variables and files", files: at("Makefile", "A := 1\nb:=2\n.PHONY: a\na: ## makes a\n\ttrue\nbin/a: x\n")},

		{rule: links, name: "gone", files: at("docs/a.md", "see [b](b.md)\n"), want: "docs/a.md: link to b.md: there is no docs/b.md"},
		{rule: links, name: "gone, by reference", files: at("a.md", "see [b]\n\n[b]: ../b.md\n"), want: "there is no ../b.md"},
		{rule: links, name: "a picture", files: at("a.md", `<img alt="x" src="docs/x.svg">`), want: "there is no docs/x.svg"},
		{rule: links, name: "there", files: map[string]string{
			"README.md":   "[a](docs/a.md#top \"A\"), [docs](docs/), [web](https://example.org/x), [below](#below), `[x](y)`\n\n```\n[x](y)\n```\n",
			"docs/a.md":   "[up](../README.md), [map][m]\n\n[m]: a.md\n",
			"docs/b.yaml": "",
		}},

		{rule: work, name: "a home", files: at("docs/a.md", "run\n`"+"/root"+"/go/bin/x`\n"), want: "docs/a.md:2: names"},
		{rule: work, name: "a work folder", files: at("a.sh", "cd "+"/work"+"/main\n"), want: "a.sh:1: names"},
		{rule: work, name: "a registry", files: at("Makefile", "GOPROXY=https://proxy"+".golang.org\n"), want: "Makefile:1: names"},
		{rule: work, name: "none", files: at("a.md", "https://example.org/root/x and src/work/y and /var/lib/outrider\n")},

		{rule: fmted, name: "spaces", files: map[string]string{"agent/a.go": "package agent\n\nvar  a int\n"}, want: "agent/a.go: not gofmt'ed"},
		{rule: fmted, name: "right", files: map[string]string{"agent/a.go": "package agent\n"}},

		{rule: noReplace, name: "a line", files: map[string]string{"go.mod": "module x\n\nreplace a.b/c => ../c\n"}, want: "go.mod:3: replace a.b/c"},
		{rule: noReplace, name: "a block", files: map[string]string{"go.mod": "module x\n\nreplace (\n\ta.b/c v1.0.0 => a.b/d v1.0.0\n)\n"}, want: "go.mod:4: a.b/c"},
		{rule: noReplace, name: "none", files: map[string]string{"go.mod": "module x\n\nrequire a.b/c v1.0.0 // do not replace it => ever\n"}},
	}
}
