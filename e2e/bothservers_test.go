package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The suite that keeps the simulator of statesync/simcluster honest: the same
// writes to it and to the real API server, each watched by an agent of its own,
// must have the same changes told. No controller takes part on either side.

// An act is writes that one agent sees, as one configuration has it.
type act struct {
	name string
	play func(s *stage)
	// Whether a state was found by a list or by the watch depends on when the
	// agent came to it.
	anyWay bool
}

func acts() []act {
	return []act{
		{name: "lives", play: actLives},
		{name: "selectors", play: actSelectors},
		{name: "crowd", play: actCrowd, anyWay: true},
		{name: "restart", play: actRestart},
		{name: "compacted", play: actCompacted},
		{name: "definition", play: actDefinition},
	}
}

// TestBothServers wants what is said of each workload from the simulator, and
// the same, word for word, from the real API server where there is one.
func TestBothServers(t *testing.T) {
	servers := []server{simulated{}}
	if env != nil {
		servers = append(servers, real{})
	}
	binary := outriderBinary(t)
	told := map[string]map[string]record{} // by server and act
	var mu sync.Mutex
	t.Run("on", func(t *testing.T) {
		for _, srv := range servers {
			t.Run(srv.String(), func(t *testing.T) {
				t.Parallel()
				all := performed(t, srv, binary)
				mu.Lock()
				defer mu.Unlock()
				told[srv.String()] = all
			})
		}
	})
	if env == nil {
		t.Skip("DEVCLUSTER is not set: the simulator told what it should, and was compared with nothing; make e2e builds a real API server")
	}
	for _, a := range acts() {
		want, wanted := told[real{}.String()][a.name]
		got, played := told[simulated{}.String()][a.name]
		if !wanted || !played {
			t.Errorf("%s: was not played to its end on both servers", a.name)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: the simulator differs from the real API server (-real +simulated):\n%s", a.name, diff)
		}
	}
}

// performed is what was told of each act on one server.
func performed(t *testing.T, srv server, binary string) map[string]record {
	t.Helper()
	on := srv.start(t)
	out := map[string]record{}
	for _, a := range acts() {
		t.Run(a.name, func(t *testing.T) {
			began := time.Now()
			s := &stage{T: t, side: on, name: a.name, follower: newFollower(t, binary, on.kubeconfig), want: map[string]string{}}
			a.play(s)
			s.settle()
			s.follower.stop()
			out[a.name] = s.record(a.anyWay)
			t.Logf("%d workloads, %s", len(s.want), time.Since(began).Round(10*time.Millisecond))
		})
	}
	return out
}

// A record is what the servers must have in common: what was told, in words.
type record struct {
	Changes map[string]string // of each workload, in order, one a line
	Gaps    string            // one a line
	Answers string            // of the server to some writes, one a line
}

// A stage is where an act is played: a server, and the agent that watches it.
type stage struct {
	*testing.T
	*side
	name     string
	follower *follower
	want     map[string]string // every workload's story
	gaps     []string          // every gap's stream and reason
	answers  []string
}

// tells says which story must be told of a workload: its states with their
// reasons, of each of its lives.
func (s *stage) tells(ns, kind, name, story string) { s.want[kind+" "+ns+"/"+name] = story }

// settle waits until every story has been told, and then for more, which
// there must not be.
func (s *stage) settle() {
	s.Helper()
	deadline := time.Now().Add(patience)
	for !s.asWanted() && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond) // sleep: between two looks
	}
	time.Sleep(2500 * time.Millisecond) // sleep: two audits, which may find what was lost, and what is told that should not be
	events := s.follower.events()
	if diff := cmp.Diff(s.want, tales(events)); diff != "" {
		s.Errorf("stories (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(s.gaps, gapWords(events, false)); diff != "" {
		s.Errorf("gaps (-want +got):\n%s", diff)
	}
}

func (s *stage) asWanted() bool {
	events := s.follower.events()
	return maps.Equal(s.want, tales(events)) && slices.Equal(s.gaps, gapWords(events, false))
}

// until waits for a workload's last state that was told.
func (s *stage) until(ns, kind, name, state string) {
	s.Helper()
	key, last := kind+" "+ns+"/"+name, ""
	for deadline := time.Now().Add(patience); ; {
		for _, e := range s.follower.events() {
			if e.Type == changeType && workloadOf(e) == key {
				last = step(e)
			}
		}
		if last == state {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("waited %s for %s to be told %s, got %q; told were %v", patience, key, state, last, tales(s.follower.events()))
		}
		time.Sleep(20 * time.Millisecond) // sleep: between two looks
	}
}

