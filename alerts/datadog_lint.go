package alerts

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What Datadog's server refuses of a monitor, as far as it can be said without asking
// it: by the API's documentation, and the rules that its validation is known for.

// A datadogParts is a metric monitor's query: FUNCTION(WINDOW):EXPR OP NUMBER, or
// CHANGE(FUNCTION(WINDOW),SHIFT):EXPR OP NUMBER.
type datadogParts struct {
	change, shift    string // empty: it is none
	function, window string
	expr, op, number string
}

// Read-only.
var (
	datadogMetricQuery = regexp.MustCompile(`^(?:(change|pct_change)\()?(avg|sum|max|min)\((last_[0-9]+[mhdw])\)(?:,(last_[0-9]+[mhdw])\))?:(.+) (>=|<=|>|<) (-?[0-9]+(?:\.[0-9]+)?)$`)
	datadogCheckQuery  = regexp.MustCompile(`^"[a-zA-Z][a-zA-Z0-9_.]*"\.over\("[^"]+"(?:,"[^"]+")*\)\.by\("[^"]+"(?:,"[^"]+")*\)\.last\(([0-9]+)\)\.count_by_status\(\)$`)
	datadogLeaf        = regexp.MustCompile(`(avg|sum|max|min):([a-zA-Z][a-zA-Z0-9_.]*)\{([^{}]+)\} by \{([^{}]+)\}(\.as_count\(\))?`)
	datadogState       = regexp.MustCompile(`\{\{([#/])([a-z_]+)\}\}`)
)

// datadogChecks is a query of service checks.
func datadogChecks(name, scope string, last int, by ...string) string {
	quoted := func(list []string) string { return `"` + strings.Join(list, `","`) + `"` }
	return fmt.Sprintf(`"%s".over(%s).by(%s).last(%d).count_by_status()`, name, quoted(strings.Split(scope, ",")), quoted(by), last)
}

// lintDatadog says what is wrong with a monitor, all of it.
func lintDatadog(m datadogMonitor) error {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, fmt.Errorf("monitor %s: %s: got %s, want %s", m.Name, key, got, want))
	}
	for _, text := range []struct{ key, is string }{{"name", m.Name}, {"message", m.Message}} {
		if strings.TrimSpace(text.is) == "" {
			wrong(text.key, "nothing", "a text")
		}
	}
	if m.Priority < 1 || m.Priority > 5 {
		wrong("priority", strconv.Itoa(m.Priority), "1 to 5")
	}
	switch m.Type {
	case datadogQueryAlert:
		lintDatadogMetric(m, wrong)
	case datadogServiceCheck:
		lintDatadogCheck(m, wrong)
	default:
		wrong("type", m.Type, datadogQueryAlert+" or "+datadogServiceCheck)
	}
	o := m.Options
	if o.EscalationMessage != "" && o.RenotifyInterval == 0 {
		wrong("escalation_message", "one without renotify_interval", "both")
	}
	if o.TimeoutH < 0 || o.TimeoutH > 24 {
		wrong("timeout_h", strconv.Itoa(o.TimeoutH), "0 to 24")
	}
	var open []string
	for _, block := range datadogState.FindAllStringSubmatch(m.Message, -1) {
		switch {
		case block[1] == "#":
			open = append(open, block[2])
		case len(open) == 0 || open[len(open)-1] != block[2]:
			wrong("message", "{{/"+block[2]+"}}", "the end of what is open")
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		wrong("message", "{{#"+open[0]+"}} without an end", "{{/"+open[0]+"}}")
	}
	return errors.Join(errs...)
}

func parseDatadog(query string) (p datadogParts, ok bool) {
	f := datadogMetricQuery.FindStringSubmatch(query)
	if f == nil || (f[1] == "") != (f[4] == "") {
		return p, false
	}
	return datadogParts{f[1], f[4], f[2], f[3], f[5], f[6], f[7]}, true
}

