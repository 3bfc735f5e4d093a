package runner

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func TestDependencies(t *testing.T) {
	t.Parallel()
	const page, email = verdict.Page, verdict.Email
	fail := answer(verdict.Fail, "refused")
	tests := []struct {
		name   string
		checks []Check
		do     func(*testing.T, *Runner)
		// For each check, its status and, after a colon, the check because of which.
		want    string
		failing string
	}{
		{
			"the cause counts, once",
			[]Check{{Name: "api", DependsOn: []string{"db"}, Run: fail}, {Name: "db", Run: fail}},
			nil, "db=fail api=unknown:db", "db",
		},
		{
			"the first cause is named, not the next",
			[]Check{{Name: "page", DependsOn: []string{"api"}, Run: fail}, {Name: "api", DependsOn: []string{"db"}, Run: fail}, {Name: "db", Run: fail}},
			nil, "db=fail api=unknown:db page=unknown:db", "db",
		},
		{
			"it is found over one that passes",
			[]Check{{Name: "page", DependsOn: []string{"api"}, Run: fail}, {Name: "api", DependsOn: []string{"db"}, Run: answer(verdict.Pass, "")}, {Name: "db", Run: fail}},
			nil, "db=fail page=unknown:db api=pass", "db",
		},
		{
			"without a failing cause a failure is its own",
			[]Check{{Name: "api", DependsOn: []string{"db", "gone"}, Run: fail}, {Name: "db", Run: answer(verdict.Warn, "slow")}},
			nil, "api=fail db=warn", "api",
		},
		{
			"what passes all the same passes",
			[]Check{{Name: "api", DependsOn: []string{"db"}, Run: answer(verdict.Pass, "")}, {Name: "db", Run: fail}},
			nil, "db=fail api=pass", "db",
		},
		{
			"a mail explains no page",
			[]Check{{Name: "api", Category: page, DependsOn: []string{"db"}, Run: fail}, {Name: "db", Category: email, Run: fail}},
			nil, "api=fail db=fail", "api, db",
		},
		{
			"a page explains a mail",
			[]Check{{Name: "api", Category: email, DependsOn: []string{"db"}, Run: fail}, {Name: "db", Category: page, Run: fail}},
			nil, "db=fail api=unknown:db", "db",
		},
		{
			"a cause in maintenance takes along what fails because of it",
			[]Check{{Name: "api", DependsOn: []string{"db"}, Run: fail}, {Name: "db", Run: fail}},
			func(t *testing.T, r *Runner) {
				if err := r.Maintain("db", time.Now().Add(time.Hour), "ann", "new disk"); err != nil {
					t.Error(err)
				}
			}, "api=pass:db db=pass", "",
		},
		{
			"but not what fails because of another too",
			[]Check{{Name: "api", DependsOn: []string{"a", "db", "z"}, Run: fail}, {Name: "a", Run: fail}, {Name: "db", Run: fail}, {Name: "z", Run: fail}},
			func(t *testing.T, r *Runner) {
				for _, name := range []string{"a", "z"} {
					if err := r.Maintain(name, time.Now().Add(time.Hour), "ann", "new disk"); err != nil {
						t.Error(err)
					}
				}
			}, "db=fail api=unknown:db a=pass z=pass", "db",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRunner()
				mustAdd(t, r, tt.checks...)
				start(t, r)
				if tt.do != nil {
					tt.do(t, r)
				}
				d := r.Digest(Query{Category: AllCategories})
				var got []string
				for _, c := range d.Checks {
					if c.Name == heartbeatName {
						continue
					}
					text := c.Name + "=" + c.Status.String()
					if c.Because != "" {
						text += ":" + c.Because
					}
					got = append(got, text)
				}
				if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
					t.Errorf("checks (-want +got):\n%s", diff)
				}
				if got := strings.Join(d.Failing, ", "); got != tt.failing {
					t.Errorf("failing %s, want %s", got, tt.failing)
				}
				// The fingerprint is that of the failing set, whoever suffers.
				alone := Digest{Checks: []CheckDigest{}}
				for _, c := range d.Checks {
					if c.Status == verdict.Fail {
						alone.Checks = append(alone.Checks, c)
					}
				}
				if alone.sum(); alone.Fingerprint != d.Fingerprint {
					t.Errorf("fingerprint %q, want %q, of %v", d.Fingerprint, alone.Fingerprint, d.Failing)
				}
			})
		})
	}
}

