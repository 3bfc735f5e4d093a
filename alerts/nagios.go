package alerts

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// Nagios computes nothing: each rule is a service whose plugin takes the figure of the
// check alert/NAME from the agent's digest, and judges it by the rule's ranges. So all
// functions and aggregates are rendered, and a rule that the agent does not evaluate is
// refused.

const (
	nagiosFile    = "outrider-rules.cfg"
	nagiosService = "outrider-alert-" // and the rule's name
	nagiosHosts   = "outrider"        // the hostgroup

	// Nagios polls once in its interval_length, which is a minute as it ships.
	nagiosPoll = time.Minute

	nagiosAgain      = "30" // minutes after which a page is told again
	nagiosAgainEmail = "240"

	// nagiosTold is after how many notifications of a page others are told, too.
	nagiosTold = 3
)

// nagiosHead begins the file. The commands and the template outrider-service are in
// deploy/nagios/outrider.cfg, as is all that a site may have to change.
const nagiosHead = `# Rules of Outrider for Nagios 4: a service each, for every host of the hostgroup
# outrider. Made by "outrider alerts render": change the rules, not this file.
#
# It needs deploy/nagios/outrider.cfg, and agents with the section alerts in their
# configuration. README.md beside that file says how the two go together. Times count
# in interval_length, a minute as Nagios ships.
`

