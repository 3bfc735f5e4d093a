package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// source is a Source whose server is the test: it streams the list that the
// test gives, then what the test sends.
type source struct {
	empty runtime.Object // for bookmarks

	mu      sync.Mutex
	objects []runtime.Object // the list
	version string
	opened  []string // resourceVersion of each watch that was opened; "list" for a streamed list
	current chan kwatch.Event
	stop    chan struct{}
	fail    error // of the next calls
	refused int64 // calls that were
	hasty   bool  // every watch ends at once
}

func (s *source) List(context.Context, metav1.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	return nil, errors.New("this server streams lists")
}

func (s *source) Watch(_ context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		s.refused++
		return nil, s.fail
	}
	s.current, s.stop = make(chan kwatch.Event, 1000), make(chan struct{})
	if _, err := strconv.Atoi(o.ResourceVersion); err != nil && o.ResourceVersion != "" {
		return nil, apierrors.NewBadRequest("resourceVersion " + o.ResourceVersion)
	}
	if o.SendInitialEvents == nil {
		s.opened = append(s.opened, o.ResourceVersion)
	} else {
		s.opened = append(s.opened, "list")
		for _, obj := range s.objects {
			s.current <- kwatch.Event{Type: kwatch.Added, Object: obj}
		}
		s.current <- kwatch.Event{Type: kwatch.Bookmark, Object: bookmark(s.empty, s.version, true)}
	}
	if s.hasty {
		close(s.current)
	}
	return newProxy(s.current, s.stop), nil
}

// proxy is a watch that ends when it is stopped as client-go's does over
// HTTP/2: now and then with an ERROR event, for the read that was broken.
type proxy struct {
	out  chan kwatch.Event
	stop chan struct{}
	once sync.Once
}

func newProxy(in chan kwatch.Event, stop chan struct{}) *proxy {
	p := &proxy{out: make(chan kwatch.Event, 1), stop: stop}
	broken := kwatch.Event{Type: kwatch.Error, Object: &apierrors.NewInternalError(errors.New("http2: response body closed")).ErrStatus}
	go func() {
		defer close(p.out)
		for {
			select {
			case e, ok := <-in:
				if !ok {
					return
				}
				select {
				case p.out <- e:
				case <-p.stop:
					p.out <- broken
					return
				}
			case <-p.stop:
				p.out <- broken
				return
			}
		}
	}()
	return p
}

func (p *proxy) Stop()                           { p.once.Do(func() { close(p.stop) }) }
func (p *proxy) ResultChan() <-chan kwatch.Event { return p.out }

func bookmark(empty runtime.Object, version string, initialEnd bool) runtime.Object {
	b := empty.DeepCopyObject()
	m := b.(metav1.Object)
	m.SetResourceVersion(version)
	if initialEnd {
		m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return b
}

func (s *source) send(typ kwatch.EventType, obj runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current <- kwatch.Event{Type: typ, Object: obj}
}

// relist ends the watch so that the reflector lists again, and gives it this.
func (s *source) relist(version string, objects ...runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects, s.version = objects, version
	s.current <- kwatch.Event{Type: kwatch.Error, Object: &apierrors.NewResourceExpired("too old").ErrStatus}
}

func (s *source) watches() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.opened...)
}

// record is a Log that keeps what it is given; entries become durable when
// the test lets them.
type record struct {
	mu      sync.Mutex
	entries []statesync.Entry
	hold    bool
	held    []func()
}

func (r *record) Append(_ context.Context, e statesync.Entry) error {
	r.mu.Lock()
	r.entries = append(r.entries, e)
	if r.hold {
		r.held = append(r.held, e.Done)
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	e.Done()
	return nil
}

func (r *record) release() {
	r.mu.Lock()
	held := r.held
	r.held, r.hold = nil, false
	r.mu.Unlock()
	for _, done := range held {
		done()
	}
}

// story is every change, a line each.
func (r *record) story() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.entries {
		for _, c := range e.Changes {
			line := fmt.Sprintf("%s %d %s>%s", c.Workload.UID, c.Seq, c.From, c.To)
			if c.Reason != "" {
				line += " " + c.Reason
			}
			if c.Reconstructed {
				line += " reconstructed"
			}
			if c.ObservedLate {
				line += " late"
			}
			out = append(out, line)
		}
		if e.Row.Gone {
			out = append(out, e.Row.UID+" gone")
		}
	}
	return out
}

