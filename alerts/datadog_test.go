package alerts

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// datadogGolden compares with a file, or writes it with -update.
func datadogGolden(t *testing.T, path, got string) {
	t.Helper()
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), write it with -update:\n%s", path, diff)
	}
}

// datadogRules reads rules of the form of rules.yaml.
func datadogRules(t *testing.T, yaml string) *Set {
	t.Helper()
	set, err := Parse("rules.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestDatadogSaysEveryRule renders or refuses each rule of a table.
func TestDatadogSaysEveryRule(t *testing.T) {
	yaml, err := os.ReadFile("testdata/datadog_rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set, own := datadogRules(t, string(yaml)), catalogue.Own()
	var b strings.Builder
	for _, r := range set.Rules {
		made, err := datadogMonitors(r, set.Owner(r), own)
		fmt.Fprintf(&b, "%s\n", r.Name)
		if err != nil {
			fmt.Fprintf(&b, "    refused: %v\n", err)
			continue
		}
		for _, m := range made {
			if err := lintDatadog(m); err != nil {
				t.Error(err)
			}
			thresholds, _ := json.Marshal(m.Options.Thresholds)
			fmt.Fprintf(&b, "    %s: %s, priority %d\n        %s\n        %s", strings.TrimPrefix(m.Name, datadogPrefix), m.Type, m.Priority, m.Query, thresholds)
			if m.Options.NotifyNoData {
				fmt.Fprintf(&b, ", told after %d minutes without data", m.Options.NoDataTimeframe)
			}
			if m.Options.RequireFullWindow != nil && *m.Options.RequireFullWindow {
				b.WriteString(", of a full window")
			}
			if n := m.Options.NewGroupDelay; n != datadogGroupDelay {
				fmt.Fprintf(&b, ", of groups that are there for %d seconds", n)
			}
			b.WriteByte('\n')
		}
	}
	datadogGolden(t, "testdata/datadog.golden", b.String())
}

// TestDatadogsMessages shows who hears of what.
func TestDatadogsMessages(t *testing.T) {
	yaml, err := os.ReadFile("testdata/datadog_rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set := datadogRules(t, string(yaml))
	var b strings.Builder
	for _, r := range set.Rules {
		switch r.Name {
		case "level-page", "level-warn-alone", "absence", "checks", "share-floor-least":
			made, err := datadogMonitors(r, set.Owner(r), catalogue.Own())
			if err != nil {
				t.Fatal(err)
			}
			b.Write(datadogJSON(made[0]))
			fmt.Fprintf(&b, "%s\n\n", made[0].Message)
		}
	}
	datadogGolden(t, "testdata/datadog_messages.golden", b.String())
}

func TestDatadogNamesTheRuleThatItRefuses(t *testing.T) {
	const yaml = `
owners: [{name: shop, nagios: {page: a, email: b}, datadog: {page: "@a", email: "@b"}, alertmanager: {page: a, email: b}}]
rules:
  - {name: p95, category: email, owner: shop, summary: a, impact: b, evidence: c, series: x, quantile: {q: 0.95}, crit: "1"}
  - {name: two, category: email, owner: shop, summary: a, impact: b, evidence: c, series: x, crit: "0:1"}
  - {name: two-high, category: email, owner: shop, summary: a, impact: b, evidence: c, series: x, crit: "1:"}
  - {name: disorder, category: email, owner: shop, summary: a, impact: b, evidence: c, series: x, warn: "5", crit: "1"}
`
	files, err := renderDatadog(datadogRules(t, yaml), catalogue.Own())
	if err == nil {
		t.Fatalf("got %d files, want the rules refused", len(files))
	}
	for _, want := range []string{
		"rule p95: quantile.q: got 0.95, want 0 or 1", "rule two-high: name: got the file two-high.json twice",
		"rule disorder: monitor [outrider] disorder-high: thresholds.warning: got 5",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error(), "rule two:") {
		t.Errorf("got %v, want nothing about the rule two", err)
	}
}

func TestDatadogWithoutRulesIsEmpty(t *testing.T) {
	if files, err := renderDatadog(&Set{}, catalogue.Own()); len(files) > 0 || err != nil {
		t.Errorf("got %d files, %v, want none", len(files), err)
	}
}

func TestDatadogIsLinted(t *testing.T) {
	metric := func(change func(*datadogMonitor)) datadogMonitor {
		m := datadogMonitor{
			Name: "a", Type: datadogQueryAlert, Query: "min(last_5m):max:x{*} by {host} > 10", Message: "{{#is_alert}}@a{{/is_alert}}", Priority: 1,
			Options: datadogOptions{Thresholds: datadogThresholds{Critical: "10", CriticalRecovery: "8", Warning: "9", WarningRecovery: "7"}, NotifyNoData: true, NoDataTimeframe: 10},
		}
		change(&m)
		return m
	}
	check := func(change func(*datadogMonitor)) datadogMonitor {
		return metric(func(m *datadogMonitor) {
			m.Type, m.Query = datadogServiceCheck, `"a.b".over("x:y").by("host").last(3).count_by_status()`
			m.Options.Thresholds = datadogThresholds{Critical: "3", Warning: "2", OK: "1"}
			change(m)
		})
	}
	below := func(m *datadogMonitor) {
		m.Query = "max(last_5m):max:x{*} by {host} < 10"
		m.Options.Thresholds = datadogThresholds{Critical: "10", CriticalRecovery: "12", Warning: "11", WarningRecovery: "13"}
	}
	for name, tt := range map[string]struct {
		m    datadogMonitor
		want string // empty: nothing is wrong
	}{
		"a good one":                         {metric(func(*datadogMonitor) {}), ""},
		"a good one below":                   {metric(below), ""},
		"a good service check":               {check(func(*datadogMonitor) {}), ""},
		"no name":                            {metric(func(m *datadogMonitor) { m.Name = " " }), "name: got nothing"},
		"no message":                         {metric(func(m *datadogMonitor) { m.Message = "" }), "message: got nothing"},
		"a block that stays open":            {metric(func(m *datadogMonitor) { m.Message = "{{#is_alert}}@a" }), "{{#is_alert}} without an end"},
		"a block that ends twice":            {metric(func(m *datadogMonitor) { m.Message = "a{{/is_alert}}" }), "got {{/is_alert}}"},
		"priority 0":                         {metric(func(m *datadogMonitor) { m.Priority = 0 }), "priority: got 0"},
		"priority 6":                         {metric(func(m *datadogMonitor) { m.Priority = 6 }), "priority: got 6"},
		"another type":                       {metric(func(m *datadogMonitor) { m.Type = "composite" }), "type: got composite"},
		"another number in the query":        {metric(func(m *datadogMonitor) { m.Options.Thresholds.Critical = "11" }), "thresholds.critical: got 11, want 10"},
		"no number":                          {metric(func(m *datadogMonitor) { m.Options.Thresholds.Critical = "" }), `thresholds: got ""`},
		"an exponent":                        {metric(func(m *datadogMonitor) { m.Options.Thresholds.Warning = "1e-7" }), `thresholds: got "1e-7"`},
		"a warning after the alert":          {metric(func(m *datadogMonitor) { m.Options.Thresholds.Warning = "10" }), "thresholds.warning: got 10"},
		"a warning below an alert below":     {metric(func(m *datadogMonitor) { below(m); m.Options.Thresholds.Warning = "9" }), "thresholds.warning: got 9"},
		"a recovery within the alert":        {metric(func(m *datadogMonitor) { m.Options.Thresholds.CriticalRecovery = "12" }), "critical_recovery: got 12"},
		"a recovery within the warning":      {metric(func(m *datadogMonitor) { m.Options.Thresholds.WarningRecovery = "9" }), "warning_recovery: got 9"},
		"a recovery of no warning":           {metric(func(m *datadogMonitor) { m.Options.Thresholds.Warning = "" }), "none without warning"},
		"an ok of a metric":                  {metric(func(m *datadogMonitor) { m.Options.Thresholds.OK = "1" }), "thresholds.ok: got 1"},
		"no comparator":                      {metric(func(m *datadogMonitor) { m.Query = "min(last_5m):max:x{*} by {host}" }), "want FUNCTION(last_WINDOW)"},
		"a shift without a change":           {metric(func(m *datadogMonitor) { m.Query = "min(last_5m),last_1h):max:x{*} by {host} > 10" }), "want FUNCTION(last_WINDOW)"},
		"a window of nothing":                {metric(func(m *datadogMonitor) { m.Query = "min(last_0m):max:x{*} by {host} > 10" }), "query: got last_0m"},
		"a window of more than a week":       {metric(func(m *datadogMonitor) { m.Query = "min(last_169h):max:x{*} by {host} > 10" }), "query: got last_169h"},
		"no series":                          {metric(func(m *datadogMonitor) { m.Query = "min(last_5m):7 > 10" }), "want SPACE:metric"},
		"no tags to group by":                {metric(func(m *datadogMonitor) { m.Query = "min(last_5m):max:x{*} > 10" }), "want SPACE:metric"},
		"half a query":                       {metric(func(m *datadogMonitor) { m.Query = "min(last_5m):max:x{*} by {host} / max:y{*} > 10" }), "want whole queries"},
		"a bracket that stays open":          {metric(func(m *datadogMonitor) { m.Query = "min(last_5m):abs(max:x{*} by {host} > 10" }), "brackets in pairs"},
		"parts of different groups":          {metric(func(m *datadogMonitor) { m.Query = "min(last_5m):max:x{*} by {a} / max:y{*} by {b} > 10" }), "the same tags"},
		"counts that are not added up":       {metric(func(m *datadogMonitor) { m.Query = "min(last_5m):max:x{*} by {host}.as_count() > 10" }), "min with as_count, want sum"},
		"no data before the window":          {metric(func(m *datadogMonitor) { m.Options.NoDataTimeframe = 9 }), "no_data_timeframe: got 9"},
		"an escalation that is never told":   {metric(func(m *datadogMonitor) { m.Options.EscalationMessage = "a" }), "without renotify_interval"},
		"an end after two days":              {metric(func(m *datadogMonitor) { m.Options.TimeoutH = 48 }), "timeout_h: got 48"},
		"a scope without quotes":             {check(func(m *datadogMonitor) { m.Query = `"a".over(x).by("host").last(3).count_by_status()` }), `query: got "\"a\".over(x)`},
		"a check without a scope":            {check(func(m *datadogMonitor) { m.Query = `"a".over().by("host").last(3).count_by_status()` }), "query: got"},
		"a check that nothing is grouped by": {check(func(m *datadogMonitor) { m.Query = `"a".over("*").last(3).count_by_status()` }), "query: got"},
		"fewer results than the threshold":   {check(func(m *datadogMonitor) { m.Options.Thresholds.Critical = "4" }), "last(3), want 4"},
		"more results than there are":        {check(func(m *datadogMonitor) { m.Query = `"a".over("*").by("a").last(101).count_by_status()` }), "last(101)"},
		"a part of a result":                 {check(func(m *datadogMonitor) { m.Options.Thresholds.OK = "0.5" }), `thresholds.ok: got "0.5"`},
		"a check with a recovery":            {check(func(m *datadogMonitor) { m.Options.Thresholds.CriticalRecovery = "1" }), "got a recovery"},
		"a check without data for a minute":  {check(func(m *datadogMonitor) { m.Options.NoDataTimeframe = 1 }), "no_data_timeframe: got 1"},
		"a check with a full window":         {check(func(m *datadogMonitor) { m.Options.RequireFullWindow = new(bool) }), "require_full_window"},
	} {
		t.Run(name, func(t *testing.T) {
			err := lintDatadog(tt.m)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want nothing wrong", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}
