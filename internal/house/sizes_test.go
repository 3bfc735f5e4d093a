package house

import (
	"fmt"
	"go/ast"
	"strings"
)

const (
	maxFile, maxTestFile = 600, 800 // lines
	maxFunc, maxTestFunc = 100, 150 // lines, from func to the last brace
	maxMethods           = 4
)

func longFiles(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		limit := maxFile
		if f.test {
			limit = maxTestFile
		}
		if n := strings.Count(tr.text[f.path], "\n"); n > limit && !ast.IsGenerated(f.File) {
			out = append(out, fmt.Sprintf("%s: %d lines, want at most %d: split it by noun", f.path, n, limit))
		}
	}
	return out
}

func longFuncs(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		limit := maxFunc
		if f.test {
			limit = maxTestFunc
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || ast.IsGenerated(f.File) {
				continue
			}
			if n := tr.lines(fn.Type, fn); n > limit {
				out = append(out, fmt.Sprintf("%s: %s has %d lines, want at most %d: name its parts and make them functions", tr.at(fn), fn.Name.Name, n, limit))
			}
		}
	}
	return out
}

// bigInterfaces counts the methods that an interface names itself; what it
// embeds was counted where it is declared.
func bigInterfaces(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		if f.test || ast.IsGenerated(f.File) {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if i, ok := n.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
				out = append(out, fmt.Sprintf("%s: interface with %d methods, want at most %d: make a further ability a second interface, found by type assertion", tr.at(i), i.Methods.NumFields(), maxMethods))
			}
			return true
		})
	}
	return out
}

func sizeSamples() []sample {
	const files, funcs, interfaces = "files are short", "functions are short", "interfaces are small"
	file := func(lines int) string { return "package agent\n" + strings.Repeat("\n", lines-1) }
	fun := func(lines int) string {
		return "package agent\n\n" + strings.Repeat("// f is described at length.\n", 50) + "func f() {\n" + strings.Repeat("\tg()\n", lines-2) + "}\n"
	}
	iface := func(methods int) string {
		s := "package agent\n\ntype i interface {\n"
		for c := range methods {
			s += fmt.Sprintf("\tM%d()\n", c)
		}
		return s + "}\n"
	}
	at := func(path, src string) map[string]string { return map[string]string{path: src} }
	return []sample{
		{rule: files, name: "601", files: at("agent/a.go", file(601)), want: "agent/a.go: 601 lines, want at most 600"},
		{rule: files, name: "600", files: at("agent/a.go", file(600))},
		{rule: files, name: "801 of tests", files: at("agent/a_test.go", file(801)), want: "want at most 800"},
		{rule: files, name: "800 of tests", files: at("agent/a_test.go", file(800))},
		{rule: funcs, name: "101", files: at("agent/a.go", fun(101)), want: "f has 101 lines, want at most 100"},
		{rule: funcs, name: "100", files: at("agent/a.go", fun(100))},
		{rule: funcs, name: "151 in a test", files: at("agent/a_test.go", fun(151)), want: "want at most 150"},
		{rule: funcs, name: "150 in a test", files: at("agent/a_test.go", fun(150))},
		{rule: interfaces, name: "5", files: at("agent/a.go", iface(5)), want: "agent/a.go:3: interface with 5 methods"},
		{rule: interfaces, name: "4", files: at("agent/a.go", iface(4))},
		{rule: interfaces, name: "5 in a test", files: at("agent/a_test.go", iface(5))},
	}
}