func pod(name, uid string, version int, phase corev1.PodPhase, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "load", Name: name, UID: types.UID(uid), ResourceVersion: strconv.Itoa(version),
			CreationTimestamp: metav1.Unix(1_800_000_000, 0),
		},
		Status: corev1.PodStatus{Phase: phase},
	}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func ownedBy(job, uid string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: job, UID: types.UID(uid), Controller: &yes}}
	}
}

func job(name, uid string, version int, edits ...func(*batchv1.Job)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "load", Name: name, UID: types.UID(uid), ResourceVersion: strconv.Itoa(version)}}
	for _, edit := range edits {
		edit(j)
	}
	return j
}

func with(typ batchv1.JobConditionType, status corev1.ConditionStatus) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: typ, Status: status})
	}
}

// world is a watcher with the sources behind it, run in a bubble of
// synthetic time.
type world struct {
	w          *Watcher
	pods, jobs *source
	log        *record
	reg        *metrics.Registry
	stop       func() // and wait
}

func start(t *testing.T, edit func(*Options), listed ...runtime.Object) *world {
	t.Helper()
	x := &world{
		pods: &source{empty: &corev1.Pod{}, objects: listed, version: "100"},
		jobs: &source{empty: &batchv1.Job{}, version: "100"},
		log:  &record{}, reg: metrics.NewRegistry(),
	}
	o := Options{
		Cluster: "c", Epoch: 1, Tracked: []string{"Pod", "Job"}, Log: x.log, Registry: x.reg,
		Streams: []Stream{{Kind: workload.Kinds["Pod"], Source: x.pods}, {Kind: workload.Kinds["Job"], Source: x.jobs}},
		Logger:  slog.New(slog.DiscardHandler), Now: time.Now, Workers: 2,
	}
	if edit != nil {
		edit(&o)
	}
	var err error
	if x.w, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.w.Run(ctx) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		x.stop()
		synctest.Wait()
		for _, p := range x.reg.Pipelines() {
			if balance, ok := p.Balance(); balance != 0 || !ok {
				t.Errorf("pipeline %s %s: balance %d (known: %v), want 0", p.Name, p.Target, balance, ok)
			}
		}
	})
	synctest.Wait()
	return x
}

func (x *world) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, x.log.story()); diff != "" {
		t.Errorf("story (-want +got)\n%s", diff)
	}
}

func TestEveryStateIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.send(kwatch.Added, pod("a", "u1", 101, "Pending"))
		x.pods.send(kwatch.Modified, pod("a", "u1", 102, "Pending"))
		x.pods.send(kwatch.Modified, pod("a", "u1", 103, "Running"))
		x.pods.send(kwatch.Modified, pod("a", "u1", 104, "Succeeded"))
		x.pods.send(kwatch.Deleted, pod("a", "u1", 105, "Succeeded"))
		x.want(t, "u1 1 >Queued", "u1 2 Queued>Running", "u1 3 Running>Succeeded Completed", "u1 gone")
	})
}

func TestTheFirstListIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Running"))
		x.want(t, "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
	})
}

func TestARelistTellsWhatWasMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Pending"), pod("b", "u2", 51, "Pending"), pod("c", "u3", 52, "Pending"))
		synctest.Wait()
		x.log.mu.Lock()
		x.log.entries = nil
		x.log.mu.Unlock()
		// a ran, b is gone, c is another one by the same name.
		x.pods.relist("200", pod("a", "u1", 150, "Running"), pod("c", "u4", 151, "Pending"))
		time.Sleep(10 * time.Second) // the reflector's back-off, in synthetic time
		synctest.Wait()
		got := x.log.story()
		for _, want := range []string{
			"u1 2 Queued>Running late", "u2 2 Queued>Cancelled Deleted late", "u3 2 Queued>Cancelled Deleted late", "u4 1 >Queued late",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("no %q in %q", want, got)
			}
		}
		if slices.Index(got, "u3 2 Queued>Cancelled Deleted late") > slices.Index(got, "u4 1 >Queued late") {
			t.Errorf("the new life of c was told before the end of the old one: %q", got)
		}
	})
}

func TestAnotherLifeOnTheLiveWatchEndsTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.send(kwatch.Added, pod("a", "u1", 101, "Running"))
		x.pods.send(kwatch.Added, pod("a", "u2", 105, "Pending"))
		x.want(t, "u1 1 >Queued reconstructed", "u1 2 Queued>Running",
			"u1 3 Running>Cancelled Deleted late", "u1 gone", "u2 1 >Queued")
	})
}

func TestWhatTheLogKnowsIsNotToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := func(uid, name string, state statesync.State) statesync.Row {
			return statesync.Row{Ref: statesync.Ref{Kind: "Pod", Namespace: "load", Name: name, UID: uid}, State: state, Seq: 2, ResourceVersion: 40}
		}
		x := start(t, func(o *Options) {
			o.Known = []statesync.Row{
				known("u1", "a", statesync.Running), known("u2", "b", statesync.Running),
				known("u3", "c", statesync.Succeeded), known("u4", "d", statesync.Queued),
			}
		}, pod("a", "u1", 50, "Running"), pod("c", "u3", 51, "Succeeded"), pod("d", "u4", 52, "Running"))
		synctest.Wait()
		got := strings.Join(slices.Sorted(slices.Values(x.log.story())), "; ")
		// a is where it was, b went while nobody looked, c had ended, d moved on.
		want := "u2 3 Running>Cancelled Deleted late; u2 gone; u4 3 Queued>Running late"
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestAnEventAtOrBelowTheLastChangeTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, func(o *Options) {
			o.Reasons = true
			o.Known = []statesync.Row{{
				Ref:   statesync.Ref{Kind: "Pod", Namespace: "load", Name: "a", UID: "u1"},
				State: statesync.Queued, Reason: "ImagePullBackOff", Seq: 3, ResourceVersion: 60,
			}}
		}, pod("a", "u1", 55, "Pending"))
		x.want(t)
		x.pods.send(kwatch.Modified, pod("a", "u1", 60, "Pending"))
		x.want(t)
		x.pods.send(kwatch.Modified, pod("a", "u1", 101, "Pending"))
		x.want(t, "u1 4 Queued>Queued")
	})
}

func TestPodsFoldIntoTheirJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		owned := ownedBy("j", "J")
		x.jobs.send(kwatch.Added, job("j", "J", 101))
		synctest.Wait()
		x.pods.send(kwatch.Added, pod("j-1", "P", 102, "Pending", owned))
		x.pods.send(kwatch.Modified, pod("j-1", "P", 103, "Running", owned))
		synctest.Wait()
		x.pods.send(kwatch.Modified, pod("j-1", "P", 104, "Succeeded", owned))
		x.jobs.send(kwatch.Modified, job("j", "J", 105, with(batchv1.JobComplete, corev1.ConditionTrue)))
		synctest.Wait()
		x.pods.send(kwatch.Deleted, pod("j-1", "P", 106, "Succeeded", owned))
		x.jobs.send(kwatch.Deleted, job("j", "J", 107, with(batchv1.JobComplete, corev1.ConditionTrue)))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Succeeded Completed", "J gone")
	})
}

func TestAPodThatRunsBeforeItsJobIsSeenMovesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.send(kwatch.Added, pod("j-1", "P", 103, "Running", ownedBy("j", "J")))
		synctest.Wait()
		x.want(t)
		x.jobs.send(kwatch.Added, job("j", "J", 101))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running")
	})
}

func TestASuspendedJobIsQueuedUntilItRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		owned := ownedBy("j", "J")
		x.jobs.send(kwatch.Added, job("j", "J", 101))
		synctest.Wait()
		x.pods.send(kwatch.Added, pod("j-1", "P1", 102, "Running", owned))
		synctest.Wait()
		x.jobs.send(kwatch.Modified, job("j", "J", 103, with(batchv1.JobSuspended, corev1.ConditionTrue)))
		synctest.Wait()
		x.pods.send(kwatch.Modified, pod("j-1", "P1", 104, "Running", owned)) // still on its way out
		x.pods.send(kwatch.Deleted, pod("j-1", "P1", 105, "Failed", owned))
		synctest.Wait()
		x.jobs.send(kwatch.Modified, job("j", "J", 106, with(batchv1.JobSuspended, corev1.ConditionFalse)))
		synctest.Wait()
		x.pods.send(kwatch.Added, pod("j-2", "P2", 107, "Running", owned))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued Suspended", "J 4 Queued>Running")
	})
}

