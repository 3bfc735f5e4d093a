package house

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const (
	rulesFile     = "alerts/rules.yaml"
	runbookFolder = "docs/runbooks/"
	lookFirst     = "Look first"
)

// runbookParts are the headings of a runbook, in this order. Read-only.
var runbookParts = []string{"What it means", "What users see", lookFirst, "Mend", "When to escalate", "When it is a false alarm"}

var (
	ruleName = regexp.MustCompile(`(?m)^  - name: ([a-z0-9-]+)$`)
	heading  = regexp.MustCompile(`(?m)^## (.*)$`)
	command  = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```$")
)

// poorRunbooks finds rules without a runbook, runbooks without a rule, and runbooks
// that leave out what somebody needs who has just been woken. Two are of companions,
// which stand for what no rule of the file can say.
func poorRunbooks(tr *tree) (out []string) {
	_, rules, _ := strings.Cut(tr.text[rulesFile], "\nrules:\n")
	names := []string{"agent-unreachable", "series-absent"}
	for _, m := range ruleName.FindAllStringSubmatch(rules, -1) {
		names = append(names, m[1])
		if _, ok := tr.text[runbookFolder+m[1]+".md"]; !ok {
			out = append(out, fmt.Sprintf("%s: rule %s has no runbook, want %s%s.md", rulesFile, m[1], runbookFolder, m[1]))
		}
	}
	for _, path := range tr.paths(".md") {
		name, ok := strings.CutPrefix(path, runbookFolder)
		if name = strings.TrimSuffix(name, ".md"); !ok || name == "README" {
			continue
		}
		if !slices.Contains(names, name) {
			out = append(out, fmt.Sprintf("%s: there is no rule %s in %s", path, name, rulesFile))
		}
		out = append(out, poorRunbook(path, name, tr.text[path])...)
	}
	return out
}

func poorRunbook(path, name, text string) (out []string) {
	if !strings.HasPrefix(text, "# "+name+"\n") {
		out = append(out, fmt.Sprintf("%s: got no title # %s", path, name))
	}
	var parts []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		parts = append(parts, m[1])
	}
	if !slices.Equal(parts, runbookParts) {
		out = append(out, fmt.Sprintf("%s: got the parts %q, want %q", path, parts, runbookParts))
	}
	_, look, _ := strings.Cut(text, "\n## "+lookFirst+"\n")
	look, _, _ = strings.Cut(look, "\n## ")
	commands := command.FindAllStringSubmatch(look, -1)
	if len(commands) != 3 {
		out = append(out, fmt.Sprintf("%s: got %d commands to look first, want 3", path, len(commands)))
	}
	for _, m := range commands {
		if strings.Count(strings.TrimSpace(m[1]), "\n") > 0 {
			out = append(out, fmt.Sprintf("%s: got a command of several lines: %q", path, m[1]))
		}
	}
	return out
}

func runbookSamples() []sample {
	const runbooks = "every rule has a runbook"
	const step = "1. Look.\n   ```sh\n   ls\n   ```\n"
	page := func(name, steps string) string {
		text := "# " + name + "\n> s\n"
		for _, part := range runbookParts {
			text += "\n## " + part + "\n"
			if part == lookFirst {
				text += steps
			}
		}
		return text
	}
	tree := func(name, text string) map[string]string {
		return map[string]string{rulesFile: "owners:\n  - name: platform\n\nrules:\n  - name: late\n    category: page\n", runbookFolder + name + ".md": text}
	}
	return []sample{
		{rule: runbooks, name: "a good one", files: tree("late", page("late", step+step+step))},
		{rule: runbooks, name: "none", files: tree("README", ""), want: "rule late has no runbook"},
		{rule: runbooks, name: "of no rule", files: tree("early", page("early", step+step+step)), want: "there is no rule early"},
		{rule: runbooks, name: "two commands", files: tree("late", page("late", step+step)), want: "got 2 commands"},
		{rule: runbooks, name: "a command of two lines", files: tree("late", page("late", step+step+strings.Replace(step, "ls", "ls\n   ls", 1))), want: "several lines"},
		{rule: runbooks, name: "a part is missing", files: tree("late", strings.Replace(page("late", step+step+step), "## Mend", "", 1)), want: "got the parts"},
		{rule: runbooks, name: "another title", files: tree("late", page("lately", step+step+step)), want: "got no title # late"},
	}
}
