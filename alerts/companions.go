package alerts

import (
	"slices"
	"strings"
)

// companions are alerts that come with rules: on an agent that does not answer, on a
// series that is not there. They are about the agent, and so their runbooks are beside
// those of the rules that ship, wherever rules of their names have these.
type companions struct{ shipped []Rule }

func newCompanions() (companions, error) {
	set, err := Shipped()
	if err != nil {
		return companions{}, err
	}
	return companions{set.Rules}, nil
}

// runbook is the URL of the one of a name; empty: there is none.
func (c companions) runbook(rules []Rule, name string) string {
	for _, r := range slices.Concat(rules, c.shipped) {
		base, found := strings.CutSuffix(r.Runbook, "/"+r.Name+".md")
		if found && slices.ContainsFunc(c.shipped, func(s Rule) bool { return s.Name == r.Name }) {
			return base + "/" + name + ".md"
		}
	}
	return ""
}
