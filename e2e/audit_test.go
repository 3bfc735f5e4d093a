package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestADeleteThatTheWatchHides deletes a pod by force, so that its DELETED
// event alone tells of it, and hides this event: the audit finds it out. Other
// pods come and go: an audit waits until the watch has come as far as its
// list, and the watch of a quiet stream only does so with a bookmark, which
// comes about once a minute.
func TestADeleteThatTheWatchHides(t *testing.T) {
	needCluster(t)
	s := newSession(t, "hidden")
	p := &proxy{hide: func(line []byte) bool {
		var e struct {
			Type   string
			Object struct{ Metadata struct{ Name string } }
		}
		return bytes.HasPrefix(line, []byte(`{"type":"DELETED"`)) && json.Unmarshal(line, &e) == nil && e.Object.Metadata.Name == "hidden-0"
	}}
	startProxy(t, s.dir, p)
	a := s.start(t, configOf(s.ns))
	a.corrections = 1
	l := load{}
	l.start(t.Context(), t, s.ns, 100_000, 10)
	hidden, seen := pods(t, s.ns, "hidden", 1, nil), pods(t, s.ns, "seen", 5, nil)
	hidden.tell(s.want, podRuns)
	seen.tell(s.want, podRuns)
	s.hook.tells(t, time.Minute, s.want)
	now := int64(0)
	for _, name := range []string{"seen-0", "hidden-0"} {
		if err := env.client.CoreV1().Pods(s.ns).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	s.want[hidden["hidden-0"]], s.want[seen["seen-0"]] = podCut, podCut
	s.hook.tells(t, 10*time.Second, s.want)
	took := time.Since(began)
	t.Logf("told after %s, with an audit every second", took.Round(time.Millisecond))
	l.finish(t)
	maps.Copy(s.want, l.stories())
	s.hook.tells(t, time.Minute, s.want)
	quiet(t, time.Minute)
	if body := metrics(t); total(body, "outrider_audit_corrections_total", `stream="pods/`+s.ns+`"`, `kind="deleted"`) != 1 {
		t.Error("the correction of a deleted pod is not counted")
	}
	a.stop()
	if n, w := p.hidden.Load(), p.watches.Load(); n != 1 || w == 0 {
		t.Errorf("the proxy hid %d events of %d watches, want 1", n, w)
	}
	last := lastOf(s.told(t))
	if e := last[hidden["hidden-0"]]; !e.Data.ObservedLate {
		t.Errorf("the end is not marked as found late: %s", e.body)
	}
	if e := last[seen["seen-0"]]; e.Data.ObservedLate {
		t.Errorf("an end that the watch told is marked as found late: %s", e.body)
	}
	noGaps(t, "webhook", s.hook.received())
}

// TestAuditsUnderLoad audits every second for about a minute under load; for 360
// audits with OUTRIDER_LONG. The watch is late by more than a change takes to
// follow another, and what it has not told yet is no finding.
func TestAuditsUnderLoad(t *testing.T) {
	needCluster(t)
	audits := 30.0
	if os.Getenv("OUTRIDER_LONG") != "" {
		audits = 360
	}
	s := newSession(t, "audits")
	startProxy(t, s.dir, &proxy{delay: 300 * time.Millisecond})
	a := s.start(t, configOf(s.ns))
	l, began := load{jobs: 20}, time.Now()
	l.start(t.Context(), t, s.ns, 1_000_000, 40)
	waitFor(t, time.Duration(audits)*3*time.Second, fmt.Sprintf("%v audits of each stream", audits), func() bool {
		body := metrics(t)
		return total(body, "outrider_audit_runs_total", `stream="pods/`+s.ns+`"`) >= audits &&
			total(body, "outrider_audit_runs_total", `stream="jobs/`+s.ns+`"`) >= audits
	})
	t.Logf("%v audits of each stream in %s", audits, time.Since(began).Round(time.Second))
	l.finish(t)
	drained(t, s.ns, time.Minute)
	s.want = l.stories()
	s.hook.tells(t, time.Minute, s.want)
	a.stop()
	fromTheWatch(t, s.outcome(t))
}
