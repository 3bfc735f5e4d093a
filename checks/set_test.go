package checks

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// says is a kind of check that says what it is told to.
type says struct {
	Text string
	on   *told
}

// told is what a check says, and what it was asked.
type told struct {
	mu     sync.Mutex
	result verdict.Result
	folded []Folded
	asked  int
}

func (t *told) set(r verdict.Result, members ...Folded) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result, t.folded = r, members
}

func (c *says) Build(Env) (Checker, error) {
	if c.Text == "never" {
		return nil, errors.New("it cannot be")
	}
	if c.Text == "digest" {
		return folder{c.on}, nil
	}
	return c.on, nil
}

func (t *told) Check(context.Context) verdict.Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	return t.result
}

type folder struct{ *told }

func (f folder) Folded() ([]Folded, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.folded, f.result.Status != verdict.Fail
}

func (f folder) CheckApart(ctx context.Context) verdict.Result { return f.Check(ctx) }

func sayItem(name, text string, on *told) Item {
	return Item{
		Item: config.Item{Name: name, Kind: "says", Config: &says{Text: text, on: on}}, Category: verdict.Page,
		Every: 10 * time.Second, FailAfter: 1, PassAfter: 1,
	}
}

func newSet(t *testing.T, items ...Item) *Set {
	t.Helper()
	s, err := New(Options{Items: items, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAReloadOfChecks(t *testing.T) {
	t.Parallel()
	a, b, c := &told{}, &told{}, &told{}
	s := newSet(t, sayItem("a", "x", a), sayItem("b", "x", b))
	before := s.Checks()
	reload := func(items []Item, want ...string) {
		t.Helper()
		applied, restart, err := s.Reload(t.Context(), &items)
		if err != nil || len(restart) > 0 {
			t.Errorf("reload: %v, after a restart %v", err, restart)
		}
		if diff := cmp.Diff(want, applied); diff != "" {
			t.Errorf("applied (-want +got):\n%s", diff)
		}
	}
	reload([]Item{sayItem("a", "x", a), sayItem("b", "x", b)})
	b.set(verdict.Result{Status: verdict.Fail})
	c.set(verdict.Result{Status: verdict.Warn, Message: "another"})
	slower := sayItem("a", "x", a)
	slower.Every = time.Minute
	asks := s.current()[0].checker
	reload([]Item{slower, sayItem("b", "y", c), sayItem("c", "x", c)}, "check a: changed", "check b: changed", "check c: added")
	if s.current()[0].checker != asks {
		t.Error("a check that is only asked more rarely has forgotten what it knew")
	}
	if r := before[1].Run(t.Context()); r.Status != verdict.Warn || r.Message != "another" {
		t.Errorf("what the runner has still asks the old check: %+v", r)
	}
	bad := []Item{sayItem("d", "never", c)}
	if applied, _, err := s.Reload(t.Context(), &bad); err == nil || err.Error() != "check d: it cannot be" || len(applied) > 0 {
		t.Errorf("got %v and %v, want it refused", applied, err)
	}
	reload([]Item{sayItem("c", "x", c)}, "check a: removed", "check b: removed")
	if r := before[0].Run(t.Context()); r.Status != verdict.Unknown {
		t.Errorf("a check that was taken out says %+v", r)
	}
	var names []string
	for _, c := range s.Checks() {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"c"}) {
		t.Errorf("checks %v, want c", names)
	}
	if _, _, err := s.Reload(t.Context(), 1); err == nil {
		t.Error("a reload of something else was taken")
	}
}

// TestANeighboursChecksAreShownAsOurOwn as long as its digest has them.
func TestANeighboursChecksAreShownAsOurOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &told{}
		api.set(verdict.Result{Message: "2 checks"}, Folded{Name: "db", Status: verdict.Fail, Message: "refused"}, Folded{Name: "disk", Category: verdict.Email})
		s := newSet(t, sayItem("api", "digest", api))
		r := runner.New(runner.Options{Log: slog.New(slog.DiscardHandler)})
		if err := r.Add(s.Checks()...); err != nil {
			t.Fatal(err)
		}
		s.Attach(r)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.Run(ctx) })
		wg.Go(func() { _ = s.Run(ctx) })
		show := func() (out []string) {
			synctest.Wait()
			for _, c := range r.Digest(runner.Query{Category: runner.AllCategories}).Checks {
				if strings.HasPrefix(c.Name, "api") {
					out = append(out, c.Name+" "+c.Status.String()+" "+string(c.Category))
				}
			}
			slices.Sort(out)
			return out
		}
		want := func(lines ...string) {
			t.Helper()
			time.Sleep(25 * time.Second)
			if diff := cmp.Diff(lines, show()); diff != "" {
				t.Errorf("digest (-want +got):\n%s", diff)
			}
		}
		want("api pass page", "api/db fail page", "api/disk pass email")
		api.set(verdict.Result{}, Folded{Name: "db"}, Folded{Name: "queue", Status: verdict.Warn})
		want("api pass page", "api/db pass page", "api/queue warn page")
		// It does not answer: what it said last is no failure of its own.
		api.set(verdict.Result{Status: verdict.Fail, Message: "refused"}, Folded{Name: "db", Status: verdict.Fail}, Folded{Name: "queue"})
		want("api fail page", "api/db unknown page", "api/queue unknown page")
		if _, _, err := s.Reload(t.Context(), &[]Item{}); err != nil {
			t.Error(err)
		}
		r.Remove("api") // the agent does
		want()
		cancel()
		wg.Wait()
	})
}

