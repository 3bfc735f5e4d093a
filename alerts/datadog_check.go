package alerts

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// The exporter datadog sends the agent's verdicts as service checks, with each of its
// readings: outrider.check for each check, outrider.digest for all of a category.
const (
	datadogCheckStatus  = "outrider_check_status" // the series of the verdicts
	datadogCheckName    = "outrider.check"
	datadogDigestName   = "outrider.digest"
	datadogCheckEvery   = 10 * time.Second // as the exporter has it by default
	datadogMostResults  = 100              // that a monitor looks back at
	datadogAliveMinutes = 2                // without a digest, the least that there is
)

// isDatadogCheck reports whether a rule asks for checks that fail, or warn: that is what
// the service check tells, with the check's own message. A rule that asks for something
// else of the verdicts, as for those that are unknown, stays one on a metric.
func isDatadogCheck(r rule.Rule) bool {
	return r.Series.Name == datadogCheckStatus && r.Func == rule.Level && r.Aggregate == rule.Worst &&
		r.Crit != nil && alertsOn(*r.Crit, verdict.Fail) && (r.Warn == nil || alertsOn(*r.Warn, verdict.Warn))
}

// alertsOn reports whether a range alerts on one status, and on no other.
func alertsOn(r nagios.Range, only verdict.Status) bool {
	return !slices.ContainsFunc([]verdict.Status{verdict.Pass, verdict.Warn, verdict.Fail, verdict.Unknown}, func(s verdict.Status) bool {
		return r.Alerts(float64(s)) != (s == only)
	})
}

func datadogCheck(r Rule, o Owner) (datadogMonitor, error) {
	m := datadogNew(r, o, false)
	m.Type = datadogServiceCheck
	failures, passes := datadogResults(r.For), datadogResults(r.KeepFor)
	last := max(2, failures, passes)
	if last > datadogMostResults {
		return m, fmt.Errorf("for and keep_for: got %s and %s, want %s at most: a monitor looks at %d results of a check", r.For, r.KeepFor, datadogCheckEvery*(datadogMostResults-1), datadogMostResults)
	}
	of := r.Rule(r.Name).Series
	for tag, values := range of.Except {
		if tag != "check" || !slices.Equal(values, []string{"alert/*"}) {
			return m, fmt.Errorf("except: got %s: %s, want none but check: [alert/*], which the exporter does not send: a monitor of a service check leaves out nothing", tag, strings.Join(values, ", "))
		}
	}
	of.Except = nil
	scope := datadogScope(of)
	m.Query = datadogChecks(datadogCheckName, scope, last, "check", "host", "service")
	m.Options.Thresholds.Critical, m.Options.Thresholds.OK = results(failures), results(passes)
	if r.Warn != nil {
		m.Options.Thresholds.Warning = results(failures)
	}
	if r.Witness != "" {
		m.Options.NotifyNoData, m.Options.NoDataTimeframe = true, datadogNoData
	} else {
		m.Options.TimeoutH = datadogTimeout
	}
	m.Message = datadogText{rule: r, owner: o, value: "{{check.name}}: {{check_message}}", warns: r.Warn != nil, noData: r.Witness != ""}.message()
	return m, nil
}

// datadogResults is how many results one after the other take a time.
func datadogResults(d time.Duration) int {
	return 1 + int((d+datadogCheckEvery-1)/datadogCheckEvery)
}

func results(n int) json.Number { return json.Number(strconv.Itoa(n)) }

// datadogAlive is the rule that nothing can be told without an agent. Its owner and its
// runbooks are those of the rule on checks that fail, or else of the first of all.
func datadogAlive(rules []Rule) Rule {
	like := rules[max(0, slices.IndexFunc(rules, func(r Rule) bool { return isDatadogCheck(r.Rule(r.Name)) && r.Category == verdict.Page }))]
	const name = "agent-unreachable"
	return Rule{
		Name: name, Category: verdict.Page, Owner: like.Owner, Runbook: datadogRunbook(like, name),
		Summary:  "Nothing is heard of an agent",
		Impact:   "It is down, or it or the Datadog Agent beside it cannot send. Nobody watches what it watched, and all its other monitors are without data.",
		Evidence: "default: it tells its health every 10 s, and two minutes are the least that Datadog recommends",
	}
}

// datadogUnreachable tells of an agent that was heard of and is heard of no more. That
// its digest fails tells nobody: the checks have monitors of their own.
func datadogUnreachable(r Rule, o Owner) (datadogMonitor, error) {
	m := datadogNew(r, o, false)
	m.Type = datadogServiceCheck
	m.Query = datadogChecks(datadogDigestName, "category:"+string(verdict.Page), 2, "host", "service")
	m.Options.Thresholds.Critical, m.Options.Thresholds.OK = results(1), results(1)
	m.onlyGone(datadogAliveMinutes)
	m.Message = datadogText{rule: r, owner: o, gone: true}.message()
	return m, datadogHandles(o)
}
