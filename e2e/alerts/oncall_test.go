package alerts

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/e2e/nagios"
)

// oncallPoll is the time between two polls: two seconds take the place of a minute.
const oncallPoll = 2 * time.Second

// An onCall is what the people have who are on call: an agent, and what tells of it.
type onCall struct {
	*oncallWorld
	prom     *boardProm
	nagios   *nagios.Nagios
	services int // of Nagios
}

// An incident is something that breaks and is mended.
type incident struct {
	rule   string
	alert  string            // of Prometheus
	labels map[string]string // of that alert

	told, untold string // contacts: who is to hear of it, and who is not

	// names is what says who is the culprit, with NAME in the place of the name, in
	// what each command of the runbook prints. It says so of nobody else.
	culprit, bystander string
	names              [3]string

	broken func(bool)
}

// TestOnCall breaks and mends things around a live agent, and follows it as those do who
// are on call: they are told by Nagios, Prometheus and the digest, of the same runbook,
// whose commands show the culprit. Once it is mended all of them say so.
func TestOnCall(t *testing.T) {
	nagiosCommand(t)
	need(t, "alerts/usr/bin/prometheus")
	w := oncallScene(t, oncallAgent)
	run(t, w.outrider, "alerts", "render", "--rules", w.dir+"/fast.yaml", "-o", w.dir+"/alerts")
	o := &onCall{oncallWorld: w, prom: w.prometheus(t)}
	o.nagios, o.services = w.nagios(t)
	o.allClear(t)
	for name, i := range map[string]incident{
		"a sink is broken": {
			rule: "sink-failing", alert: "OutriderSinkFailing", labels: map[string]string{"sink": "platform", "category": "page"},
			told: "pager", culprit: "platform", bystander: "archive",
			names: [3]string{
				`sink/NAME: .*failing since .* status 503`,
				`(?m)^NAME +\d+ +\d\d+ `,
				`outrider_sink_failing_seconds\{sink="NAME"\} [1-9]`,
			},
			broken: w.beside.broken.Store,
		},
		"a neighbour's pipeline drops": {
			rule: "pipeline-drops", alert: "OutriderPipelineDrops", labels: map[string]string{
				"service": "shop", "pipeline": "orders", "reason": "sold out", "category": "email",
			},
			told: "mail", untold: "pager", culprit: "orders", bystander: "refunds",
			names: [3]string{
				`outrider_pipeline_drops_total\{pipeline="NAME",reason="sold out",service="shop"`,
				`alert/pipeline-drops: .*\{pipeline=NAME,reason=sold out,service=shop\}.*/s`,
				`% of \d+: pipeline="NAME",reason="sold out",service="shop"`,
			},
			broken: w.beside.dropping.Store,
		},
	} {
		if !t.Run(name, func(t *testing.T) { o.lives(t, i) }) {
			break // the next one would begin in the middle
		}
	}
	o.nagios.Delivered(t)
}

// lives goes through an incident.
func (o *onCall) lives(t *testing.T, i incident) {
	service := "outrider-alert-" + i.rule
	i.broken(true)
	began := time.Now()
	said := o.fails(t, i)

	page := o.nagios.Told(t, i.told, oncallHost, service, i.culprit, "CRITICAL")
	if late := page.At.Sub(said.Since); late <= -time.Second || late > 2*oncallPoll { // its log has whole seconds
		t.Errorf("%s was told %s after the agent's rule failed, want two polls at most: %s", i.told, late, 2*oncallPoll)
	}
	alert := o.fires(t, i)
	if alert.Annotations["runbook_url"] != said.Runbook {
		t.Errorf("Prometheus has the runbook %q, the digest %q, want the same", alert.Annotations["runbook_url"], said.Runbook)
	}
	t.Logf("after %.1f s the agent's rule fails, after %.1f s Nagios tells (whole seconds), after %.1f s Prometheus' expression is true",
		said.Since.Sub(began).Seconds(), page.At.Sub(began).Seconds(), alert.ActiveAt.Sub(began).Seconds())
	o.looks(t, i, said.Runbook)
	for _, a := range o.prom.firing(t) {
		if a.Labels["severity"] == "critical" && !i.is(a) {
			t.Errorf("Prometheus fires %v, want %s for %v alone", a.Labels, i.alert, i.labels)
		}
	}

	i.broken(false)
	mended := time.Now()
	o.nagios.Told(t, i.told, oncallHost, service, "", "CRITICAL", "OK")
	o.allClear(t)
	t.Logf("%.1f s after it was mended all is clear", time.Since(mended).Seconds())
	if i.untold != "" {
		o.nagios.Told(t, i.untold, oncallHost, service, "")
	}
}

