package house

import (
	"fmt"
	"go/ast"
	"regexp"
)

// unchecked finds tests whose pipelines nobody holds to their books. Where a test
// breaks them on purpose, a comment says "// balances: why".
func unchecked(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		if !f.test || f.pkg == "./metrics/metricstest" {
			continue
		}
		explained := map[int]bool{} // lines on which such a registry may stand
		for _, group := range f.Comments {
			for _, c := range group.List {
				if line := tr.fset.Position(c.Pos()).Line; explainsBalances.MatchString(c.Text) {
					explained[line], explained[line+1] = true, true
				}
			}
		}
		ours := importedAs(f, module+"/metrics")
		ast.Inspect(f.File, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "NewRegistry" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == ours && !explained[tr.fset.Position(n.Pos()).Line] {
					out = append(out, fmt.Sprintf("%s: metrics.NewRegistry in a test: use metricstest.Registry(t), which wants the books to balance at the end; where they must not, say // balances: why", tr.at(n)))
				}
			}
			return true
		})
	}
	return out
}

var explainsBalances = regexp.MustCompile(`^// balances: \S`)

// importedAs is the name by which a file calls a package; empty: it does not import
// it.
func importedAs(f *goFile, path string) string {
	for _, spec := range f.Imports {
		switch {
		case spec.Path.Value != `"`+path+`"`:
		case spec.Name != nil:
			return spec.Name.Name
		default:
			return "metrics"
		}
	}
	return ""
}

func balanceSamples() []sample {
	const balances = "tests balance their books"
	src := func(path, imp, body string) map[string]string {
		return map[string]string{path: "package x\n\nimport " + imp + "\n\nfunc f() {\n\t" + body + "\n}\n"}
	}
	const ours, makes = `"` + module + `/metrics"`, "r := metrics.NewRegistry()"
	return []sample{
		{rule: balances, name: "a registry", files: src("agent/a_test.go", ours, makes), want: "agent/a_test.go:6: metrics.NewRegistry in a test"},
		{rule: balances, name: "by another name", files: src("e2e/a_test.go", "m "+ours, "r := m.NewRegistry()"), want: "metrics.NewRegistry in a test"},
		{rule: balances, name: "as a value", files: src("agent/a_test.go", ours, "f := metrics.NewRegistry"), want: "metrics.NewRegistry in a test"},
		{rule: balances, name: "no reason", files: src("agent/a_test.go", ours, makes+" // balances:"), want: "metrics.NewRegistry in a test"},
		{rule: balances, name: "with a reason", files: src("agent/a_test.go", ours, makes+" // balances: one is broken on purpose")},
		{rule: balances, name: "with a reason above", files: src("agent/a_test.go", ours, "// balances: one is broken on purpose\n\t"+makes)},
		{rule: balances, name: "one that is checked", files: src("agent/a_test.go", ours, "r := metricstest.Registry(t)")},
		{rule: balances, name: "somebody else's", files: src("agent/a_test.go", `"github.com/prometheus/client_golang/prometheus"`, "r := prometheus.NewRegistry()")},
		{rule: balances, name: "not in a test", files: src("agent/a.go", ours, makes)},
	}
}
