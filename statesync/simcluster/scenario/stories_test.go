package scenario

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/statesync/simcluster"
	"github.com/outrider-agent/outrider/statesync/workload"
	"github.com/outrider-agent/outrider/statesync/workload/custom"
)

// A teller reads what a cluster says by the rules of the workloads, each event
// when it comes, as a watcher does that is never behind.
type teller struct {
	kinds   map[string]workload.Kind
	before  map[string]workload.Before
	pods    map[string]map[string]*workload.Object // by owner and UID
	told    map[string][]string
	reasons map[string]bool // Kind State(Reason)
	objects map[string]*workload.Object
}

func newTeller(t testing.TB) *teller {
	t.Helper()
	var item struct {
		Kind struct{ Group, Version, Resource, Name string }
		CEL  custom.Rules
	}
	if err := yaml.Unmarshal([]byte(TrainingKind), &item); err != nil {
		t.Fatal(err)
	}
	training, err := custom.Compile(custom.Definition{
		Group: item.Kind.Group, Version: item.Kind.Version, Resource: item.Kind.Resource, Name: item.Kind.Name, Rules: item.CEL,
	})
	if err != nil {
		t.Fatal(err)
	}
	kinds := maps.Clone(workload.Kinds)
	kinds["Training"] = training
	return &teller{
		kinds: kinds, before: map[string]workload.Before{}, pods: map[string]map[string]*workload.Object{},
		told: map[string][]string{}, reasons: map[string]bool{}, objects: map[string]*workload.Object{},
	}
}

// whole returns the object of a version, as the API server gives it.
func whole(v *simcluster.Version) runtime.Object {
	obj := v.Source.Object()
	obj.(metav1.Object).SetResourceVersion(strconv.FormatInt(v.Number, 10))
	return obj
}

func (r *teller) take(t testing.TB, kind string, what watch.EventType, v *simcluster.Version) {
	t.Helper()
	k := r.kinds[kind]
	o, err := k.Reduce(whole(v))
	if err != nil {
		t.Fatal(err)
	}
	if o.UID != string(v.UID) || o.Name != v.Name || o.Namespace != v.Namespace {
		t.Fatalf("got %s %s/%s in the object of %s %s/%s", o.UID, o.Namespace, o.Name, v.UID, v.Namespace, v.Name)
	}
	if o.Controller.UID != "" {
		r.folded(o, what)
		return
	}
	status := k.Assess(o)
	if what == watch.Deleted {
		status = k.Removed(o)
	}
	b := r.before[o.UID]
	for _, step := range workload.Steps(b, status, o) {
		r.tell(o.UID, kind, step)
	}
	b = r.before[o.UID]
	if b.Suspended = status.Suspended; status.Suspended {
		b.Suspension = status.Occurred
	}
	b.Started = o.Started
	r.before[o.UID] = b
	r.objects[o.UID] = o
	for _, pod := range r.pods[o.UID] {
		r.moved(o.UID, pod)
	}
}

func (r *teller) folded(o *workload.Object, what watch.EventType) {
	owner := o.Controller.UID
	if o.Kind != "Pod" || o.Controller.Kind != "Job" {
		return
	}
	if r.pods[owner] == nil {
		r.pods[owner] = map[string]*workload.Object{}
	}
	if r.pods[owner][o.UID] = o; what == watch.Deleted {
		delete(r.pods[owner], o.UID)
		return
	}
	r.moved(owner, o)
}

func (r *teller) moved(job string, pod *workload.Object) {
	if step, moves := workload.PodRuns(r.before[job], pod); moves {
		r.tell(job, "Job", step)
	}
}

func (r *teller) tell(uid, kind string, step workload.Status) {
	r.told[uid] = append(r.told[uid], string(step.State))
	b := r.before[uid]
	b.State = step.State
	r.before[uid] = b
	r.reasons[fmt.Sprintf("%s %s(%s)", kind, step.State, step.Reason)] = true
}

// list takes what is there, owners first.
func (r *teller) list(t testing.TB, c *simcluster.Cluster) (version int64) {
	t.Helper()
	for _, plural := range []string{"deployments", "replicasets", "jobs", "trainings", "pods"} {
		for _, resource := range c.Resources() {
			if resource.Plural != plural {
				continue
			}
			objects, now, err := c.List(resource, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range objects {
				r.take(t, resource.Kind, watch.Added, v)
			}
			version = now
		}
	}
	return version
}

// follow takes the events after a version, in their order.
func (r *teller) follow(t testing.TB, c *simcluster.Cluster, after int64) {
	t.Helper()
	for _, e := range history(t, c, after) {
		r.take(t, kindOf(e.Object), e.Type, e.Object)
	}
}

func kindOf(v *simcluster.Version) string { return v.Source.(written).self().look.resource.Kind }

// TestTheTruthIsWhatTheRulesTell holds all that is written to the rules by
// which it is told.
func TestTheTruthIsWhatTheRulesTell(t *testing.T) {
	for name, o := range map[string]Options{
		"in a hurry": {Seed: 1, Rate: 3000, Workloads: 300},
		"at leisure": {Seed: 2, Rate: 20, Workloads: 20, Speed: 1e6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := start(t, o)
				r := newTeller(t)
				from := r.list(t, c)
				if got := s.Truth().Compare(func(uid string) []string { return r.told[uid] }); got.Lost+got.Unexpected != 0 {
					t.Errorf("what was listed: got %+v", got)
				}
				run(t, s, time.Duration(9_000/o.Rate)*time.Second)
				r.follow(t, c, from)
				compare(t, s, r)
				for _, reason := range everyReason() {
					if !r.reasons[reason] {
						t.Errorf("no workload has: %s", reason)
					}
				}
			})
		})
	}
}

