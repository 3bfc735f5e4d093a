package alerts

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// recordedAs writes a series by what it is every 10 s: 5*30 is 5 for five minutes, +2*6
// grows by 2 each time for a minute, and _*6 is nothing for a minute.
func recordedAs(t *testing.T, zero time.Time, tags, notation string) *rule.Recorded {
	t.Helper()
	s := &rule.Recorded{Labels: map[string]string{}}
	for part := range strings.FieldsSeq(tags) {
		tag, v, _ := strings.Cut(part, ":")
		s.Labels[tag] = v
	}
	at, last := zero, 0.0
	for part := range strings.FieldsSeq(notation) {
		what, times, _ := strings.Cut(part, "*")
		n, err := strconv.Atoi(times)
		if err != nil {
			t.Fatalf("series %q: %v", part, err)
		}
		grows := strings.HasPrefix(what, "+")
		s.Grows = s.Grows || grows
		v, err := strconv.ParseFloat(what, 64)
		if err != nil && what != "_" {
			t.Fatalf("series %q: %v", part, err)
		}
		for range n {
			if what != "_" {
				if last = v + map[bool]float64{true: last}[grows]; true {
					s.Points = append(s.Points, rule.Point{At: at, Value: last})
				}
			}
			at = at.Add(10 * time.Second)
		}
	}
	return s
}

// A replayed is a rule with what becomes of recorded series.
type replayed struct {
	rule           string   // as in rules.yaml, without what people read
	series         []string // NAME TAG:VALUE ... = notation
	agent, datadog string   // episodes
}

// TestDatadogFiresWhenTheAgentDoes evaluates rules as the agent does, and their monitors
// by the model: what both say stands side by side, so that a difference is seen.
func TestDatadogFiresWhenTheAgentDoes(t *testing.T) {
	for _, table := range []map[string]replayed{replayedLevels, replayedRates, replayedOthers} {
		if len(table) < 5 {
			t.Errorf("got %d rules in a table, want 5 or more", len(table))
		}
		for name, tt := range table {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				tt.replay(t)
			})
		}
	}
}

func (tt replayed) replay(t *testing.T) {
	zero := time.Unix(1_700_000_040, 0).UTC().Truncate(time.Minute)
	set := datadogRules(t, `
owners: [{name: o, nagios: {page: a, email: b}, datadog: {page: "@a", email: "@b"}, alertmanager: {page: a, email: b}}]
rules: [{name: r, category: email, owner: o, summary: a, impact: b, evidence: c, `+strings.TrimPrefix(tt.rule, "{")+`]`)
	is := set.Rules[0].Rule("r")
	made, err := datadogMonitors(set.Rules[0], set.Owners[0], catalogue.Own())
	if err != nil || len(made) != 1 {
		t.Fatalf("got %d monitors, %v, want 1", len(made), err)
	}
	var in rule.Input
	data, end := modelData{}, time.Duration(0)
	for _, text := range tt.series {
		head, notation, _ := strings.Cut(text, " = ")
		name, tags, _ := strings.Cut(head, " ")
		s := recordedAs(t, zero, tags, notation)
		switch name {
		case is.Series.Name:
			in.Series = append(in.Series, s)
		case is.All.Name:
			in.All = append(in.All, s)
		}
		data.add(datadogSeries{rule: is}.name(rule.Selector{Name: name}), s, zero)
		for part := range strings.FieldsSeq(notation) {
			n, _ := strconv.Atoi(part[strings.IndexByte(part, '*')+1:])
			end += time.Duration(n) * 10 * time.Second
		}
	}
	end /= time.Duration(len(tt.series))
	if diff := cmp.Diff(tt.agent, agentEpisodes(rule.Replay(is, in, zero, zero.Add(end), 10*time.Second), zero)); diff != "" {
		t.Errorf("the agent (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(tt.datadog, modelEpisodes(modelRun(made[0], data, end))); diff != "" {
		t.Errorf("Datadog, by the model, of %s (-want +got):\n%s", made[0].Query, diff)
	}
}

func agentEpisodes(episodes []rule.Episode, zero time.Time) string {
	var out []string
	for _, e := range episodes {
		ended := ""
		if !e.Ended.IsZero() {
			ended = e.Ended.Sub(zero).String()
		}
		out = append(out, fmt.Sprintf("%s %s-%s", map[verdict.Status]string{verdict.Warn: "warn", verdict.Fail: "fail"}[e.Level], e.Began.Sub(zero), ended))
	}
	return strings.Join(out, ", ")
}

func modelEpisodes(episodes []modelEpisode) string {
	var out []string
	for _, e := range episodes {
		ended := ""
		if e.ended > 0 {
			ended = e.ended.String()
		}
		out = append(out, fmt.Sprintf("%s %s-%s", e.state, e.began, ended))
	}
	return strings.Join(out, ", ")
}
