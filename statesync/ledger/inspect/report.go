package inspect

import "slices"

// A Report says what a recount has found.
type Report struct {
	Path    string   `json:"path"`
	Cluster string   `json:"cluster"`
	Checks  []*Check `json:"checks"`
	Notes   []string `json:"notes,omitempty"` // what is worth knowing and no finding
}

// A Check is one rule, and where it is broken.
type Check struct {
	Name     string    `json:"name"`
	Scope    string    `json:"scope"` // what was looked at: 1..48210, 12 rows
	Found    int64     `json:"found"`
	Findings []Finding `json:"findings,omitempty"` // the first few
	Skipped  string    `json:"skipped,omitempty"`  // why it was not looked at, or not to the end
}

// A Finding is one place at which a rule is broken.
type Finding struct {
	Number int64  `json:"number,omitempty"` // of the change
	Line   int64  `json:"line,omitempty"`   // of the receiver's record
	UID    string `json:"uid,omitempty"`    // or the name of a sink or a stream
	Got    string `json:"got"`
	Want   string `json:"want"`
}

// Holds reports whether every rule holds as far as it was looked at, and none
// was skipped.
func (r *Report) Holds() bool {
	return !slices.ContainsFunc(r.Checks, func(c *Check) bool { return c.Found > 0 || c.Skipped != "" })
}

// maxFindings is how many findings of a check are shown unless the caller
// says otherwise.
const maxFindings = 5

// checklist collects checks in the order in which they are first named.
type checklist struct {
	limit  int
	checks []*Check
}

func (l *checklist) check(name string) *Check {
	for _, c := range l.checks {
		if c.Name == name {
			return c
		}
	}
	c := &Check{Name: name}
	l.checks = append(l.checks, c)
	return c
}

func (l *checklist) found(name string, f Finding) {
	c := l.check(name)
	c.Found++
	if len(c.Findings) < l.limit {
		c.Findings = append(c.Findings, f)
	}
}
