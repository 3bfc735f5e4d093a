package alerts

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// The rules of monitors.
//
// A file is one monitor, ready for POST /api/v1/monitor: RULE.json, or RULE-low.json and
// RULE-high.json where a range has two ends, because a monitor has one comparator.
// A level that is crit alerts, one that is warn warns. Where a rule has no crit on a
// side, warn alerts there: a warning of its own Datadog does not have. Then it is told
// by email, and has the priority 4.
//
// The scope is {*} but for what the rule matches: a monitor is for all agents, and judges
// each by itself, because it groups by host and service. Every series has these two tags:
// the host from the Datadog Agent, the service from the process' tags, or its name where
// it is a neighbour's. Other tags of the process, such as env, need not be there, and
// what lacks a tag that a monitor groups by is not seen by it.
//
// What is written here about Datadog is from its documentation of monitors, functions
// and the API; no server was asked.

const (
	datadogRenotify   = 30 // minutes between two notifications of a page
	datadogGroupDelay = 60 // seconds until a new group is judged
	datadogNoData     = 10 // minutes without data at least, before it is told
	datadogTimeout    = 1  // hours without data, after which an alert ends

	datadogQueryAlert   = "query alert"
	datadogServiceCheck = "service check"

	datadogPage, datadogEmail, datadogWarning = 1, 3, 4 // priorities
)

// A datadogMonitor is what the API takes.
type datadogMonitor struct {
	Name     string         `json:"name"`
	Type     string         `json:"type"`
	Query    string         `json:"query"`
	Message  string         `json:"message"`
	Tags     []string       `json:"tags"`
	Priority int            `json:"priority"`
	Options  datadogOptions `json:"options"`
}

type datadogOptions struct {
	Thresholds        datadogThresholds `json:"thresholds"`
	NotifyNoData      bool              `json:"notify_no_data"`
	NoDataTimeframe   int               `json:"no_data_timeframe,omitempty"`   // minutes
	TimeoutH          int               `json:"timeout_h,omitempty"`           // hours
	NewGroupDelay     int               `json:"new_group_delay"`               // seconds
	RequireFullWindow *bool             `json:"require_full_window,omitempty"` // of metrics alone
	RenotifyInterval  int               `json:"renotify_interval,omitempty"`   // minutes
	RenotifyStatuses  []string          `json:"renotify_statuses,omitempty"`
	EscalationMessage string            `json:"escalation_message,omitempty"`
	IncludeTags       bool              `json:"include_tags"`
}

// datadogThresholds are numbers without exponents; of a service check, numbers of
// results one after the other.
type datadogThresholds struct {
	Critical         json.Number `json:"critical"`
	CriticalRecovery json.Number `json:"critical_recovery,omitempty"`
	Warning          json.Number `json:"warning,omitempty"`
	WarningRecovery  json.Number `json:"warning_recovery,omitempty"`
	OK               json.Number `json:"ok,omitempty"`
}