func lintDatadogMetric(m datadogMonitor, wrong func(key, got, want string)) {
	p, ok := parseDatadog(m.Query)
	if !ok {
		wrong("query", strconv.Quote(m.Query), "FUNCTION(last_WINDOW):EXPR COMPARATOR NUMBER")
		return
	}
	window := datadogSpanMinutes(p.window)
	for _, w := range []string{p.window, p.shift} {
		if n := datadogSpanMinutes(w); w != "" && (n < 1 || n > datadogWeek) {
			wrong("query", w, "1 minute to 1 week")
		}
	}
	leaves := datadogLeaf.FindAllStringSubmatch(p.expr, -1)
	if len(leaves) == 0 {
		wrong("query", strconv.Quote(p.expr), "SPACE:metric{scope} by {tags}")
	}
	for _, l := range leaves {
		switch {
		case (l[5] != "") && p.function != "sum":
			wrong("query", p.function+" with as_count", "sum")
		case !slices.Equal(strings.Split(l[4], ","), strings.Split(leaves[0][4], ",")):
			wrong("query", l[4]+" and "+leaves[0][4], "the same tags to group by")
		}
	}
	rest := datadogLeaf.ReplaceAllString(p.expr, "")
	if strings.ContainsAny(rest, "{}:") || strings.Count(rest, "(") != strings.Count(rest, ")") {
		wrong("query", strconv.Quote(p.expr), "whole queries, and brackets in pairs")
	}
	lintDatadogThresholds(m.Options.Thresholds, p, wrong)
	if n := m.Options.NoDataTimeframe; m.Options.NotifyNoData && n < 2*window {
		wrong("no_data_timeframe", strconv.Itoa(n), fmt.Sprintf("twice the window at least, which is %d", 2*window))
	}
}

// lintDatadogThresholds wants the alert's number in the query, and from the alert
// to the ends of recovery each farther on the good side.
func lintDatadogThresholds(t datadogThresholds, p datadogParts, wrong func(key, got, want string)) {
	number := func(of string) float64 {
		v, err := strconv.ParseFloat(of, 64)
		if err != nil || strings.ContainsAny(of, "eE") {
			wrong("thresholds", strconv.Quote(of), "a number without exponent")
		}
		return v
	}
	critical := number(string(t.Critical))
	if critical != number(p.number) {
		wrong("thresholds.critical", string(t.Critical), p.number+", which is in the query")
	}
	better := func(key string, of, than string) {
		a, b := number(of), number(than)
		if up := p.op[0] == '>'; up && a >= b || !up && a <= b {
			wrong("thresholds."+key, of, fmt.Sprintf("one on the other side of %s than what alerts by %s", than, p.op))
		}
	}
	if t.CriticalRecovery != "" {
		better("critical_recovery", string(t.CriticalRecovery), string(t.Critical))
	}
	if t.Warning != "" {
		better("warning", string(t.Warning), string(t.Critical))
	}
	switch {
	case t.WarningRecovery == "":
	case t.Warning == "":
		wrong("thresholds.warning_recovery", string(t.WarningRecovery), "none without warning")
	default:
		better("warning_recovery", string(t.WarningRecovery), string(t.Warning))
	}
	if t.OK != "" {
		wrong("thresholds.ok", string(t.OK), "none: it is for service checks")
	}
}

func lintDatadogCheck(m datadogMonitor, wrong func(key, got, want string)) {
	f := datadogCheckQuery.FindStringSubmatch(m.Query)
	if f == nil {
		wrong("query", strconv.Quote(m.Query), `"check".over("scope").by("tag").last(n).count_by_status()`)
		return
	}
	t := m.Options.Thresholds
	most := 1
	for _, n := range []struct{ key, of string }{{"critical", string(t.Critical)}, {"warning", string(t.Warning)}, {"ok", string(t.OK)}} {
		results, err := strconv.Atoi(n.of)
		switch {
		case n.of == "" && n.key != "critical":
		case err != nil || results < 1:
			wrong("thresholds."+n.key, strconv.Quote(n.of), "1 or more")
		}
		most = max(most, results)
	}
	if last, err := strconv.Atoi(f[1]); err != nil || last < most || last > datadogMostResults {
		wrong("query", "last("+f[1]+")", fmt.Sprintf("%d, the greatest threshold, to %d", most, datadogMostResults))
	}
	if t.CriticalRecovery != "" || t.WarningRecovery != "" {
		wrong("thresholds", "a recovery", "ok, the results after which it is over")
	}
	if m.Options.NotifyNoData && m.Options.NoDataTimeframe < datadogAliveMinutes {
		wrong("no_data_timeframe", strconv.Itoa(m.Options.NoDataTimeframe), "2 at least")
	}
	if m.Options.RequireFullWindow != nil {
		wrong("require_full_window", "one", "none: it is for metrics")
	}
}

// datadogSpanMinutes are the minutes of last_5m and so on.
func datadogSpanMinutes(window string) int {
	span := strings.TrimPrefix(window, "last_")
	if span == "" {
		return 0
	}
	n, err := strconv.Atoi(span[:len(span)-1])
	if err != nil {
		return 0
	}
	return n * map[byte]int{'m': 1, 'h': 60, 'd': 24 * 60, 'w': datadogWeek}[span[len(span)-1]]
}