func compare(t *testing.T, s *Scenario, r *teller) {
	t.Helper()
	got := s.Truth().Compare(func(uid string) []string { return r.told[uid] })
	if got.Lost+got.Unexpected != 0 || got.Offered < 9_000 {
		t.Errorf("got %d lost and %d unexpected of %d\n%s", got.Lost, got.Unexpected, got.Offered, strings.Join(got.First, "\n"))
	}
	for uid := range r.told {
		if _, known := s.Truth().Of(uid); !known {
			t.Errorf("got a story of %s %s, want none", r.objects[uid].Kind, r.objects[uid].Name)
		}
	}
}

func everyReason() (all []string) {
	for kind, states := range map[string]string{
		"Job": "Queued() Queued(Suspended) Running() Succeeded(CompletionsReached)" +
			" Failed(BackoffLimitExceeded) Failed(DeadlineExceeded) Cancelled(Deleted)",
		"Pod":        "Queued() Running() Succeeded(Completed) Failed(Error) Failed(OOMKilled) Failed(Evicted) Cancelled(Deleted)",
		"Deployment": "Queued() Queued(ScaledToZero) Running() Deleted(Deleted)",
		"Training":   "Queued() Running() Succeeded() Failed(Diverged) Cancelled(Deleted)",
	} {
		for state := range strings.FieldsSeq(states) {
			all = append(all, kind+" "+state)
		}
	}
	slices.Sort(all)
	return all
}

// TestWhatIsWrittenIsWhole holds each object to what the API server would not
// take, and its size to what such objects have.
func TestWhatIsWrittenIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Options{Seed: 4, Rate: 1000, Workloads: 200})
		run(t, s, time.Second)
		bytes, n := 0, 0
		names := map[string]bool{}
		for _, e := range history(t, c, 1) {
			m := e.Object.Source.Object().(metav1.Object)
			if created := m.GetCreationTimestamp(); created.IsZero() || !maps.Equal(m.GetLabels(), e.Object.Labels) {
				t.Fatalf("%s: got created %v with labels %v, want a time and %v", m.GetName(), m.GetCreationTimestamp(), m.GetLabels(), e.Object.Labels)
			}
			for _, o := range m.GetOwnerReferences() {
				if !names[string(o.UID)] {
					t.Fatalf("%s: got the owner %s, which was not created before it", m.GetName(), o.Name)
				}
			}
			names[string(m.GetUID())] = true
			if p, ok := e.Object.Source.Object().(interface{ Size() int }); ok {
				bytes, n = bytes+p.Size(), n+1
			}
		}
		if mean := bytes / n; mean < 1500 || mean > 6000 {
			t.Errorf("got %d bytes an object in the mean, want a few KB", mean)
		}
	})
}

// TestAVersionDoesNotChange holds that objects of one version are the same
// however many were made, and whatever was written to their fields.
func TestAVersionDoesNotChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t, Options{Seed: 6, Rate: 300, Workloads: 100})
		run(t, s, 2*time.Second)
		events := history(t, c, 1)
		var before []string
		for _, e := range events {
			before = append(before, told(e))
			m := e.Object.Source.Object().(metav1.Object)
			m.SetResourceVersion("1")
			m.SetLabels(nil)
			m.SetManagedFields(nil)
		}
		run(t, s, 2*time.Second)
		for i, e := range slices.Backward(events) { // what one object leaves in another shows in the other order
			if again := told(e); again != before[i] {
				t.Fatalf("got another object:\n%s\n%s", before[i], again)
			}
		}
	})
}

// TestEveryStepIsToldBeforeItIsWritten holds that the truth is there when a
// watcher may ask for it.
func TestEveryStepIsToldBeforeItIsWritten(t *testing.T) {
	s, c := start(t, Options{Seed: 5, Rate: 20_000, Workloads: 200, Mix: Mix{Notebooks: 1}})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	pods := c.Resources()[0]
	after, seen := c.Now(), 0
	for ctx.Err() == nil {
		events, version, wake, err := c.Events(pods, after, 100)
		if err != nil {
			t.Fatal(err)
		}
		after = version
		for _, e := range events {
			if _, known := s.Truth().Of(string(e.Object.UID)); !known {
				t.Fatalf("%s: got an event of what nothing is known of", e.Object.Name)
			}
			seen++
		}
		if wake != nil {
			select {
			case <-wake:
			case <-ctx.Done():
			}
		}
	}
	if err := <-done; err != nil || seen < 1000 {
		t.Errorf("got %d events (%v), want 1,000 or more", seen, err)
	}
}
