package house

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
)

// sleeps finds time.Sleep in tests. In a synctest bubble it moves the clock
// and costs nothing: there it is allowed, and in the fakes that run in one,
// and against real servers under e2e/, when a comment says "// sleep: why".
func sleeps(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		if !f.test {
			continue
		}
		mayExplain := f.isBelow("e2e") || strings.Contains(tr.text[f.path], `"testing/synctest"`)
		explained := map[int]bool{} // lines on which a sleep may stand
		for _, group := range f.Comments {
			for _, c := range group.List {
				if line := tr.fset.Position(c.Pos()).Line; mayExplain && explains.MatchString(c.Text) {
					explained[line], explained[line+1] = true, true
				}
			}
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			switch callee(n) {
			case "synctest.Test":
				return false
			case "time.Sleep":
				if !explained[tr.fset.Position(n.Pos()).Line] {
					out = append(out, fmt.Sprintf("%s: time.Sleep in a test: use testing/synctest or wait for the condition; under e2e/ or beside a synctest bubble, say // sleep: why", tr.at(n)))
				}
			}
			return true
		})
	}
	return out
}

var explains = regexp.MustCompile(`^// sleep: \S`)

func sleepSamples() []sample {
	const noSleep = "tests do not sleep"
	src := func(path, imp, body string) map[string]string {
		return map[string]string{path: "package x\n\nimport " + imp + "\n\nfunc f() {\n" + body + "\n}\n"}
	}
	const sleep = "\ttime.Sleep(1)"
	return []sample{
		{rule: noSleep, name: "a sleep", files: src("agent/a_test.go", `"time"`, sleep), want: "agent/a_test.go:6: time.Sleep in a test"},
		{rule: noSleep, name: "an excuse in a unit test", files: src("agent/a_test.go", `"time"`, sleep+" // sleep: it is short"), want: "time.Sleep in a test"},
		{rule: noSleep, name: "no reason", files: src("e2e/a_test.go", `"time"`, sleep+" // sleep:"), want: "time.Sleep in a test"},
		{rule: noSleep, name: "beside a bubble", files: src("agent/a_test.go", `"testing/synctest"`, "\tsynctest.Test(t, f)\n"+sleep), want: "agent/a_test.go:7: time.Sleep"},
		{rule: noSleep, name: "in a bubble", files: src("agent/a_test.go", `"testing/synctest"`, "\tsynctest.Test(t, func(t *testing.T) { time.Sleep(1) })")},
		{rule: noSleep, name: "a fake's in a bubble", files: src("agent/a_test.go", `"testing/synctest"`, "\t// sleep: runs in the bubble of TestLanes\n"+sleep)},
		{rule: noSleep, name: "with a reason", files: src("e2e/a_test.go", `"time"`, sleep+" // sleep: history must expire")},
		{rule: noSleep, name: "not in a test", files: src("statesync/simcluster/a.go", `"time"`, sleep)},
	}
}
