package alerts

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	ours "github.com/outrider-agent/outrider/alerts"
	"github.com/outrider-agent/outrider/alerts/alertstest"
	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/e2e/nagios"
)

const (
	nagiosPoll     = time.Minute // of a history, from one poll to the next
	nagiosInterval = 2           // seconds that Nagios takes for it

	// nagiosPatience is how long all histories may take: the longest has 55 polls.
	nagiosPatience = 8 * time.Minute
)

// TestNagiosSeesWhatTheAgentSees plays the histories through one real Nagios, as services
// of one host, by the configuration that is rendered for it. The plugin is the real one,
// and the digest has the results of the agent's own checks.
func TestNagiosSeesWhatTheAgentSees(t *testing.T) {
	t.Parallel()
	command := nagiosCommand(t)
	histories := alertstest.Histories(t)
	// The service outrider-rules asks for the first rule, too, so that is none of theirs.
	rules := []ours.Rule{ruleOf(alertstest.History{Name: "one-for-all", Rule: histories[0].Rule})}
	for _, h := range histories {
		rules = append(rules, ruleOf(h))
	}
	files := renderOne(t, ours.Nagios, rules...)
	files["outrider.cfg"] = shippedForNagios(t)
	a := newPlayed(t, histories)
	began := time.Now()
	n := nagios.Start(t, nagios.Options{
		Command:  command,
		Plugins:  map[string]string{"check_digest": builtOutrider(t)},
		Files:    files,
		Hosts:    []nagios.Host{{Name: "one", Port: a.port, Args: "null"}},
		Interval: nagiosInterval,
		Silent:   true,
	})
	a.wait(t)
	states := n.States()
	n.Stop()
	n.Content(t)
	t.Logf("Nagios saw %d histories in %.0f s", len(histories), time.Since(began).Seconds())
	for _, h := range histories {
		t.Run(h.Name, func(t *testing.T) {
			service := "outrider-alert-" + h.Name
			got := nagiosEpisodes(t, n.Alerts("one", service), alertstest.Length(t, h.Series))
			want := wanted(h, ours.Nagios)
			// What begins and ends is found out by the next poll, half a poll later as a
			// rule, which is taken off; so it is at most half a poll early or late.
			if !alertstest.Agree(t, want, got, nagiosPoll/2) {
				t.Errorf("got %s, want %s", got, want)
			}
			if _, differs := h.Differs[ours.Nagios]; differs && alertstest.Agree(t, h.Want, got, nagiosPoll/2) {
				t.Errorf("got %s, which is what the agent sees: want no difference in histories.yaml", got)
			}
			// Each poll is a minute of the history here, so it must be one in Nagios.
			if s := states["one/"+service]; s.Every != 1 || s.Again != 1 {
				t.Errorf("Nagios polls every %v minutes, and every %v to try again, want 1", s.Every, s.Again)
			}
		})
	}
}

// moment finds in a plugin's line when in a history it was.
var moment = regexp.MustCompile(`\(at (\S+)\)`) // read-only

