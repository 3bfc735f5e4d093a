package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// inits finds init functions: work that nobody asked for, in an order that
// nobody sees.
func inits(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, fmt.Sprintf("%s: init: list kinds in the family's table, build the rest in a constructor", tr.at(fn)))
			}
		}
	}
	return out
}

// packageVars finds package variables that could change. Tests are exempt.
func packageVars(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		if f.test || ast.IsGenerated(f.File) {
			continue
		}
		for _, d := range f.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.ValueSpec)
				for i, name := range spec.Names {
					if !constant(f, gen, spec, name, i) {
						out = append(out, fmt.Sprintf("%s: package variable %s: make it a field of what uses it; a table that nothing writes to says \"Read-only.\" in its comment", tr.at(name), name.Name))
					}
				}
			}
		}
	}
	return out
}

// readOnly is what the comment of a table says.
var readOnly = regexp.MustCompile(`(?i)\bread-only\b`)

// constant reports whether nothing writes to the variable after it was
// initialised, as far as its declaration shows.
func constant(f *goFile, gen *ast.GenDecl, spec *ast.ValueSpec, name *ast.Ident, i int) bool {
	if name.Name == "_" {
		return true
	}
	if f.Name.Name == "main" && slices.Contains([]string{"version", "commit", "date"}, name.Name) {
		return true // the Makefile has the linker write them
	}
	for _, c := range []*ast.CommentGroup{gen.Doc, spec.Doc, spec.Comment} {
		if c != nil && slices.ContainsFunc(c.List, func(l *ast.Comment) bool { return strings.HasPrefix(l.Text, "//go:embed ") }) {
			return true
		}
		if c != nil && len(spec.Values) > 0 && readOnly.MatchString(c.Text()) {
			return true
		}
	}
	if i >= len(spec.Values) {
		return false
	}
	call := callee(spec.Values[i])
	_, fun, _ := strings.Cut(call, ".")
	return call == "errors.New" || strings.HasPrefix(fun, "Must")
}

// exits finds what ends the process of the program that embeds us.
func exits(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		if f.test || f.isBelow("cmd", "docs/model", "e2e", "examples") {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			switch c := callee(n); {
			case c == "os.Exit" || strings.HasPrefix(c, "log.Fatal") || strings.HasPrefix(c, "log.Panic"):
				out = append(out, fmt.Sprintf("%s: %s: only cmd/ exits; return an error", tr.at(n), c))
			case c == "panic" && !saysBug(n.(*ast.CallExpr)):
				out = append(out, fmt.Sprintf("%s: panic: return an error; for what cannot happen, panic with a text that starts with \"BUG: \"", tr.at(n)))
			}
			return true
		})
	}
	return out
}

// saysBug reports whether the first text in a panic starts with BUG:. That
// net/http aborts an answer by a panic is its contract, not a bug.
func saysBug(call *ast.CallExpr) bool {
	var text string
	ast.Inspect(call, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "ErrAbortHandler" {
			text = "BUG:"
		}
		if lit, ok := n.(*ast.BasicLit); ok && text == "" {
			text = lit.Value
		}
		return text == ""
	})
	return strings.HasPrefix(strings.Trim(text, "\"`"), "BUG:")
}

func stateSamples() []sample {
	const noInit, noVars, noExit = "no init", "no mutable package variables", "only commands exit"
	src := func(body string) map[string]string {
		return map[string]string{"agent/a.go": "package agent\n\n" + body + "\n"}
	}
	const bug = "only cmd/ exits; return an error"
	return []sample{
		{rule: noInit, name: "init", files: src("func init() {}"), want: "agent/a.go:3: init"},
		{rule: noInit, name: "a method", files: src("type a int\n\nfunc (a) init() {}")},

		{rule: noVars, name: "a counter", files: src("var n int"), want: "agent/a.go:3: package variable n"},
		{rule: noVars, name: "in a group", files: src("var (\n\terrGone = errors.New(\"gone\")\n\tn = 1\n)"), want: "agent/a.go:5: package variable n"},
		{rule: noVars, name: "a table that does not promise", files: src("// Kinds are all.\nvar Kinds = []int{1}"), want: "package variable Kinds"},
		{rule: noVars, name: "a promise without a value", files: src("// cache is read-only.\nvar cache map[string]int"), want: "package variable cache"},
		{rule: noVars, name: "a version in a library", files: src("var version string"), want: "package variable version"},
		{rule: noVars, name: "a table", files: src("// Kinds are all. Read-only.\nvar Kinds = table()")},
		{rule: noVars, name: "a table in a group", files: src("var (\n\t// a is read-only.\n\ta = []int{1}\n\tb = []int{2} // Read-only.\n)")},
		{rule: noVars, name: "constants in all but name", files: src("var (\n\terrGone = errors.New(\"gone\")\n\tre = regexp.MustCompile(\"a\")\n\tt = template.Must(nil, nil)\n\t_ I = a{}\n)")},
		{rule: noVars, name: "embedded", files: src("//go:embed page.html\nvar page string")},
		{rule: noVars, name: "a version in a command", files: map[string]string{"cmd/outrider/main.go": "package main\n\nvar version, commit, date string\n"}},
		{rule: noVars, name: "in a test", files: map[string]string{"agent/a_test.go": "package agent\n\nvar update = flag.Bool(\"update\", false, \"\")\n"}},

		{rule: noExit, name: "os.Exit", files: src("func f() { os.Exit(1) }"), want: "os.Exit: " + bug},
		{rule: noExit, name: "log.Fatalf", files: src("func f() { log.Fatalf(\"x\") }"), want: "log.Fatalf: " + bug},
		{rule: noExit, name: "panic with an error", files: src("func f() { panic(err) }"), want: "agent/a.go:3: panic"},
		{rule: noExit, name: "panic with a text", files: src("func f() { panic(\"not a BUG: x\") }"), want: "agent/a.go:3: panic"},
		{rule: noExit, name: "a bug", files: src("func f() { panic(\"BUG: x\") }")},
		{rule: noExit, name: "a formatted bug", files: src("func f() { panic(fmt.Sprintf(\"BUG: %v\", \"x\")) }")},
		{rule: noExit, name: "an aborted answer", files: src("func f() { panic(http.ErrAbortHandler) }")},
		{rule: noExit, name: "the command", files: map[string]string{"cmd/outrider/main.go": "package main\n\nfunc main() { os.Exit(1) }\n"}},
	}
}