// answered notes what the server answered, for the comparison.
func (s *stage) answered(format string, args ...any) {
	s.answers = append(s.answers, fmt.Sprintf(format, args...))
}

// record is what was told, without what is each server's own: UIDs, versions
// and times.
func (s *stage) record(anyWay bool) record {
	events := s.follower.events()
	r := record{Changes: map[string]string{}, Gaps: strings.Join(gapWords(events, true), "\n"), Answers: strings.Join(s.answers, "\n")}
	lives := map[string][]string{} // UIDs
	for _, sink := range []string{"archive", "late"} {
		for _, e := range s.follower.eventsOf(sink) {
			if e.Type != changeType {
				continue
			}
			key := workloadOf(e)
			life := slices.Index(lives[key], e.Data.Workload.UID)
			if life < 0 {
				life = len(lives[key])
				lives[key] = append(lives[key], e.Data.Workload.UID)
			}
			r.Changes[key] += fmt.Sprintf("%s, life %d: %s\n", sink, life+1, inFull(e, anyWay))
		}
	}
	return r
}

// inFull is all of a change that the servers must have in common.
func inFull(e event, anyWay bool) string {
	d := e.Data
	var b strings.Builder
	fmt.Fprintf(&b, "%d (after %d) %s>%s", d.Seq, d.Previous, d.From, step(e))
	if d.ExitCode != nil {
		fmt.Fprintf(&b, " exit code %d", *d.ExitCode)
	}
	fmt.Fprintf(&b, " %q labels %v epoch %d", d.Message, d.Workload.Labels, d.Epoch)
	for _, mark := range []struct {
		word string
		is   bool
	}{{"initial", d.Initial}, {"replayed", d.Replayed}, {"late", d.ObservedLate && !anyWay}, {"reconstructed", d.Reconstructed && !anyWay}} {
		if mark.is {
			b.WriteString(" " + mark.word)
		}
	}
	if len(d.Skipped) > 0 {
		fmt.Fprintf(&b, " skipped %v", d.Skipped)
	}
	// A Job has its UID as a label, and its name, which the server may have made up.
	text := strings.ReplaceAll(b.String(), d.Workload.UID, "ITS-UID")
	if as := d.Workload.Labels["as"]; as != "" {
		text = strings.ReplaceAll(text, d.Workload.Name, as)
	}
	return text
}

// workloadOf names a workload as both servers do. One whose name the server
// made up has it as a label.
func workloadOf(e event) string {
	w := e.Data.Workload
	name := w.Name
	if as := w.Labels["as"]; as != "" {
		name = as
	}
	return w.Kind + " " + w.Namespace + "/" + name
}

// step is what a change leads to.
func step(e event) string {
	if e.Data.Reason == "" {
		return e.Data.To
	}
	return e.Data.To + "(" + e.Data.Reason + ")"
}

// tales are the stories of all workloads: those of one that lived more than
// once have "; " between them.
func tales(events []event) map[string]string {
	out, last := map[string]string{}, map[string]string{}
	for _, e := range events {
		if e.Type != changeType {
			continue
		}
		key, uid := workloadOf(e), e.Data.Workload.UID
		switch last[key] {
		case "":
			out[key] = step(e)
		case uid:
			out[key] += ">" + step(e)
		default:
			out[key] += "; " + step(e)
		}
		last[key] = uid
	}
	return out
}

// gapWords are the gaps, sorted: which stream is listed first is chance.
func gapWords(events []event, all bool) (out []string) {
	for _, e := range events {
		if e.Type != gapType {
			continue
		}
		words := e.Gap.Stream + " " + e.Gap.Reason
		if all {
			words += fmt.Sprintf(" seq %d (after %d) epoch %d forward %v", e.Gap.Seq, e.Gap.Previous, e.Gap.Epoch, e.Gap.ToRV > e.Gap.FromRV && e.Gap.FromRV > 0)
		}
		out = append(out, words)
	}
	slices.Sort(out)
	return out
}

// eventsOf are the changes that a file sink has, without its marks.
func (f *follower) eventsOf(sink string) []event {
	f.t.Helper()
	return withoutMarks(f.read(filepath.Join(f.dir, sink+".ndjson")))
}

// events are what the sink that was there from the start has.
func (f *follower) events() []event { return f.eventsOf("archive") }
