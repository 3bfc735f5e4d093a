package checks

import (
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// TestAnAlertWithNothingToJudgeIsWell, and one whose series should be there is not.
func TestAnAlertWithNothingToJudgeIsWell(t *testing.T) {
	const minute = time.Minute
	some, other := [2]string{"", "depth"}, [2]string{"", "objects"}
	for name, tt := range map[string]struct {
		witness string
		series  kept
		want    verdict.Status
		message string
	}{
		"no series":                             {"", kept{}, verdict.Pass, "no series depth"},
		"no series, and no witness either":      {"objects", kept{}, verdict.Pass, "no series depth"},
		"the witness alone":                     {"objects", kept{other: {recorded(minute, nil, 1)}}, verdict.Unknown, "no series depth"},
		"a series that is fine":                 {"objects", kept{some: {recorded(minute, nil, 1)}, other: {recorded(minute, nil, 1)}}, verdict.Pass, "depth is 1"},
		"a series that is not":                  {"", kept{some: {recorded(minute, nil, 11)}}, verdict.Fail, "depth is 11, want at most 10"},
		"a series that is too old to be judged": {"", kept{some: {{Points: []rule.Point{{At: began.Add(-time.Hour), Value: 11}}}}}, verdict.Pass, "not known"},
	} {
		t.Run(name, func(t *testing.T) {
			c := AlertConfig{Spec: rule.Spec{Series: "depth", Crit: &nagios.Range{End: 10}}, Witness: tt.witness}
			clock := &at{began}
			checker, err := c.Build(Env{Name: "alert/depth", Now: clock.now, Series: tt.series})
			if err != nil {
				t.Fatal(err)
			}
			got := checker.Check(t.Context())
			if got.Status != tt.want || !strings.Contains(got.Message, tt.message) {
				t.Errorf("got %v: %q, want %v: %q", got.Status, got.Message, tt.want, tt.message)
			}
		})
	}
}

// TestAnAlertLeavesOutWhatItExcepts: a tag's value that the rule does not want.
func TestAnAlertLeavesOutWhatItExcepts(t *testing.T) {
	series := kept{{"", "drops_total"}: {
		recorded(time.Minute, map[string]string{"reason": "filter"}, 0, 1, 2),
		recorded(time.Minute, map[string]string{"reason": "full"}, 0, 0, 0),
	}}
	c := AlertConfig{Spec: rule.Spec{Series: "drops_total", Rate: 2 * time.Minute, Crit: &nagios.Range{}, Except: map[string][]string{"reason": {"filter"}}}}
	clock := &at{began.Add(2 * time.Minute)}
	checker, err := c.Build(Env{Name: "alert/drops", Now: clock.now, Series: series})
	if err != nil {
		t.Fatal(err)
	}
	if got := checker.Check(t.Context()); got.Status != verdict.Pass {
		t.Errorf("got %v: %s, want a pass", got.Status, got.Message)
	}
	c.Except = nil
	if checker, err = c.Build(Env{Name: "alert/drops", Now: clock.now, Series: series}); err != nil {
		t.Fatal(err)
	}
	if got := checker.Check(t.Context()); got.Status != verdict.Fail {
		t.Errorf("without: got %v: %s, want a failure", got.Status, got.Message)
	}
}