// fails waits until the digest says that the rule fails, and names the culprit.
func (o *onCall) fails(t *testing.T, i incident) (said runner.CheckDigest) {
	t.Helper()
	boardWait(t, "the digest to have alert/"+i.rule+" fail", func() bool {
		d := o.digest(t, "alert/"+i.rule)
		if len(d.Checks) != 1 {
			t.Fatalf("got %d checks alert/%s, want 1", len(d.Checks), i.rule)
		}
		said = d.Checks[0]
		return said.Status == verdict.Fail
	})
	if !strings.Contains(said.Message, "="+i.culprit) || strings.Contains(said.Message, i.bystander) {
		t.Errorf("the digest says %q, want %s named and not %s", said.Message, i.culprit, i.bystander)
	}
	return said
}

// fires waits until Prometheus fires for the culprit.
func (o *onCall) fires(t *testing.T, i incident) (alert firingAlert) {
	t.Helper()
	boardWait(t, "Prometheus to fire "+i.alert, func() bool {
		firing := o.prom.firing(t)
		n := slices.IndexFunc(firing, i.is)
		if n >= 0 {
			alert = firing[n]
		}
		return n >= 0
	})
	return alert
}

// is reports whether an alert is the one of the incident.
func (i incident) is(a firingAlert) bool {
	for name, value := range i.labels {
		if a.Labels[name] != value {
			return false
		}
	}
	return a.Labels["alertname"] == i.alert && a.Labels["severity"] == "critical"
}

// looks opens the runbook and runs its commands.
func (o *onCall) looks(t *testing.T, i incident, runbook string) {
	t.Helper()
	_, path, ok := strings.Cut(runbook, "/blob/main/")
	if !ok || !strings.HasSuffix(path, "/"+i.rule+".md") {
		t.Fatalf("got the runbook %q, want that of %s", runbook, i.rule)
	}
	for n, command := range lookFirst(t, "../../"+path) {
		out, err := o.runs(t, command)
		if err != nil {
			t.Errorf("%s: %s: %v\n%s", path, command, err, out)
		}
		of := func(name string) *regexp.Regexp {
			return regexp.MustCompile(strings.ReplaceAll(i.names[n], "NAME", name))
		}
		if !of(i.culprit).MatchString(out) {
			t.Errorf("%s: %s:\ngot %s\nwant %s", path, command, out, of(i.culprit))
		}
		if of(i.bystander).MatchString(out) {
			t.Errorf("%s: %s: names %s, who is well:\n%s", path, command, i.bystander, out)
		}
	}
}

// allClear waits until the digest, Prometheus and Nagios have nothing to say.
func (o *onCall) allClear(t *testing.T) {
	t.Helper()
	said := ""
	if !boardBecomes(t, time.Minute, func() bool { said = o.unclear(t); return said == "" }) {
		t.Fatalf("waited a minute for all to be clear: %s", said)
	}
}

// unclear says what is not well, the first of it.
func (o *onCall) unclear(t *testing.T) string {
	t.Helper()
	for _, c := range o.digest(t, "").Checks { // the worst one first
		if c.Status != verdict.Pass {
			return fmt.Sprintf("the digest has %s %s: %s", c.Name, c.Status, c.Message)
		}
	}
	for _, a := range o.prom.firing(t) {
		return fmt.Sprintf("Prometheus fires %v", a.Labels)
	}
	states := o.nagios.States()
	for name, s := range states {
		if s.Code != "0" {
			return fmt.Sprintf("Nagios has %s at %s: %s", name, s.Code, s.Text)
		}
	}
	if len(states) != o.services {
		return fmt.Sprintf("Nagios has looked at %d services, want %d", len(states), o.services)
	}
	return ""
}
