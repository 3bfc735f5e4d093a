package alerts

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/checks/verdict"
)

const alertmanagerHeader = `# Routes for Outrider's alerts, to begin with, made by "outrider alerts render": copy the
# file and fill in the receivers, or put the route, the inhibit rule and the receivers
# into the one that you have.
`

// inhibition keeps the warning quiet while the critical alert of the same thing fires.
const inhibition = `# The critical alert keeps its own warning quiet: that with the same labels. Series of
# your own may have tags that are not here, add those.
`

// alertmanagerConfig routes by owner and category. tags are the labels of all alerts.
func alertmanagerConfig(set *Set, tags map[string]bool) []byte {
	var b strings.Builder
	b.WriteString(alertmanagerHeader)
	b.WriteString(`route:
  receiver: default
  routes:
    - matchers: ['alertname=~"Outrider.+"']
      group_by: [alertname, job, instance]
      routes:
`)
	receivers := map[string][]string{} // what they are for
	for _, o := range set.Owners {
		for _, to := range []struct {
			category verdict.Category
			wait     string
			again    string
		}{{verdict.Page, "10s", "30m"}, {verdict.Email, "1m", "4h"}} {
			name := cmp.Or(o.Alertmanager.Of(to.category), o.Name+"-"+string(to.category))
			fmt.Fprintf(&b, "        - matchers: ['owner=\"%s\"', 'category=\"%s\"']\n", o.Name, to.category)
			fmt.Fprintf(&b, "          receiver: %s\n          group_wait: %s\n          repeat_interval: %s\n", yamlWord(name), to.wait, to.again)
			receivers[name] = append(receivers[name], receiverNotes(o, to.category)...)
		}
	}
	b.WriteString(inhibition)
	equal := []string{"alertname", "job", "instance"}
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		if !slices.Contains(promReserved, tag) { // a warning has another category
			equal = append(equal, tag)
		}
	}
	fmt.Fprintf(&b, `inhibit_rules:
  - source_matchers: ['alertname=~"Outrider.+"', 'severity="critical"']
    target_matchers: ['alertname=~"Outrider.+"', 'severity="warning"']
    equal:
      - %s
`, strings.Join(equal, "\n      - "))
	b.WriteString("receivers:\n  - name: default\n    # What is not Outrider's, or of an owner that is not here.\n")
	delete(receivers, "default")
	for _, name := range slices.Sorted(maps.Keys(receivers)) {
		fmt.Fprintf(&b, "  - name: %s\n", yamlWord(name))
		for _, note := range receivers[name] {
			b.WriteString("    # " + note + "\n")
		}
	}
	return []byte(b.String())
}

// receiverNotes say what to fill in.
func receiverNotes(o Owner, category verdict.Category) []string {
	if category == verdict.Email {
		return []string{
			"What can wait, of " + o.Name + ". Fill in where its mail goes, such as:",
			"email_configs: [{to: " + o.Name + "@example.com, from: alertmanager@example.com, smarthost: mail.example.com:587}]",
		}
	}
	notes := []string{
		"Pages of " + o.Name + ". Fill in what wakes somebody, such as:",
		"pagerduty_configs: [{routing_key: KEY}]",
	}
	if more := o.Alertmanager.Escalate; more != "" {
		notes = append(notes, "A page that nobody looks after goes to "+more+": Alertmanager cannot do that, what it calls can.")
	}
	return notes
}

// yamlWord quotes what is more than a word.
func yamlWord(s string) string {
	if names.MatchString(s) && strings.Trim(s, "0123456789-") != "" && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off"}, s) {
		return s
	}
	return strconv.Quote(s)
}
