package alerts

import (
	"cmp"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/alerts/alertstest"
	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// TestDatadogsModelSeesTheHistories plays them through the model of Datadog: by the
// monitors that are rendered, they are the same as in the agent to a minute, or a
// difference says why. A monitor that cannot be rendered has none.
func TestDatadogsModelSeesTheHistories(t *testing.T) {
	for _, h := range alertstest.Histories(t) {
		t.Run(h.Name, func(t *testing.T) {
			got := datadogPlays(t, h)
			if d, ok := h.Differs[Datadog]; ok {
				if diff := gocmp.Diff(d.Want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("episodes (-want +got)\n%s", diff)
				}
				return
			}
			if !alertstest.Agree(t, h.Want, got, time.Minute) {
				t.Errorf("got %q, want what the agent has, to a minute: %q", got, h.Want)
			}
		})
	}
}

func datadogPlays(t *testing.T, h alertstest.History) (out []alertstest.Episode) {
	t.Helper()
	r := Rule{Name: h.Name, Category: verdict.Page, Owner: "o", Summary: "s", Impact: "i", Evidence: "e", Runbook: "https://r.example", Spec: h.Rule}
	made, err := datadogMonitors(r, Owner{Name: "o", Datadog: Contacts{Page: "@a", Email: "@b"}}, catalogue.Own())
	if err != nil {
		t.Logf("refused: %v", err)
		return []alertstest.Episode{"refused"}
	}
	is := h.Rule.Rule(h.Name)
	in, data := alertstest.Input(t, is, h.Series, alertstest.Step), modelData{}
	for _, s := range []struct {
		of     rule.Selector
		series []rule.Samples
	}{{is.Series, in.Series}, {is.All, in.All}} {
		for _, one := range s.series {
			data.add(datadogSeries{rule: is}.name(s.of), one.(*rule.Recorded), alertstest.Start)
		}
	}
	var found []modelEpisode
	for _, m := range made {
		found = append(found, modelRun(m, data, alertstest.Length(t, h.Series))...)
	}
	slices.SortStableFunc(found, func(a, b modelEpisode) int { return cmp.Compare(a.began, b.began) })
	for _, e := range found {
		ended := ""
		if e.ended > 0 {
			ended = alertstest.Short(e.ended)
		}
		level := map[string]string{"alert": "fail", "no data": "fail", "warn": "warn"}[e.state]
		out = append(out, alertstest.Episode(level+" "+alertstest.Short(e.began)+"-"+ended))
	}
	return out
}