func renderDatadog(set *Set, own catalogue.Catalogue) ([]File, error) {
	rules := set.For(Datadog)
	if len(rules) == 0 {
		return nil, nil
	}
	var files []File
	var errs []error
	add := func(r Rule, made []datadogMonitor, err error) {
		for _, m := range made {
			if wrong := lintDatadog(m); wrong != nil {
				err = errors.Join(err, wrong)
				continue
			}
			file := strings.TrimPrefix(m.Name, datadogPrefix) + ".json"
			if slices.ContainsFunc(files, func(f File) bool { return f.Path == file }) {
				err = errors.Join(err, fmt.Errorf("name: got the file %s twice, want another name", file))
			}
			files = append(files, File{Path: file, Data: datadogJSON(m)})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("rule %s: %w", r.Name, err))
		}
	}
	for _, r := range rules {
		made, err := datadogMonitors(r, set.Owner(r), own)
		add(r, made, err)
	}
	alive := datadogAlive(rules)
	made, err := datadogUnreachable(alive, set.Owner(alive))
	add(alive, []datadogMonitor{made}, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

// datadogMonitors are those of a rule.
func datadogMonitors(r Rule, o Owner, own catalogue.Catalogue) ([]datadogMonitor, error) {
	if err := datadogHandles(o); err != nil {
		return nil, err
	}
	is := r.Rule(r.Name)
	if isDatadogCheck(is) {
		m, err := datadogCheck(r, o)
		return []datadogMonitor{m}, err
	}
	if q, ok, err := datadogGone(is, own); err != nil || ok {
		if err != nil {
			return nil, err
		}
		return []datadogMonitor{datadogGoneMonitor(r, o, q)}, nil
	}
	sides, err := datadogSides(is, domainOf(is, own))
	if err != nil {
		return nil, err
	}
	var out []datadogMonitor
	for _, side := range sides {
		q, err := newDatadogQuery(is, own, side)
		if err != nil {
			return nil, err
		}
		out = append(out, datadogMetric(r, o, side, q))
	}
	return out, nil
}

// datadogMetric is the monitor of one side of a rule on series.
func datadogMetric(r Rule, o Owner, side datadogSide, q datadogQuery) datadogMonitor {
	t := datadogThresholds{Critical: q.number(side.crit)}
	t.CriticalRecovery = q.recovery(side.critClear, t.Critical)
	if side.warn != nil {
		t.Warning = q.number(side.warn)
		t.WarningRecovery = q.recovery(side.warnClear, t.Warning)
	}
	m := datadogNew(r, o, side.warnOnly)
	m.Name += side.suffix
	m.Type = datadogQueryAlert
	m.Query = fmt.Sprintf("%s:%s %s %s", q.head, q.expr, q.op, t.Critical)
	m.Options.Thresholds, m.Options.RequireFullWindow = t, &q.full
	m.Options.NewGroupDelay = max(datadogGroupDelay, int(q.settle.Seconds()))
	noData := r.Witness != "" && !q.idle
	if noData {
		m.Options.NotifyNoData, m.Options.NoDataTimeframe = true, max(datadogNoData, 2*q.minutes)
	} else {
		m.Options.TimeoutH = datadogTimeout // what nobody knows any more is over
	}
	m.Message = datadogText{rule: r, owner: o, value: "Value: {{value}}, " + q.means + ".", warnOnly: side.warnOnly, warns: side.warn != nil, noData: noData}.message()
	return m
}

const datadogPrefix = "[outrider] "

// datadogNew is what all monitors have.
func datadogNew(r Rule, o Owner, warnOnly bool) datadogMonitor {
	category := r.Category
	m := datadogMonitor{Priority: datadogEmail}
	switch {
	case warnOnly:
		category, m.Priority = verdict.Email, datadogWarning
	case category == verdict.Page:
		m.Priority = datadogPage
		m.Options.RenotifyInterval, m.Options.RenotifyStatuses = datadogRenotify, []string{"alert"}
		if to := o.Datadog.Escalate; to != "" {
			m.Options.EscalationMessage = "Nobody has looked after it. " + to
		}
	}
	m.Name = datadogPrefix + r.Name
	m.Tags = []string{"rule:" + r.Name, "category:" + string(category), "owner:" + o.Name, "managed-by:outrider"}
	m.Options.NewGroupDelay, m.Options.IncludeTags = datadogGroupDelay, true
	return m
}

// datadogHandles wants somebody to tell: what does not begin with @ tells nobody.
func datadogHandles(o Owner) error {
	for _, c := range []struct{ key, handle string }{{"page", o.Datadog.Page}, {"email", o.Datadog.Email}, {"escalate", o.Datadog.Escalate}} {
		if c.handle == "" && c.key == "escalate" {
			continue
		}
		words := strings.Fields(c.handle)
		if len(words) == 0 || slices.ContainsFunc(words, func(w string) bool { return !strings.HasPrefix(w, "@") }) {
			return fmt.Errorf("owner %s: datadog.%s: got %q, want handles such as @pagerduty-shop", o.Name, c.key, c.handle)
		}
	}
	return nil
}

func datadogJSON(m datadogMonitor) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		panic(fmt.Sprintf("BUG: monitor %s: %v", m.Name, err))
	}
	return b.Bytes()
}

// A datadogText is what a message is made of.
type datadogText struct {
	rule     Rule
	owner    Owner
	value    string // what was found; empty: it says nothing
	warnOnly bool   // whose alert is a warning
	warns    bool
	noData   bool // missing data is told as a flaw
	gone     bool // missing data is what the monitor is about
}

// message routes each state to who hears of it. Recoveries go to all who may have
// been told, so that what was opened there is closed.
func (t datadogText) message() string {
	c, category := t.owner.Datadog, t.rule.Category
	if t.warnOnly {
		category = verdict.Email
	}
	lines := []string{t.rule.Summary + ".", "Impact: " + t.rule.Impact}
	if t.value != "" {
		lines = append(lines, t.value)
	}
	if t.rule.Runbook != "" {
		lines = append(lines, "Runbook: "+t.rule.Runbook)
	}
	lines = append(lines, "Threshold: "+t.rule.Evidence+".", "")
	told := []string{c.Of(category)}
	tell := func(state, text, to string) {
		lines = append(lines, fmt.Sprintf("{{#%s}}%s%s{{/%s}}", state, text, to, state))
		if to != "" && !slices.Contains(told, to) {
			told = append(told, to)
		}
	}
	if t.gone { // of its alerts, if it has any, nobody is told
		tell("is_no_data", "There is no data any more. ", c.Of(category))
		tell("is_no_data_recovery", "It is over. ", c.Of(category))
		return strings.Join(lines, "\n")
	}
	tell("is_alert", "", c.Of(category))
	if t.warns {
		tell("is_warning", "", c.Email)
	}
	if t.noData {
		tell("is_no_data", "There is no data: a reporting flaw, not a failure. See "+datadogRunbook(t.rule, "series-absent")+" ", c.Email)
	}
	tell("is_recovery", "It is over. ", strings.Join(told, " "))
	return strings.Join(lines, "\n")
}

// shippedRunbooks is where the runbooks of rules are that do not say it.
const shippedRunbooks = "https://github.com/outrider-agent/outrider/blob/main/docs/runbooks"

// datadogRunbook is that of another name, beside the rule's own one.
func datadogRunbook(r Rule, name string) string {
	base, found := strings.CutSuffix(r.Runbook, "/"+r.Name+".md")
	if !found {
		base = shippedRunbooks
	}
	return base + "/" + path.Base(name) + ".md"
}