func TestAPodOfTheRunBeforeDoesNotResumeAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		owned := ownedBy("j", "J")
		created := func(second int64) func(*corev1.Pod) {
			return func(p *corev1.Pod) { p.CreationTimestamp = metav1.Unix(1_800_000_000+second, 0) }
		}
		begun := func(second int64) func(*batchv1.Job) {
			return func(j *batchv1.Job) { j.Status.StartTime = new(metav1.Unix(1_800_000_000+second, 0)) }
		}
		x.jobs.send(kwatch.Added, job("j", "J", 101, begun(1)))
		synctest.Wait()
		x.pods.send(kwatch.Added, pod("j-1", "P1", 102, "Running", owned, created(1)))
		synctest.Wait()
		// The stream of pods falls behind: the old pod looks as if it ran on.
		x.jobs.send(kwatch.Modified, job("j", "J", 103, with(batchv1.JobSuspended, corev1.ConditionTrue), func(j *batchv1.Job) {
			j.Status.Conditions[0].LastTransitionTime = metav1.Unix(1_800_000_000+30, 0)
		}))
		x.jobs.send(kwatch.Modified, job("j", "J", 106, with(batchv1.JobSuspended, corev1.ConditionFalse), begun(60)))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued Suspended")
		x.pods.send(kwatch.Added, pod("j-2", "P2", 107, "Running", owned, created(59)))
		x.want(t, "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Queued Suspended", "J 4 Queued>Running")
	})
}

func TestAPodThatIsAdoptedKeepsItsStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		owned := ownedBy("j", "J")
		x.jobs.send(kwatch.Added, job("j", "J", 101))
		x.pods.send(kwatch.Added, pod("p", "P", 102, "Running"))
		x.pods.send(kwatch.Modified, pod("p", "P", 103, "Running", owned))
		x.pods.send(kwatch.Modified, pod("p", "P", 104, "Succeeded", owned))
		x.pods.send(kwatch.Deleted, pod("p", "P", 105, "Succeeded", owned))
		synctest.Wait()
		got := slices.DeleteFunc(x.log.story(), func(s string) bool { return s[0] != 'P' })
		want := []string{"P 1 >Queued reconstructed", "P 2 Queued>Running", "P 3 Running>Succeeded Completed", "P gone"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("story of the pod (-want +got)\n%s", diff)
		}
	})
}

func TestAnOrphanLeavesTheIndexOfItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.send(kwatch.Added, pod("p", "P", 102, "Running", ownedBy("j", "J")))
		x.pods.send(kwatch.Modified, pod("p", "P", 103, "Running"))
		x.want(t, "P 1 >Queued reconstructed", "P 2 Queued>Running")
		x.w.mu.Lock()
		defer x.w.mu.Unlock()
		if len(x.w.pods) != 0 {
			t.Errorf("pods by owner: %v, want none", x.w.pods)
		}
	})
}

func TestTheGateHoldsTheWatchAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, func(o *Options) { o.MaxPending = 10 })
		x.log.mu.Lock()
		x.log.hold = true
		x.log.mu.Unlock()
		for i := range 10 {
			x.pods.send(kwatch.Added, pod(fmt.Sprintf("p%d", i), fmt.Sprintf("u%d", i), 101+i, "Pending"))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := x.w.Streams()[0]; !s.Held || s.Pending != 10 {
			t.Errorf("stream held: %v with %d pending, want held with 10", s.Held, s.Pending)
		}
		if got := x.pods.watches(); len(got) != 1 {
			t.Errorf("watches opened: %q, want only the first while the gate is closed", got)
		}
		x.log.release()
		synctest.Wait()
		if got := x.pods.watches(); len(got) != 2 || got[1] != "110" {
			t.Fatalf("watches of pods: %q, want a second from 110, and no list", got)
		}
		if got := x.jobs.watches(); len(got) != 2 || got[1] != "100" {
			t.Fatalf("watches of jobs: %q, want a second from 100, and no list", got)
		}
		x.pods.send(kwatch.Added, pod("late", "u10", 111, "Pending"))
		synctest.Wait()
		if got := x.log.story(); len(got) != 11 {
			t.Errorf("%d changes, want 11: %q", len(got), got)
		}
	})
}

func TestReasonsAloneAreToldWhenAskedFor(t *testing.T) {
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			x := start(t, func(o *Options) { o.Reasons = asked })
			x.pods.send(kwatch.Added, pod("a", "u1", 101, "Pending"))
			x.pods.send(kwatch.Modified, pod("a", "u1", 102, "Pending", func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}
			}))
			want := []string{"u1 1 >Queued"}
			if asked {
				want = append(want, "u1 2 Queued>Queued ErrImagePull")
			}
			x.want(t, want...)
		})
	}
}