func TestAddRefusesACircle(t *testing.T) {
	t.Parallel()
	run := answer(verdict.Pass, "")
	r := newRunner()
	mustAdd(t, r, Check{Name: "a", DependsOn: []string{"b"}, Run: run}, Check{Name: "b", DependsOn: []string{"c"}, Run: run})
	for want, c := range map[string]Check{
		`add check "a": it depends on itself: a -> b -> c -> a`: {Name: "c", DependsOn: []string{"a"}, Run: run},
		`add check "d": it depends on itself: d -> d`:           {Name: "d", DependsOn: []string{"d"}, Run: run},
	} {
		if err := r.Add(c); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	mustAdd(t, r, Check{Name: "c", DependsOn: []string{"not-there-yet"}, Run: run})
}

func TestStartupStaysUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		status := verdict.Fail
		mustAdd(t, r,
			Check{Name: "a", Groups: []string{"startup"}, Run: func(context.Context) verdict.Result { return verdict.Result{Status: status} }},
			Check{Name: "b", Groups: []string{"ready"}, Run: answer(verdict.Fail, "")})
		h := r.Startup()
		got := []int{do(h, "GET", "/").Code}
		for _, status = range []verdict.Status{verdict.Fail, verdict.Unknown, verdict.Warn, verdict.Fail} {
			if err := r.RunNow(t.Context()); err != nil {
				t.Fatal(err)
			}
			got = append(got, do(h, "GET", "/").Code)
		}
		if diff := cmp.Diff([]int{503, 503, 503, 200, 200}, got); diff != "" {
			t.Errorf("codes (-want +got):\n%s", diff)
		}
		if code := do(newRunner().Startup(), "HEAD", "/").Code; code != 200 {
			t.Errorf("without checks of its group: %d, want 200", code)
		}
	})
}

// Machines act otherwise than people: see probes.go.
func TestProbesLookBehindWhatPeopleAreTold(t *testing.T) {
	t.Parallel()
	fail := answer(verdict.Fail, "")
	synctest.Test(t, func(t *testing.T) {
		for name, do := range map[string]func(*Runner) error{
			"maintenance": func(r *Runner) error { return r.Maintain("all", time.Now().Add(time.Hour), "ann", "new disk") },
			"healing":     func(r *Runner) error { return r.Heal("api", "restart", time.Now().Add(time.Minute)) },
			"a cause":     func(r *Runner) error { return r.Add(Check{Name: "db", Run: fail}) },
		} {
			r := newRunner()
			mustAdd(t, r, Check{Name: "api", Groups: []string{"live"}, DependsOn: []string{"db"}, Run: fail})
			start(t, r)
			before := codes(r)
			if err := do(r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if diff := cmp.Diff([][]int{{503, 503}, {200, 503}}, [][]int{before, codes(r)}); diff != "" {
				t.Errorf("%s: live and ready, before and with it (-want +got):\n%s", name, diff)
			}
		}
	})
}

func codes(r *Runner) []int {
	return []int{do(r.Live(), "GET", "/").Code, do(r.Ready(), "GET", "/").Code}
}

func TestFlappingIsDampedAndItsEndIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		var flaps atomic.Bool
		flaps.Store(true)
		n := 0
		mustAdd(t, r, Check{Name: "a", Every: time.Second, Run: func(context.Context) verdict.Result {
			n++
			if flaps.Load() && n%2 == 0 {
				return verdict.Result{Status: verdict.Fail, Message: "refused"}
			}
			return verdict.Result{Message: "fine"}
		}})
		stop := start(t, r)
		time.Sleep(time.Hour)
		synctest.Wait()
		fingerprint := r.Digest(Query{}).Fingerprint
		for range 100 {
			time.Sleep(time.Second)
			synctest.Wait()
			if d := r.Digest(Query{}); d.Status != verdict.Fail || d.Fingerprint != fingerprint || len(d.Notes) != 1 || d.Notes[0] != "flapping: a" {
				t.Fatalf("%v, fingerprint %s, notes %q; want fail, %s, flapping: a", d.Status, d.Fingerprint, d.Notes, fingerprint)
			}
		}
		flaps.Store(false)
		time.Sleep(time.Minute)
		stop()
		if c := get(t, r, "a"); c.Status != verdict.Pass || c.Flapping || c.Changes > 12 {
			t.Errorf("afterwards: %v, flapping %v, %d changes; want pass, false, 12 at most", c.Status, c.Flapping, c.Changes)
		}
		for _, want := range []string{"check=a flapping=true", "check=a flapping=false", "from=fail to=pass message=fine"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("log has no %q", want)
			}
		}
		if n := strings.Count(log.String(), "flapping="); n != 2 {
			t.Errorf("%d lines about flapping, want 2", n)
		}
	})
}
