package runner

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

var update = flag.Bool("update", false, "write the golden files")

func newRunner() *Runner {
	return New(Options{Service: "outrider", Version: "v1.2.3", Host: "host-1", PID: 42})
}

func answer(s verdict.Status, message string) func(context.Context) verdict.Result {
	return func(context.Context) verdict.Result { return verdict.Result{Status: s, Message: message} }
}

func mustAdd(t testing.TB, r *Runner, checks ...Check) {
	t.Helper()
	if err := r.Add(checks...); err != nil {
		t.Fatal(err)
	}
}

// start runs r until the test ends or stop is called.
func start(t *testing.T, r *Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx); close(ended) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	synctest.Wait()
	return stop
}

// get returns what the digest of all categories says of a check.
func get(t *testing.T, r *Runner, name string) CheckDigest {
	t.Helper()
	for _, c := range r.Digest(Query{Category: AllCategories}).Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %s in the digest", name)
	return CheckDigest{}
}

func names(d Digest) (out []string) {
	for _, c := range d.Checks {
		out = append(out, c.Name)
	}
	return out
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	run := answer(verdict.Pass, "")
	tests := []struct {
		name  string
		check Check
		want  string
	}{
		{"an empty name", Check{Run: run}, `add check "": name, want 1 to 200 of [a-z0-9._/-]`},
		{"a name with other characters", Check{Name: "Disk Full", Run: run}, `add check "Disk Full": name, want 1 to 200 of [a-z0-9._/-]`},
		{"a name too long", Check{Name: strings.Repeat("x", 201), Run: run}, `add check "` + strings.Repeat("x", 201) + `": name, want 1 to 200 of [a-z0-9._/-]`},
		{"the heartbeat's name", Check{Name: "runner", Run: run}, `add check "runner": name is taken by the runner's own heartbeat`},
		{"no function", Check{Name: "a"}, `add check "a": run: nil, want a function`},
		{"an unknown category", Check{Name: "a", Category: "sms", Run: run}, `add check "a": category "sms", want page or email`},
		{"an unknown group", Check{Name: "a", Groups: []string{"alive"}, Run: run}, `add check "a": group "alive", want live, ready or startup`},
		{"a negative interval", Check{Name: "a", Every: -1, Run: run}, `add check "a": every -1ns, want more than 0`},
		{"a timeout longer than the interval", Check{Name: "a", Every: time.Second, Timeout: 2 * time.Second, Run: run}, `add check "a": timeout 2s, want at most every (1s)`},
		{"a staleness that a slow run would reach", Check{Name: "a", Every: 10 * time.Second, Timeout: 2 * time.Second, StaleAfter: 11 * time.Second, Run: run}, `add check "a": stale_after 11s, want at least every and timeout together (12s)`},
		{"a negative threshold", Check{Name: "a", FailAfter: -1, Run: run}, `add check "a": fail_after -1, pass_after 1, want at least 1`},
		{
			"a name that is taken",
			Check{Name: "taken", Category: verdict.Email, Groups: []string{"ready", "live"}, Runbook: "https://b", Run: run},
			`add check "taken" (email every 10s, group live and ready, runbook https://b): name is taken by "taken" (page every 30s, runbook https://a)`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRunner()
			mustAdd(t, r, Check{Name: "taken", Every: 30 * time.Second, Runbook: "https://a", Run: run})
			err := r.Add(Check{Name: "good", Run: run}, tt.check)
			if err == nil || err.Error() != tt.want {
				t.Errorf("\ngot  %v\nwant %s", err, tt.want)
			}
			if diff := cmp.Diff([]string{"runner", "taken"}, names(r.Digest(Query{}))); diff != "" {
				t.Errorf("a refused call changed the checks (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAddRefusesANameGivenTwice(t *testing.T) {
	t.Parallel()
	r := newRunner()
	c := Check{Name: "a", Run: answer(verdict.Pass, "")}
	want := `add check "a" (page every 10s): name is taken by "a" (page every 10s)`
	if err := r.Add(c, c); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		check      Check
		every      time.Duration
		timeout    time.Duration
		staleAfter time.Duration
	}{
		{"nothing given", Check{}, 10 * time.Second, 5 * time.Second, 30 * time.Second},
		{"a short interval", Check{Every: time.Second}, time.Second, 800 * time.Millisecond, 3 * time.Second},
		{"a long interval", Check{Every: time.Hour}, time.Hour, 5 * time.Second, 3 * time.Hour},
	}
	for _, tt := range tests {
		c := tt.check.withDefaults()
		if c.Every != tt.every || c.Timeout != tt.timeout || c.StaleAfter != tt.staleAfter {
			t.Errorf("%s: every %v, timeout %v, stale after %v; want %v, %v, %v", tt.name,
				c.Every, c.Timeout, c.StaleAfter, tt.every, tt.timeout, tt.staleAfter)
		}
		if c.Category != verdict.Page || c.FailAfter != 1 || c.PassAfter != 1 {
			t.Errorf("%s: category %s, fail after %d, pass after %d; want page, 1, 1", tt.name, c.Category, c.FailAfter, c.PassAfter)
		}
	}
	r := New(Options{})
	d := r.Digest(Query{})
	if d.PID != os.Getpid() || d.Host == "" {
		t.Errorf("pid %d, host %q; want those of this process", d.PID, d.Host)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	r := newRunner()
	mustAdd(t, r, Check{Name: "a", Run: answer(verdict.Pass, "")}, Check{Name: "b", Run: answer(verdict.Pass, "")})
	r.Remove("a", "never-seen", "runner")
	if diff := cmp.Diff([]string{"b", "runner"}, names(r.Digest(Query{}))); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	if err := r.RunNow(t.Context(), "a", "b"); err == nil || err.Error() != "run now: check a: not known" {
		t.Errorf("RunNow of a removed check: %v", err)
	}
	mustAdd(t, r, Check{Name: "a", Run: answer(verdict.Pass, "")})
}

func TestARenewedCheckKeepsItsVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		runs := map[string]int{}
		check := func(every time.Duration, as string, depends ...string) Check {
			return Check{Name: "db", Every: every, DependsOn: depends, Run: func(context.Context) verdict.Result {
				runs[as]++
				return verdict.Result{Status: verdict.Fail, Message: as}
			}}
		}
		if err := r.Add(check(time.Minute, "old")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		before := r.Digest(Query{Category: "all"})
		if err := r.Renew(check(time.Minute, "same")); err != nil { // nothing but another function
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if runs["old"] != 1 || runs["same"] != 0 {
			t.Errorf("%v: want it to go on undisturbed", runs)
		}
		if err := r.Renew(check(time.Second, "new")); err != nil {
			t.Error(err)
		}
		time.Sleep(3*time.Second + time.Millisecond)
		synctest.Wait()
		after := r.Digest(Query{Category: "all"})
		if runs["new"] < 3 || len(after.Failing) != 1 || after.Failing[0] != before.Failing[0] || !after.Since.Equal(before.Since) || after.Fingerprint != before.Fingerprint {
			t.Errorf("%v: %v since %v, want it to fail since %v and to run every second", runs, after.Failing, after.Since, before.Since)
		}
		for _, c := range []Check{check(-1, "bad"), check(time.Second, "circle", "db"), {Name: "other", Run: check(0, "").Run}} {
			if err := r.Renew(c); err == nil {
				t.Errorf("%v: want it refused", c)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