// renderNagios makes one file with all objects.
func renderNagios(set *Set, _ catalogue.Catalogue) ([]File, error) {
	rules := set.For(Nagios)
	beside, err := newCompanions()
	if err != nil {
		return nil, err
	}
	errs := make([]error, 0, len(rules))
	for _, r := range rules {
		errs = append(errs, nagiosRefuses(r, set.Owner(r)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(nagiosHead)
	nagiosAgent(&b, beside.runbook(rules, "agent-unreachable"))
	if len(rules) > 0 {
		nagiosRules(&b, rules)
	}
	for _, r := range rules {
		nagiosRule(&b, r, set.Owner(r).Nagios)
	}
	return []File{{nagiosFile, b.Bytes()}}, nil
}

// nagiosRefuses says what of a rule Nagios cannot do.
func nagiosRefuses(r Rule, owner Owner) error {
	if len(r.Only) > 0 && !slices.Contains(r.Only, Agent) {
		return fmt.Errorf("rule %s: only: got %s, want agent as well: Nagios judges the figure of the agent's check", r.Name, strings.Join(r.Only, ", "))
	}
	for _, c := range []struct{ key, groups string }{
		{"page", owner.Nagios.Page}, {"email", owner.Nagios.Email}, {"escalate", owner.Nagios.Escalate},
	} {
		if c.groups == "" && c.key != "escalate" {
			return fmt.Errorf("rule %s: owner %s: nagios.%s: got nothing, want a contact group: nobody would be told", r.Name, owner.Name, c.key)
		}
		if strings.ContainsAny(c.groups, "`~$%^&*<>?()=\\") || strings.HasPrefix(c.groups, "+") || c.groups == "null" {
			return fmt.Errorf("rule %s: owner %s: nagios.%s: got %q, want names of contact groups, without ` ~ $ %% ^ & * < > ? ( ) = \\", r.Name, owner.Name, c.key, c.groups)
		}
	}
	return nil
}

// nagiosAgent is the service that tells of an agent that is down, and what all others
// depend on. Of hosts only one group is named: with a dependent one, too, each host's
// services would depend on those of every host.
func nagiosAgent(b *bytes.Buffer, runbook string) {
	b.WriteString(`
# Whether the agent answers, told once: what depends on this is neither asked nor told
# of while it is down. It is sure a minute before the services of outrider.cfg are.
`)
	nagiosObject(
		b, "service",
		directive{"use", "outrider-service"},
		directive{"hostgroup_name", nagiosHosts},
		directive{"service_description", "outrider-agent"},
		directive{"check_command", "check_outrider_agent"},
		directive{"check_interval", "1"},
		directive{"retry_interval", "1"},
		directive{"max_check_attempts", "2"},
		directive{"notification_interval", nagiosAgain},
		directive{"contact_groups", "outrider-page,outrider-email"},
		directive{"notes", "The agent does not answer, or runs no checks. Nobody watches what it watches."},
		directive{"notes_url", nagiosURL(runbook)},
		directive{"_CATEGORY", string(verdict.Page)},
	)
	nagiosObject(
		b, "servicedependency",
		directive{"name", "outrider-needs-agent"},
		directive{"hostgroup_name", nagiosHosts},
		directive{"service_description", "outrider-agent"},
		directive{"execution_failure_criteria", "c,u"},
		directive{"notification_failure_criteria", "c,u"},
		directive{"register", "0"},
	)
	nagiosNeedsAgent(b, "outrider-page,outrider-email")
}

// nagiosRules is what the rules' services have in common, and the service that finds
// an agent without the rules: no figure is outside of ~: but what is not there is
// UNKNOWN. It waits until it is known whether the agent answers.
func nagiosRules(b *bytes.Buffer, rules []Rule) {
	one := rules[max(0, slices.IndexFunc(rules, func(r Rule) bool { return r.Witness == "" }))]
	b.WriteString(`
# Whether the agent has the rules; one stands for all.
`)
	nagiosObject(
		b, "service",
		directive{"use", "outrider-service"},
		directive{"hostgroup_name", nagiosHosts},
		directive{"service_description", "outrider-rules"},
		directive{"check_command", "check_outrider_rule!alert/" + one.Name + "!~:!!!"},
		directive{"max_check_attempts", "5"},
		directive{"notification_interval", nagiosAgainEmail},
		directive{"contact_groups", "outrider-email"},
		directive{"notes", "The agent does not evaluate the rules, so none of their services knows anything."},
		directive{"_CATEGORY", string(verdict.Email)},
	)
	nagiosNeedsAgent(b, "outrider-rules")
	b.WriteString(`
# No rule's service tells of UNKNOWN: at the first poll that an agent does not answer,
# nobody knows yet that it is down. outrider-page and outrider-email tell of a rule that
# is unknown.
`)
	nagiosObject(
		b, "service",
		directive{"name", "outrider-rule"},
		directive{"use", "outrider-service"},
		directive{"hostgroup_name", nagiosHosts},
		directive{"check_interval", "1"},
		directive{"retry_interval", "1"},
		directive{"notification_options", "w,c,r"},
		directive{"register", "0"},
	)
}

// nagiosRule is a rule's service, with what it depends on and who is told in the end.
func nagiosRule(b *bytes.Buffer, r Rule, to Contacts) {
	is := r.Rule(r.Name)
	again, told := nagiosAgainEmail, to.Email
	if r.Category == verdict.Page {
		again, told = nagiosAgain, nagiosGroups(to.Page, to.Email)
	}
	fmt.Fprintln(b)
	nagiosObject(
		b, "service",
		directive{"use", "outrider-rule"},
		directive{"service_description", nagiosService + r.Name},
		directive{"check_command", nagiosCommand(is)},
		directive{"max_check_attempts", fmt.Sprint(nagiosAttempts(is.For))},
		directive{"notification_interval", again},
		directive{"contact_groups", told},
		directive{"notes", nagiosText(strings.TrimSuffix(r.Summary, ".") + ". " + r.Impact)},
		directive{"notes_url", nagiosURL(r.Runbook)},
		directive{"_EVIDENCE", nagiosText(r.Evidence)},
		directive{"_OWNER", r.Owner},
		directive{"_CATEGORY", string(r.Category)},
	)
	nagiosNeedsAgent(b, nagiosService+r.Name)
	if r.Category != verdict.Page || to.Escalate == "" {
		return
	}
	// Whoever is in an escalation is told instead of the others, so all are in it.
	nagiosObject(
		b, "serviceescalation",
		directive{"hostgroup_name", nagiosHosts},
		directive{"service_description", nagiosService + r.Name},
		directive{"first_notification", fmt.Sprint(nagiosTold + 1)},
		directive{"last_notification", "0"},
		directive{"notification_interval", again},
		directive{"escalation_options", "c,r"},
		directive{"contact_groups", nagiosGroups(to.Page, to.Email, to.Escalate)},
	)
}

func nagiosNeedsAgent(b *bytes.Buffer, service string) {
	nagiosObject(
		b, "servicedependency",
		directive{"use", "outrider-needs-agent"},
		directive{"dependent_service_description", service},
	)
}

// A directive is a line of an object.
type directive struct{ key, value string }

// nagiosObject writes an object, without the directives that say nothing.
func nagiosObject(b *bytes.Buffer, kind string, directives ...directive) {
	directives = slices.DeleteFunc(directives, func(d directive) bool { return d.value == "" })
	width := 0
	for _, d := range directives {
		width = max(width, len(d.key))
	}
	fmt.Fprintf(b, "define %s {\n", kind)
	for _, d := range directives {
		fmt.Fprintf(b, "    %-*s  %s\n", width, d.key, d.value)
	}
	b.WriteString("}\n")
}

// nagiosCommand is the command with its arguments, of which any may be empty. Ranges
// have neither ! nor $, and names are plain.
func nagiosCommand(r rule.Rule) string {
	parts := []string{"check_outrider_rule", "alert/" + r.Name}
	for _, is := range []*nagios.Range{r.Warn, r.Crit, r.WarnClear, r.CritClear} {
		text := ""
		if is != nil {
			text = is.String()
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "!")
}

// nagiosAttempts are the polls at which a figure must be outside: the first, and one a
// minute until it has been for as long as it must. What is no whole minute is rounded
// up.
func nagiosAttempts(d time.Duration) int { return 1 + int((d+nagiosPoll-1)/nagiosPoll) }

// nagiosGroups joins contact groups, each once.
func nagiosGroups(lists ...string) string {
	var out []string
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name != "" && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return strings.Join(out, ",")
}

// nagiosText is a text that a notification's command can have in quotes. A semicolon
// would begin a comment.
func nagiosText(text string) string {
	text = strings.NewReplacer("'", "’", `\`, "/").Replace(text)
	return strings.ReplaceAll(nagios.Plain(text), ";", `\;`)
}

// nagiosURL is an address in which Nagios finds no macro and no comment.
func nagiosURL(address string) string {
	return strings.NewReplacer("$", "%24", ";", `\;`, "`", "%60", `\`, "%5C").Replace(address)
}