func TestAStreamThatFailsSaysSoAndDeletesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Pending"))
		x.pods.mu.Lock()
		x.pods.fail = apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no"))
		x.pods.current <- kwatch.Event{Type: kwatch.Error, Object: &apierrors.NewResourceExpired("x").ErrStatus}
		x.pods.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		s := x.w.Streams()[0]
		x.pods.mu.Lock()
		if s.Failure == nil || s.Failures < 10 || s.Failures != x.pods.refused || s.Objects != 1 {
			t.Errorf("failure %v after %d failures of %d refused calls with %d objects, want each of ten and more, and the object", s.Failure, s.Failures, x.pods.refused, s.Objects)
		}
		x.pods.fail, x.pods.version = nil, "200"
		x.pods.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := x.w.Streams()[0]; s.Failure != nil || s.Mark != 200 {
			t.Errorf("failure %v, mark %d; want none and 200", s.Failure, s.Mark)
		}
		x.want(t, "u1 1 >Queued late")
	})
}

func TestAWatchThatBreaksGoesOnWhereItWas(t *testing.T) {
	broken := kwatch.Event{Type: kwatch.Error, Object: &apierrors.NewInternalError(errors.New("http2: client connection lost")).ErrStatus}
	for name, end := range map[string]func(*source){
		"a lost connection":                  func(s *source) { s.current <- broken },
		"a quiet watch that the server ends": func(s *source) { close(s.current) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := start(t, nil)
				for range 3 {
					x.pods.mu.Lock()
					end(x.pods)
					x.pods.mu.Unlock()
					time.Sleep(10 * time.Second)
					synctest.Wait()
				}
				if got, want := x.pods.watches(), []string{"list", "100", "100", "100"}; !slices.Equal(got, want) {
					t.Errorf("watches opened: %q, want %q", got, want)
				}
			})
		})
	}
}

func TestAServerThatEndsEveryWatchAtOnceIsNotStormed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.mu.Lock()
		x.pods.hasty = true
		close(x.pods.current)
		x.pods.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(x.pods.watches()); n < 5 || n > 30 {
			t.Errorf("%d watches in a minute, want 5 to 30", n)
		}
	})
}

func TestAServerThatRefusesIsWaitedForWithAnEyeOnTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		x.pods.mu.Lock()
		x.pods.fail = apierrors.NewTooManyRequests("later", 1)
		close(x.pods.current)
		x.pods.mu.Unlock()
		time.Sleep(time.Minute) // the back-off has grown
		began := time.Now()
		x.stop()
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("took %s to stop, want an instant", took)
		}
	})
}

func TestTheMarkWaitsForAllOfAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Pending"), pod("b", "u2", 60, "Pending"))
		x.log.mu.Lock()
		x.log.hold = true
		x.log.mu.Unlock()
		x.pods.relist("200", pod("a", "u1", 150, "Running"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := x.w.Streams()[0]; s.Mark != 100 || s.Pending != 2 {
			t.Errorf("mark %d with %d pending, want 100 with 2: the list at 200 is not durable", s.Mark, s.Pending)
		}
		x.log.release()
		synctest.Wait()
		if s := x.w.Streams()[0]; s.Mark != 200 {
			t.Errorf("mark %d, want 200", s.Mark)
		}
	})
}

func TestAnEventThatCannotBeReadIsCountedAndListedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		bad := pod("a", "u1", 101, "Pending")
		bad.ResourceVersion = "soon"
		x.pods.mu.Lock()
		x.pods.objects, x.pods.version = []runtime.Object{pod("a", "u1", 102, "Running")}, "102"
		x.pods.mu.Unlock()
		x.pods.send(kwatch.Added, bad)
		time.Sleep(10 * time.Second)
		x.want(t, "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
		for _, p := range x.reg.Pipelines() {
			if p.Target == "pods" && p.Dropped["unreadable"] != 1 {
				t.Errorf("dropped %v, want one unreadable", p.Dropped)
			}
		}
	})
}

func TestAnObjectThatCannotBeReadInAListIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil, pod("a", "u1", 50, "Running"))
		bad := pod("a", "u1", 150, "Running")
		bad.ResourceVersion = "soon"
		x.pods.mu.Lock()
		w := x.w.streams[0]
		x.pods.mu.Unlock()
		if err := w.Replace([]any{bad}, "200"); err != nil {
			t.Fatal(err)
		}
		x.want(t, "u1 1 >Queued reconstructed late", "u1 2 Queued>Running late")
	})
}

func TestBookmarksKeepAStreamFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, nil)
		time.Sleep(time.Minute)
		x.pods.send(kwatch.Bookmark, bookmark(&corev1.Pod{}, "500", false))
		synctest.Wait()
		if s := x.w.Streams()[0]; !s.Seen.Equal(time.Now()) || s.Mark != 500 {
			t.Errorf("seen %s, mark %d; want now, 500", s.Seen, s.Mark)
		}
	})
}
