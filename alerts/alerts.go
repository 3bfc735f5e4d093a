// Package alerts has the rules that ship, and renders rules for each back end that pages people: Datadog, Nagios and Prometheus.
//
// A rule is written once, in rules.yaml or in a file of the same form. The agent
// evaluates it as a check, and each back end gets the same rule in its own words:
// docs/alerts.md says where the words differ.
package alerts

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// A Rule says when series are not well, and what people need to know about it then.
type Rule struct {
	Name     string           `yaml:"name" required:"true"`
	Category verdict.Category `yaml:"category" required:"true"` // page or email
	Owner    string           `yaml:"owner" required:"true"`    // who is told: one of the owners
	Summary  string           `yaml:"summary" required:"true"`  // what is wrong, in a sentence
	Impact   string           `yaml:"impact" required:"true"`   // what it means for users
	Evidence string           `yaml:"evidence" required:"true"` // where the numbers come from

	// Runbook is a URL; default: that of the file's runbooks, with the rule's name.
	Runbook string `yaml:"runbook"`

	// Witness is a series that is there whenever the rule's series should be. Where it
	// is and the other is not, not what is measured is at fault but the measuring:
	// that is a rule of its own. Empty: the series need not be there.
	Witness string `yaml:"witness"`

	// Only are the back ends that the rule is for; empty: all, and the agent. What the
	// agent's digest says anyway needs no second check there.
	Only []string `yaml:"only"`

	rule.Spec
}

// An Owner is somebody who is told, by the names that the back ends have for them.
type Owner struct {
	Name string `yaml:"name" required:"true"`

	// Nagios are contact groups, Datadog handles such as @pagerduty-shop, Alertmanager
	// receivers.
	Nagios       Contacts `yaml:"nagios"`
	Datadog      Contacts `yaml:"datadog"`
	Alertmanager Contacts `yaml:"alertmanager"`
}

// Contacts are who hears of what.
type Contacts struct {
	Page     string `yaml:"page" required:"true"`
	Email    string `yaml:"email" required:"true"`
	Escalate string `yaml:"escalate"` // of a page that nobody looks after; empty: nobody else
}

// Of are the contacts for a category.
func (c Contacts) Of(category verdict.Category) string {
	if category == verdict.Page {
		return c.Page
	}
	return c.Email
}

// A Set is rules with their owners. Both are sorted by name.
type Set struct {
	Rules  []Rule
	Owners []Owner
}

// Owner finds the owner of a rule. A set that was read has it.
func (s *Set) Owner(r Rule) Owner {
	i := slices.IndexFunc(s.Owners, func(o Owner) bool { return o.Name == r.Owner })
	if i < 0 {
		panic("BUG: rule " + r.Name + " has no owner " + r.Owner)
	}
	return s.Owners[i]
}

// For are the rules of a back end.
func (s *Set) For(backend string) (out []Rule) {
	for _, r := range s.Rules {
		if len(r.Only) == 0 || slices.Contains(r.Only, backend) {
			out = append(out, r)
		}
	}
	return out
}

// The back ends, and the agent itself, as rules call them.
const (
	Agent      = "agent"
	Datadog    = "datadog"
	Nagios     = "nagios"
	Prometheus = "prometheus"
)

// names are lower case, so that they are good for files, URLs and Nagios. Read-only.
var names = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Validate is asked when a file is read.
func (r *Rule) Validate() error {
	var errs joined
	for _, e := range rule.KeyErrors(r.Spec.Validate()) {
		errs.add(e.Key, e.Got, e.Want)
	}
	if !names.MatchString(r.Name) {
		errs.add("name", fmt.Sprintf("%q", r.Name), "lower-case letters, digits and -, 63 at most")
	}
	if r.Category != verdict.Page && r.Category != verdict.Email {
		errs.add("category", string(r.Category), "page or email")
	}
	for i, b := range r.Only {
		if !slices.Contains([]string{Agent, Datadog, Nagios, Prometheus}, b) {
			errs.add(fmt.Sprintf("only[%d]", i), b, "agent, datadog, nagios or prometheus")
		}
	}
	for key, text := range map[string]string{"summary": r.Summary, "impact": r.Impact, "evidence": r.Evidence} {
		if !plain(text) || strings.ContainsAny(text, "|{}") { // which Nagios cuts at, and templates read
			errs.add(key, fmt.Sprintf("%q", text), "one line without | { and }")
		}
	}
	if r.Runbook != "" && !isURL(r.Runbook) {
		errs.add("runbook", r.Runbook, "a URL, http:// or https://")
	}
	return errs.err()
}

func isURL(s string) bool {
	rest, ok := strings.CutPrefix(strings.Replace(s, "https://", "http://", 1), "http://")
	return ok && rest != "" && plain(s) && !strings.ContainsAny(s, " |\"'<>{}\\")
}

// plain reports whether a text is one line, to everybody who reads lines.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return unicode.IsControl(c) || c == '\u2028' || c == '\u2029' })
}

// Validate is asked when a file is read.
func (o *Owner) Validate() error {
	var errs joined
	if !names.MatchString(o.Name) {
		errs.add("name", fmt.Sprintf("%q", o.Name), "lower-case letters, digits and -, 63 at most")
	}
	for key, c := range map[string]Contacts{"nagios": o.Nagios, "datadog": o.Datadog, "alertmanager": o.Alertmanager} {
		for sub, text := range map[string]string{"page": c.Page, "email": c.Email, "escalate": c.Escalate} {
			if !plain(text) || strings.ContainsAny(text, ";{}!|\"'") {
				errs.add(key+"."+sub, fmt.Sprintf("%q", text), "a name without ; ! | quotes and braces")
			}
		}
	}
	return errs.err()
}

// joined are mistakes at keys.
type joined struct{ errs []error }

func (j *joined) add(key, got, want string) {
	j.errs = append(j.errs, &config.FieldError{Key: key, Got: got, Want: want})
}

func (j *joined) err() error { return errors.Join(j.errs...) }