// nagiosEpisodes are those that Nagios was sure of before a history was over.
func nagiosEpisodes(t *testing.T, alerts []nagios.Alert, length time.Duration) (out []alertstest.Episode) {
	t.Helper()
	level, began := "", time.Duration(0)
	for _, a := range alerts {
		if !a.Hard {
			continue
		}
		m := moment.FindStringSubmatch(a.Text)
		if m == nil {
			t.Fatalf("got %s: %q, want a moment of the history", a.State, a.Text)
		}
		at, err := time.ParseDuration(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if at > length {
			break
		}
		at -= nagiosPoll / 2
		if level != "" {
			out = append(out, alertstest.Episode(fmt.Sprintf("%s %s-%s", level, alertstest.Short(began), alertstest.Short(at))))
		}
		level, began = map[string]string{"OK": "", "WARNING": "warn", "CRITICAL": "fail", "UNKNOWN": "unknown"}[a.State], at
	}
	if level != "" {
		out = append(out, alertstest.Episode(fmt.Sprintf("%s %s-", level, alertstest.Short(began))))
	}
	return out
}

// A played agent has a check for each history, and answers those who poll it. Time is
// counted in polls: at each a history goes on by a minute. So a slow machine plays all of
// it more slowly, and Nagios sees no less.
type played struct {
	port    string
	results map[string][]verdict.Result // of the checks, at each step

	mu    sync.Mutex
	polls map[string]int
}

func newPlayed(t *testing.T, histories []alertstest.History) *played {
	t.Helper()
	p := &played{results: map[string][]verdict.Result{}, polls: map[string]int{}}
	for _, h := range histories {
		p.results["alert/"+h.Name] = agentResults(t, h)
	}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	_, p.port, _ = net.SplitHostPort(s.Listener.Addr().String())
	return p
}

// wait waits until all histories are over, and Nagios has taken in all that it was told:
// it does not ask again before that.
func (p *played) wait(t *testing.T) {
	t.Helper()
	left := maps.Clone(p.results)
	deadline := time.After(nagiosPatience)
	for tick := time.Tick(200 * time.Millisecond); len(left) > 0; {
		p.mu.Lock()
		maps.DeleteFunc(left, func(check string, results []verdict.Result) bool {
			return stepOf(p.polls[check]-2) >= len(results)
		})
		p.mu.Unlock()
		select {
		case <-tick:
		case <-t.Context().Done():
			return
		case <-deadline:
			t.Fatalf("waited %s for Nagios to poll all histories to their end, of %d it did not", nagiosPatience, len(left))
		}
	}
}

// stepOf is the step of a history at the poll of that number. Polls are in the middle of
// a minute: what changes by the minute is seen as it is.
func stepOf(poll int) int {
	return int((nagiosPoll/2 + time.Duration(poll)*nagiosPoll) / alertstest.Step)
}

// ServeHTTP answers with a digest of the check that is asked for; other checks pass.
func (p *played) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("check")
	c := runner.CheckDigest{Name: name, Category: verdict.Page, Groups: []string{}}
	if results := p.results[name]; results != nil {
		p.mu.Lock()
		step := stepOf(p.polls[name])
		p.polls[name]++
		p.mu.Unlock()
		result := results[min(step, len(results)-1)]
		c.Status, c.Value, c.Unit = result.Status, result.Value, result.Unit
		c.Message = "at " + alertstest.Short(time.Duration(step)*alertstest.Step)
	}
	d := runner.Digest{Status: c.Status, ServiceID: "histories", Notes: []string{}, Failing: []string{}, Checks: []runner.CheckDigest{c}}
	w.Header().Set("Content-Type", "application/health+json")
	_ = json.NewEncoder(w).Encode(d) // a plugin that has gone is Nagios' affair
}

// agentResults are those of the agent's check of a history's rule, at each step.
func agentResults(t *testing.T, h alertstest.History) (out []verdict.Result) {
	t.Helper()
	now := alertstest.Start
	c := &checks.AlertConfig{Spec: h.Rule}
	check, err := c.Build(checks.Env{Name: h.Name, Now: func() time.Time { return now }, Series: &seriesOf{t, h}})
	if err != nil {
		t.Fatal(err)
	}
	for end := now.Add(alertstest.Length(t, h.Series)); !now.After(end); now = now.Add(alertstest.Step) {
		out = append(out, check.Check(t.Context()))
	}
	return out
}

// seriesOf finds a history's series.
type seriesOf struct {
	t *testing.T
	h alertstest.History
}

// Select implements [checks.Series].
func (s *seriesOf) Select(_, name string, tags map[string]string) (out []checks.Samples) {
	of := rule.Rule{Series: rule.Selector{Name: name, Tags: tags}}
	for _, found := range alertstest.Input(s.t, of, s.h.Series, alertstest.Step).Series {
		out = append(out, found)
	}
	return out
}

// builtOutrider is the command, built for this test.
func builtOutrider(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outrider")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../cmd/outrider")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build outrider: %v\n%s", err, strings.TrimSpace(string(out)))
	}
	return path
}
