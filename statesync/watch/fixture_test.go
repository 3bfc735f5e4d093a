package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/metrics/metricstest"
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
	head    string   // how far the cluster has come; empty: far
	opened  []string // resourceVersion of each watch that was opened; "list" for a streamed list
	current chan kwatch.Event
	stop    chan struct{}
	fail    error // of the next calls
	refused int64 // calls that were
	hasty   bool  // every watch ends at once
}

func (s *source) List(_ context.Context, o metav1.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Limit == 1 && s.fail == nil {
		list := &metav1.List{}
		list.ResourceVersion = "1000000"
		if s.head != "" {
			list.ResourceVersion = s.head
		}
		return list, nil
	}
	s.refused++
	if s.fail != nil {
		return nil, s.fail
	}
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
// the test lets them. What is durable is what the next watcher begins with.
type record struct {
	mu      sync.Mutex
	entries []statesync.Entry // handed over
	hold    bool
	held    []waitingEntry    // and not durable
	kept    []statesync.Entry // durable
	dead    bool              // takes nothing any more
	bound   int               // of held; 0: none
	room    chan struct{}     // closed when there may be some

	epoch   int64
	begun   int // how often it has begun anew
	loaded  int // begun, when it was loaded last
	rows    map[string]statesync.Row
	streams map[string]statesync.Resume
	objects map[string]map[string]statesync.Object // by stream and UID
	stale   chan struct{}
}

// A waitingEntry was handed over and is not durable. What it says of objects
// counts only in the record that its watcher had loaded.
type waitingEntry struct {
	statesync.Entry
	loaded int
}

func newRecord(rows ...statesync.Row) *record {
	r := &record{
		epoch: 1, rows: map[string]statesync.Row{}, streams: map[string]statesync.Resume{},
		objects: map[string]map[string]statesync.Object{}, stale: make(chan struct{}), room: make(chan struct{}),
	}
	for _, row := range rows {
		r.rows[row.UID] = row
	}
	return r
}

func (r *record) Append(ctx context.Context, e statesync.Entry) error {
	r.mu.Lock()
	for r.bound > 0 && len(r.held) >= r.bound && !r.dead {
		room := r.room
		r.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
		r.mu.Lock()
	}
	if r.dead {
		r.mu.Unlock()
		return errors.New("the agent is dead")
	}
	r.entries = append(r.entries, e)
	if r.hold {
		r.held = append(r.held, waitingEntry{e, r.loaded})
		r.mu.Unlock()
		return nil
	}
	r.write(e)
	r.mu.Unlock()
	if e.Done != nil {
		e.Done()
	}
	return nil
}

// write makes an entry durable.
func (r *record) write(e statesync.Entry) {
	r.kept = append(r.kept, e)
	if e.Row.UID != "" {
		r.rows[e.Row.UID] = e.Row
	}
	delete(r.streams, e.Forget) // first, so that one entry can put another list in its place
	delete(r.objects, e.Forget)
	for _, o := range e.Objects {
		if r.objects[o.Stream] == nil {
			r.objects[o.Stream] = map[string]statesync.Object{}
		}
		if r.objects[o.Stream][o.UID] = o; o.Body == nil {
			delete(r.objects[o.Stream], o.UID)
		}
	}
	if e.Resume != nil {
		r.streams[e.Resume.Stream] = *e.Resume
	}
}

// release makes the first n entries that wait durable, or all.
func (r *record) release(n int) {
	r.mu.Lock()
	if n < 0 {
		r.hold = false
	}
	if n < 0 || n > len(r.held) {
		n = len(r.held)
	}
	now := r.held[:n]
	r.held = r.held[n:]
	r.makeDurable(now)
}

// releaseBut makes durable what waits and is not about a workload, as if that
// were slow to be handed over.
func (r *record) releaseBut(uid string) {
	r.mu.Lock()
	now, left := []waitingEntry{}, []waitingEntry{}
	for _, e := range r.held {
		if e.Row.UID == uid {
			left = append(left, e)
		} else {
			now = append(now, e)
		}
	}
	r.held = left
	r.makeDurable(now)
}

// makeDurable unlocks the record.
func (r *record) makeDurable(now []waitingEntry) {
	for _, e := range now {
		if e.loaded < r.begun {
			e.Objects, e.Resume = nil, nil
		}
		r.write(e.Entry)
	}
	close(r.room)
	r.room = make(chan struct{})
	r.mu.Unlock()
	for _, e := range now {
		if e.Done != nil {
			e.Done()
		}
	}
}

func (r *record) Load(context.Context) (*statesync.Memory, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loaded = r.begun
	m := &statesync.Memory{Epoch: r.epoch, Stale: r.stale}
	for _, uid := range slices.Sorted(maps.Keys(r.rows)) {
		row := r.rows[uid]
		stream, known := r.streams[row.Stream]
		if !row.Gone || row.State == statesync.Untracked || row.Stream != "" && (!known || stream.Lost != "" || row.Removed > stream.Version) {
			m.Rows = append(m.Rows, row)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.streams)) {
		m.Streams = append(m.Streams, r.streams[name])
	}
	return m, nil
}

func (r *record) Objects(_ context.Context, stream string, yield func(statesync.Object) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, uid := range slices.Sorted(maps.Keys(r.objects[stream])) {
		if err := yield(r.objects[stream][uid]); err != nil {
			return err
		}
	}
	return nil
}

func (r *record) NewEpoch(_ context.Context, reason string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	for name, s := range r.streams {
		s.Lost = reason
		r.streams[name] = s
	}
	return nil
}

// Recall implements [Recaller].
func (r *record) Recall(_ context.Context, uid string) (statesync.Row, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rows[uid], nil
}

// stall makes the record hold back what it is given from now on; once n
// entries wait, Append waits too. 0: never.
func (r *record) stall(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold, r.bound = true, n
}

// beginAnew is what a log does that was damaged: of its streams and rows it
// saves what saves says, by name and by UID; of the objects nothing.
func (r *record) beginAnew(saves func(string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	r.begun++
	clear(r.objects)
	maps.DeleteFunc(r.rows, func(uid string, _ statesync.Row) bool { return !saves(uid) })
	maps.DeleteFunc(r.streams, func(name string, _ statesync.Resume) bool { return !saves(name) })
	for name, s := range r.streams {
		s.Lost = statesync.GapLedgerLost
		r.streams[name] = s
	}
	close(r.stale)
	r.stale = make(chan struct{})
}

// crash is what is left when the agent dies: the durable part alone.
func (r *record) crash() *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := newRecord()
	left.epoch, left.rows, left.streams = r.epoch, maps.Clone(r.rows), maps.Clone(r.streams)
	left.kept, left.hold, left.bound = slices.Clone(r.kept), r.hold, r.bound
	for stream, objects := range r.objects {
		left.objects[stream] = maps.Clone(objects)
	}
	return left
}

// waiting reports whether entries wait to become durable, once all have been
// handed over.
func (r *record) waiting() bool {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held) > 0
}

