package runner

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// zooChecks come to every status.
func zooChecks() []Check {
	lag := 0.25
	return []Check{
		{Name: "stream/pods", Groups: []string{"ready", "live"}, Runbook: "https://runbooks/stream", Run: func(context.Context) verdict.Result {
			time.Sleep(15 * time.Millisecond) // sleep: in the bubble of the caller
			return verdict.Result{Message: "0.25 s behind", Value: &lag, Unit: "seconds"}
		}},
		{Name: "sink/platform", Groups: []string{"ready"}, FailAfter: 2, Run: answer(verdict.Fail, "POST <http://platform> | status 503, want 2xx")},
		{Name: "disk", Run: answer(verdict.Warn, "91 % full, want <= 90 %")},
		{Name: "license", Category: verdict.Email, Run: answer(verdict.Fail, "ends in 3 days, want 14")},
		{Name: "a-neighbour", Groups: []string{"startup"}, Every: time.Hour, Run: answer(verdict.Unknown, "no such process")},
	}
}

// zoo returns a runner that shows every status, in a bubble at 2000-01-01.
func zoo(t *testing.T) *Runner {
	t.Helper()
	r := newRunner()
	mustAdd(t, r, zooChecks()...)
	for range 2 {
		if err := r.RunNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // sleep: in the bubble of the caller
	}
	return r
}

func TestDigestBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		golden(t, "digest.json", renderJSON(r.Digest(Query{Category: AllCategories}), true))
		time.Sleep(25 * time.Second)
		golden(t, "digest-stale.json", renderJSON(r.Digest(Query{Category: AllCategories}), true))
		golden(t, "digest-empty.json", renderJSON(r.Digest(Query{Category: "email", Group: "live"}), true))
		for range 50 {
			a, b := renderJSON(r.Digest(Query{}), true), renderJSON(r.Digest(Query{}), true)
			if diff := cmp.Diff(a, b); diff != "" {
				t.Fatalf("two digests of one moment differ:\n%s", diff)
			}
		}
	})
}

func TestDigestCanBeReadBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		want := zoo(t).Digest(Query{Category: AllCategories})
		var got Digest
		if err := json.Unmarshal(renderJSON(want, true), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(CheckDigest{}), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
	})
}

func TestQuery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		tests := []struct {
			name   string
			query  Query
			want   []string
			status verdict.Status
		}{
			{"nothing given is category page", Query{}, []string{"sink/platform", "a-neighbour", "runner", "disk", "stream/pods"}, verdict.Fail},
			{"email", Query{Category: "email"}, []string{"license"}, verdict.Fail},
			{"all", Query{Category: "all"}, []string{"license", "sink/platform", "a-neighbour", "runner", "disk", "stream/pods"}, verdict.Fail},
			{"one check of any category", Query{Check: "license"}, []string{"license"}, verdict.Fail},
			{"one check of another category", Query{Check: "license", Category: "page"}, nil, verdict.Pass},
			{"startup", Query{Group: "startup"}, []string{"a-neighbour"}, verdict.Unknown},
			{"live", Query{Group: "live"}, []string{"runner", "stream/pods"}, verdict.Unknown},
			{"ready, which live belongs to", Query{Group: "ready"}, []string{"sink/platform", "runner", "stream/pods"}, verdict.Fail},
			{"no check at all passes", Query{Category: "email", Group: "live"}, nil, verdict.Pass},
			{"words that it does not know leave nothing out", Query{Category: "sms", Group: "dead"}, []string{"license", "sink/platform", "a-neighbour", "runner", "disk", "stream/pods"}, verdict.Fail},
			{"a moment ahead shows what gets stale until then", Query{Group: "live", Now: time.Now().Add(time.Minute)}, []string{"runner", "stream/pods"}, verdict.Fail},
		}
		for _, tt := range tests {
			d := r.Digest(tt.query)
			if diff := cmp.Diff(tt.want, names(d)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
			if d.Status != tt.status {
				t.Errorf("%s: %v, want %v", tt.name, d.Status, tt.status)
			}
		}
	})
}

func TestFingerprintAndSince(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		status := map[string]verdict.Status{}
		for _, name := range []string{"a", "b", "c"} {
			mustAdd(t, r, Check{Name: name, Category: verdict.Email, Every: time.Hour, Run: func(context.Context) verdict.Result {
				return verdict.Result{Status: status[name]}
			}})
		}
		begin := time.Now()
		seen := map[string]string{"": ""}
		steps := []struct {
			name    string
			a, b, c verdict.Status
			same    string // the step whose fingerprint this one has
			since   time.Duration
		}{
			{"all pass", verdict.Pass, verdict.Pass, verdict.Pass, "", 0},
			{"a warn is in no fingerprint", verdict.Warn, verdict.Pass, verdict.Pass, "", time.Minute},
			{"a fails", verdict.Fail, verdict.Pass, verdict.Pass, "a fails", 2 * time.Minute},
			{"a and b fail", verdict.Fail, verdict.Fail, verdict.Pass, "a and b fail", 2 * time.Minute},
			{"b fails", verdict.Pass, verdict.Fail, verdict.Pass, "b fails", 3 * time.Minute},
			{"b is unknown", verdict.Pass, verdict.Unknown, verdict.Pass, "b is unknown", 5 * time.Minute},
			{"a fails again", verdict.Fail, verdict.Pass, verdict.Warn, "a fails", 6 * time.Minute},
			{"all pass again", verdict.Pass, verdict.Pass, verdict.Pass, "", 7 * time.Minute},
		}
		for i, step := range steps {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Minute)))
			status["a"], status["b"], status["c"] = step.a, step.b, step.c
			if err := r.RunNow(t.Context()); err != nil {
				t.Fatal(err)
			}
			d := r.Digest(Query{Category: "email"})
			if got := d.Since.Sub(begin); got != step.since {
				t.Errorf("%s: since %v, want %v", step.name, got, step.since)
			}
			if want, ok := seen[step.same]; ok && d.Fingerprint != want {
				t.Errorf("%s: fingerprint %q, want %q as for %q", step.name, d.Fingerprint, want, step.same)
			} else if !ok {
				for other, f := range seen {
					if f == d.Fingerprint {
						t.Errorf("%s: fingerprint %q, the same as for %q", step.name, f, other)
					}
				}
				seen[step.same] = d.Fingerprint
			}
		}
	})
}