// TestHeartbeatsOutliveARestart: an agent that restarts every half hour notices too.
func TestHeartbeatsOutliveARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		beat := Item{
			Item:     config.Item{Name: "backup", Kind: "heartbeat", Config: &HeartbeatConfig{ExpectEvery: time.Hour}},
			Category: verdict.Page, Every: 10 * time.Second, FailAfter: 1, PassAfter: 1,
		}
		first := newSet(t, beat)
		mux := http.NewServeMux()
		for name, h := range first.Actions() {
			mux.Handle("/act/"+name, h)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/act/heartbeat/backup", nil))
		if w.Code != http.StatusNoContent {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		ask := func(s *Set) verdict.Status { return s.Checks()[0].Run(t.Context()).Status }
		if got := ask(first); got != verdict.Pass {
			t.Errorf("after a sign of life: %v", got)
		}
		memory, err := first.Remember()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		second := newSet(t, beat)
		if err := second.Restore(memory); err != nil {
			t.Fatal(err)
		}
		if got := ask(second); got != verdict.Pass {
			t.Errorf("after a restart: %v, want pass", got)
		}
		time.Sleep(31 * time.Minute)
		if got := ask(second); got != verdict.Fail {
			t.Errorf("an hour after the sign of life: %v, want fail", got)
		}
		if err := second.Restore([]byte("{")); err == nil {
			t.Error("noise was restored")
		}
	})
}

// picky is a runner that does not take every check.
type picky struct {
	refuses map[string]bool
	has     map[string]bool
}

func (p *picky) Add(checks ...runner.Check) error {
	for _, c := range checks {
		if p.refuses[c.Name] {
			return errors.New("there is one of that name")
		}
		p.has[c.Name] = true
	}
	return nil
}

func (p *picky) Renew(...runner.Check) error { return nil }

func (p *picky) Remove(names ...string) {
	for _, name := range names {
		delete(p.has, name)
	}
}

// TestAMemberThatCannotBeShown is spoken for by the check of its digest, is tried again,
// and is complained of once.
func TestAMemberThatCannotBeShown(t *testing.T) {
	t.Parallel()
	api := &told{}
	api.set(verdict.Result{}, Folded{Name: "db", Status: verdict.Fail}, Folded{Name: "disk"})
	var log strings.Builder
	s, err := New(Options{Items: []Item{sayItem("api", "digest", api)}, Log: slog.New(slog.NewTextHandler(&log, nil)), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	r := &picky{refuses: map[string]bool{"api/db": true}, has: map[string]bool{}}
	s.Attach(r)
	for range 3 {
		s.fold()
	}
	if s.shows("api") || r.has["api/db"] || !r.has["api/disk"] {
		t.Errorf("the digest's members count as shown: %t, the runner has %v; want api/disk alone, and the digest to speak for api/db", s.shows("api"), r.has)
	}
	if n := strings.Count(log.String(), "check=api/db"); n != 1 {
		t.Errorf("it was complained of %d times, want once:\n%s", n, log.String())
	}
	r.refuses = nil
	if s.fold(); !s.shows("api") || !r.has["api/db"] {
		t.Errorf("once it can be, shown: %t, the runner has %v", s.shows("api"), r.has)
	}
}