// die makes the record take nothing any more.
func (r *record) die() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = true
	close(r.room)
	r.room = make(chan struct{})
}

// durable is what has become durable, over all lives of the agent.
func (r *record) durable() []statesync.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.kept)
}

// story is every change that the present watcher handed over, a line each; all
// is every one that is durable.
func (r *record) story() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return lines(r.entries)
}

func (r *record) all() []string { return lines(r.durable()) }

func lines(entries []statesync.Entry) []string {
	var out []string
	for _, e := range entries {
		for _, c := range e.Changes {
			if c.Gap != nil {
				out = append(out, fmt.Sprintf("%s gap %d %s %d-%d", c.Gap.Stream, c.Seq, c.Gap.Reason, c.Gap.FromRV, c.Gap.ToRV))
				continue
			}
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

func labelled(p *corev1.Pod) { p.Labels = map[string]string{"app": "x"} }

func in(namespace string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Namespace = namespace }
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

// A Deployment wants as many replicas as are available, unless wants says
// otherwise; a ReplicaSet wants one.

func deployment(name, uid string, available int32, edits ...func(*appsv1.Deployment)) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: job(name, uid, 0).ObjectMeta}
	d.Spec.Replicas, d.Status.AvailableReplicas = &available, available
	for _, edit := range edits {
		edit(d)
	}
	return d
}

func replicaSet(name, uid string, available int32) *appsv1.ReplicaSet {
	r := &appsv1.ReplicaSet{ObjectMeta: job(name, uid, 0).ObjectMeta}
	r.Status.AvailableReplicas = available
	return r
}

func wants(replicas int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Replicas = &replicas }
}

// notebook is a kind as the configuration describes one: an object says its
// state under the key state, and under the key broken that the rules fail.
func notebook() workload.Kind {
	return workload.Kind{
		Name: "Notebook", Group: "kubeflow.org", Version: "v1", Resource: "notebooks", Collection: "notebooks.kubeflow.org",
		Object: func() runtime.Object { return &corev1.ConfigMap{} },
		List:   func() runtime.Object { return &corev1.ConfigMapList{} },
		Reducer: func(obj runtime.Object) (*workload.Object, error) {
			m := obj.(*corev1.ConfigMap)
			o, err := workload.ReduceMeta("Notebook", m)
			if err == nil && m.Data["broken"] != "" {
				return o, errors.New(m.Data["broken"])
			}
			if err == nil {
				o.Said.State = statesync.State(m.Data["state"])
			}
			return o, err
		},
		Trimmer:  func(runtime.Object) {},
		Assessor: func(o *workload.Object) workload.Status { return workload.Status{State: o.Said.State, Back: true} },
	}
}

