package workload

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/statesync"
)

// A recording is what the API server's watches told of one scenario, in the
// order of resourceVersion.
type recording struct {
	Events []struct {
		Type   string          `json:"type"`
		Object json.RawMessage `json:"object"`
	} `json:"events"`
}

// A retelling is what the rules make of a recording, object by object.
type retelling struct {
	before  map[string]Before
	pods    map[string]map[string]*Object // by their controller's UID, then by their own
	owners  map[string]*Object            // of pods that may move them
	stories map[string]*story
}

// A story is what became of one object.
type story struct {
	kind string
	told []string
	last Status
}

func (s *story) tell(now Status) {
	line := string(now.State)
	if now.ExitCode != nil {
		line += fmt.Sprintf("(%s %d)", now.Reason, *now.ExitCode)
	} else if now.Reason != "" {
		line += "(" + now.Reason + ")"
	}
	if now.Reconstructed {
		line += "*"
	}
	s.last = now
	if len(s.told) == 0 || s.told[len(s.told)-1] != line {
		s.told = append(s.told, line)
	}
}

// retell returns what the rules make of the recording: one line for all
// objects of a kind with the same story, sorted.
func retell(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r recording
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	re := &retelling{
		before: map[string]Before{}, pods: map[string]map[string]*Object{}, owners: map[string]*Object{},
		stories: map[string]*story{},
	}
	for i, e := range r.Events {
		if err := re.take(e.Type, e.Object); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	count := map[string]int{}
	for _, s := range re.stories {
		count[s.kind+": "+strings.Join(s.told, ">")]++
	}
	var lines []string
	for line, n := range count {
		if n > 1 {
			line = fmt.Sprintf("%d %s", n, line)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// take lets one event change the stories. An event of a pod may change that
// of its owner.
func (re *retelling) take(typ string, raw json.RawMessage) error {
	var meta struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return err
	}
	k, known := Kinds[meta.Kind]
	if !known {
		return nil
	}
	obj := k.Object()
	if err := json.Unmarshal(raw, obj); err != nil {
		return err
	}
	k.Trimmer(obj)
	o, err := k.Reduce(obj)
	if err != nil {
		return err
	}
	s := re.stories[o.UID]
	if s == nil {
		s = &story{kind: k.Name}
		re.stories[o.UID] = s
	}
	if k.Name == "Pod" && o.Controller.UID != "" {
		if re.pods[o.Controller.UID] == nil {
			re.pods[o.Controller.UID] = map[string]*Object{}
		}
		re.pods[o.Controller.UID][o.UID] = o
	}
	if k.PodsRun {
		re.owners[o.UID] = o
	}
	now := k.Assess(o)
	if typ == "DELETED" {
		now = k.Removed(o)
	}
	re.change(k, o, now)
	re.podsRun(o)
	if owner := re.owners[o.Controller.UID]; owner != nil {
		re.podsRun(owner)
	}
	return nil
}

func (re *retelling) change(k Kind, o *Object, now Status) {
	before, s := re.before[o.UID], re.stories[o.UID]
	steps := Steps(before, now, o)
	if len(steps) == 0 && now.State == before.State && !before.State.Ended() && k.Retells(s.last.Reason, now, o) {
		steps = []Status{now} // as with reasons: true
	}
	for _, step := range steps {
		before.State = step.State
		s.tell(k.Explain(step, re.podsOf(o)))
	}
	if !before.State.Ended() {
		before.Suspended, before.Started, before.Elsewhere = now.Suspended, o.Started, o.Elsewhere
		if now.Suspended {
			before.Suspension = now.Occurred
		}
	}
	re.before[o.UID] = before
}

func (re *retelling) podsRun(owner *Object) {
	if !Kinds[owner.Kind].PodsRun {
		return
	}
	for _, pod := range re.podsOf(owner) {
		before := re.before[owner.UID]
		if step, moves := PodRuns(before, pod); moves {
			before.State = statesync.Running
			re.before[owner.UID] = before
			re.stories[owner.UID].tell(step)
		}
	}
}

func (re *retelling) podsOf(o *Object) (pods []*Object) {
	for _, pod := range re.pods[o.UID] {
		pods = append(pods, pod)
	}
	return pods
}
