package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// seeded returns random numbers that OUTRIDER_SEED repeats.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("OUTRIDER_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("OUTRIDER_SEED: %v", err)
		}
	}
	t.Logf("OUTRIDER_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// inFlight is how long the receiver takes to answer, so that there always are
// changes on their way when the agent is killed.
const inFlight = 100 * time.Millisecond

// TestKilledTwentyTimes kills the agent at random moments under load: while it
// starts as well as later.
func TestKilledTwentyTimes(t *testing.T) {
	needCluster(t)
	s, random := newSession(t, "killed"), seeded(t)
	s.killed = true
	s.hook.answers(0, inFlight)
	a := s.start(t, configOf(s.ns))
	l := load{jobs: 20}
	l.start(t.Context(), t, s.ns, 100_000, 40)
	for i := range 20 {
		time.Sleep(time.Duration(100+random.IntN(1900)) * time.Millisecond) // sleep: the moment is random, that is the test
		a.kill()
		a = launch(t, s.dir, configOf(s.ns), "")
		if i%2 == 0 {
			a.ready()
		}
	}
	a.ready()
	l.finish(t)
	drained(t, s.ns, time.Minute)
	s.want = l.stories()
	s.hook.tells(t, time.Minute, s.want)
	a.stop()
	fromTheWatch(t, s.outcome(t))
}

// A place is one between reading an event and acknowledging it.
type place struct {
	name  string
	times int // the agent is killed when it has passed it so often
}

// first are the places that a first list alone passes, in the order in which
// it does: after the second there is none again. Read-only.
var first = []place{{"list/first", 1}, {"list/kept", 1}}

// underLoad are the places that every change passes, or every flush. Read-only.
var underLoad = []place{
	{"watch/read", 40},
	{"watch/pending", 40},
	{"watch/reduced", 30},
	{"watch/appended", 20},
	{"ledger/begin", 10},
	{"ledger/change", 20},
	{"ledger/commit", 10},
	{"ledger/committed", 10},
	{"ledger/settled", 10},
	{"ledger/save", 5},
	{"delivery/read", 5},
	{"delivery/sending", 20},
	{"delivery/sent", 20},
	{"delivery/acknowledged", 20},
	{"delivery/saved", 3},
	{"flush/taken", 2},
	{"flush/chunk", 2},
	{"flush/durable", 2},
}

// TestKilledAtEveryPlace kills the agent once at every step between reading an
// event and acknowledging it. The outcome is the model's: what is told is a
// function of what the cluster did, and of no crash.
func TestKilledAtEveryPlace(t *testing.T) {
	needCluster(t)
	s := newSession(t, "places")
	s.killed = true
	// They are there before the agent is for the first time: what is there no
	// more when it first looks, it cannot know.
	over, running := pods(t, s.ns, "over", 15, second), pods(t, s.ns, "running", 15, nil)
	over.reach(t, s.ns, corev1.PodSucceeded)
	running.reach(t, s.ns, corev1.PodRunning)
	for _, p := range first {
		killedAt(t, s, p)
	}
	over.tell(s.want, podSucceeds)
	running.tell(s.want, podRuns)
	a := s.start(t, configOf(s.ns))
	s.hook.tells(t, time.Minute, s.want)
	a.kill()
	s.hook.answers(0, inFlight)
	l := load{jobs: 10}
	l.start(t.Context(), t, s.ns, 100_000, 25)
	for round := range 2 { // the second time deeper in the load
		for _, p := range underLoad {
			p.times *= 1 + 3*round
			killedAt(t, s, p)
		}
	}
	a = s.start(t, configOf(s.ns))
	l.finish(t)
	over.deletePods(t, s.ns)
	running.deletePods(t, s.ns)
	drained(t, s.ns, time.Minute)
	running.tell(s.want, podCut)
	maps.Copy(s.want, l.stories())
	s.hook.tells(t, time.Minute, s.want)
	a.stop()
	fromTheWatch(t, s.outcome(t), over, running)
}

func killedAt(t *testing.T, s *session, p place) {
	t.Helper()
	began := time.Now()
	if launch(t, s.dir, configOf(s.ns), fmt.Sprintf("%s=kill@%d", p.name, p.times)).died(p.name, 20*time.Second) {
		t.Logf("%s: killed at pass %d after %s", p.name, p.times, time.Since(began).Round(time.Millisecond))
	}
}

// TestEveryFailpointIsPassed compares the places of these tests with those in
// the code: one that is new there is to be killed at here.
func TestEveryFailpointIsPassed(t *testing.T) {
	known := map[string]bool{
		"ledger/prune":  true, // retention has nothing to prune in these tests
		"file/remove":   true, // nor is a rotated file to be removed
		"file/truncate": true, // what comes after a kill is what was there; if not, the sink's own tests cut it
	}
	for _, p := range slices.Concat(first, underLoad, atAGap, atAnAttach, atAReplay, inTheFile) {
		known[p.name] = true
	}
	found := failpoints(t)
	for _, name := range found {
		if !known[name] {
			t.Errorf("no test kills the agent at %s", name)
		}
	}
	for name := range known {
		if !slices.Contains(found, name) {
			t.Errorf("the code has no failpoint %s", name)
		}
	}
}