// under gives an object a controller; alone takes it away.
func under[T metav1.Object](obj T, owner metav1.Object) T {
	yes := true
	ref := metav1.OwnerReference{APIVersion: "apps/v1", Name: owner.GetName(), UID: owner.GetUID(), Controller: &yes}
	switch owner.(type) {
	case *appsv1.Deployment:
		ref.Kind = "Deployment"
	case *appsv1.ReplicaSet:
		ref.Kind = "ReplicaSet"
	case *batchv1.Job:
		ref.APIVersion, ref.Kind = "batch/v1", "Job"
	case *corev1.ConfigMap:
		ref.APIVersion, ref.Kind = "kubeflow.org/v1", "Notebook"
	}
	obj.SetOwnerReferences([]metav1.OwnerReference{ref})
	return obj
}

func alone[T metav1.Object](obj T) T {
	obj.SetOwnerReferences(nil)
	return obj
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
		log:  newRecord(), reg: metricstest.Registry(t),
	}
	o := Options{
		Cluster: "c", Log: x.log, Registry: x.reg,
		Streams: []Stream{{Kind: workload.Kinds["Pod"], Source: x.pods}, {Kind: workload.Kinds["Job"], Source: x.jobs}},
		Logger:  slog.New(slog.DiscardHandler), Now: time.Now, Workers: 2,
	}
	if edit != nil {
		edit(&o)
		x.log = o.Log.(*record)
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

// onto starts a watcher on a log and a cluster: of pods, but for what edit says.
func onto(t *testing.T, log *record, c *cluster, edit func(*Options)) *world {
	t.Helper()
	return start(t, func(o *Options) {
		o.Log = log
		o.Streams = []Stream{{Kind: workload.Kinds["Pod"], Source: c.source("pods")}}
		if edit != nil {
			edit(o)
		}
	})
}

// again starts a watcher on what is left when the one before has stopped.
func (x *world) again(t *testing.T, c *cluster, edit func(*Options)) *world {
	t.Helper()
	x.stop()
	return onto(t, x.log.crash(), c, edit)
}

// killed starts a watcher on what is left when the one before was killed.
func (x *world) killed(t *testing.T, c *cluster, edit func(*Options)) *world {
	t.Helper()
	left := x.log.crash()
	x.log.die()
	x.stop()
	left.hold, left.bound = false, 0
	return onto(t, left, c, edit)
}

// These edit what onto watches: what has the label app=x, some namespaces
// alone, or Jobs too.

func selecting(o *Options) { selectingOf(o, 0) }

func selectingOf(o *Options, i int) {
	s := &o.Streams[i]
	s.Selector, s.Source = "app=x", s.Source.(*collection).labelled()
}

func inNamespaces(names ...string) func(*Options) {
	return func(o *Options) {
		all := o.Streams[0]
		o.Streams = nil
		for _, ns := range names {
			o.Streams = append(o.Streams, Stream{Kind: all.Kind, Namespace: ns, Source: all.Source.(*collection).within(ns)})
		}
	}
}

func withJobs(o *Options) {
	jobs := o.Streams[0].Source.(*collection).c.source("jobs")
	o.Streams = append(o.Streams, Stream{Kind: workload.Kinds["Job"], Source: jobs})
}

// withDeployments and withReplicaSets watch those too; withHop, ReplicaSets to
// know who controls whom; podsFoldOnly, pods only to tell the stories of others.

func withDeployments(o *Options) { add(o, workload.Kinds["Deployment"]) }
func withReplicaSets(o *Options) { add(o, workload.Kinds["ReplicaSet"]) }

func withHop(o *Options) {
	replicaSets := o.Streams[0].Source.(*collection).c.source("replicasets").hop()
	o.Streams = append(o.Streams, Stream{Kind: workload.Hop(workload.Kinds["ReplicaSet"]), Source: replicaSets, FoldOnly: true})
}

func podsFoldOnly(o *Options) { o.Streams[0].FoldOnly = true }

func add(o *Options, k workload.Kind) {
	o.Streams = append(o.Streams, Stream{Kind: k, Source: o.Streams[0].Source.(*collection).c.source(k.Resource)})
}

// all does several edits.
func all(edits ...func(*Options)) func(*Options) {
	return func(o *Options) {
		for _, edit := range edits {
			edit(o)
		}
	}
}

// lives counts the lives that the watcher remembers.
func (x *world) lives() int {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	return len(x.w.lives)
}

// told is what has become durable of one workload.
func (r *record) told(uid string) (out []string) {
	for _, line := range r.all() {
		if strings.HasPrefix(line, uid+" ") {
			out = append(out, line)
		}
	}
	return out
}

// passing lets time pass, so that what is dirty is flushed.
func passing(d time.Duration) {
	time.Sleep(d) // sleep: in a bubble
	synctest.Wait()
}

func (x *world) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, x.log.story()); diff != "" {
		t.Errorf("story (-want +got)\n%s", diff)
	}
}

// wantTold is for stories of several workloads, which the workers tell side by
// side.
func wantTold(t *testing.T, log *record, uid string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, log.told(uid)); diff != "" {
		t.Errorf("told of %s (-want +got)\n%s", uid, diff)
	}
}
