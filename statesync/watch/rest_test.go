package watch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// elsewhere is a collection in another etcd.
type elsewhere struct {
	Source
	by int
}

func (s elsewhere) shift(o runtime.Object) {
	if m, err := meta.Accessor(o); err == nil {
		v, _ := strconv.Atoi(m.GetResourceVersion())
		m.SetResourceVersion(strconv.Itoa(v + s.by))
	}
}

func (s elsewhere) List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	l, err := s.Source.List(ctx, o)
	if err == nil {
		a, _ := meta.ListAccessor(l)
		v, _ := strconv.Atoi(a.GetResourceVersion())
		a.SetResourceVersion(strconv.Itoa(v + s.by))
		_ = meta.EachListItem(l, func(o runtime.Object) error { s.shift(o); return nil })
	}
	return l, err
}

func (s elsewhere) Watch(ctx context.Context, o metav1.ListOptions) (kwatch.Interface, error) {
	if v, err := strconv.Atoi(o.ResourceVersion); err == nil && v > 0 {
		o.ResourceVersion = strconv.Itoa(v - s.by)
	}
	w, err := s.Source.Watch(ctx, o)
	if err != nil {
		return nil, err
	}
	return kwatch.Filter(w, func(e kwatch.Event) (kwatch.Event, bool) {
		if e.Type != kwatch.Error {
			e.Object = e.Object.DeepCopyObject()
			s.shift(e.Object)
		}
		return e, true
	}), nil
}

func wrap(resource string, f func(Source) Source) func(*Options) {
	return func(o *Options) {
		for i, s := range o.Streams {
			if s.Kind.Resource == resource || resource == "" {
				o.Streams[i].Source = f(s.Source)
			}
		}
	}
}

// atRest checks that nothing is counted, and nobody held, when all is told.
func (x *world) atRest(t *testing.T) {
	t.Helper()
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	if x.w.waiting != 0 || x.w.behind != 0 || x.w.ahead != [2]int{} || x.w.total != 0 || x.w.gate.closed() {
		t.Errorf("waiting %d, behind %d, ahead %v, total %d, gate closed: %v, want none", x.w.waiting, x.w.behind, x.w.ahead, x.w.total, x.w.gate.closed())
	}
	for _, s := range x.w.streams {
		if s.ahead != 0 || s.inflight.Len() > 0 || s.step.closed() || s.waits || s.leads {
			t.Errorf("stream %s: ahead %d, in flight %d, held: %v, waits: %v, leads: %v, want none", s.Name(), s.ahead, s.inflight.Len(), s.step.closed(), s.waits, s.leads)
		}
	}
}

// TestNothingIsHeldForEver: streams that lag, fail, are cut off and set back,
// some of another etcd; all is told in the end.
func TestNothingIsHeldForEver(t *testing.T) {
	seeds(t, 40, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := newCluster()
		edits := []func(*Options){withJobs}
		if r.IntN(2) == 0 {
			edits = append(edits, withDeployments, withHop)
		}
		bound := []int{8, 20, 50, 100, 400}[r.IntN(5)]
		edits = append(edits, func(o *Options) { o.MaxPending = bound })
		slow := []string{"pods", "jobs", "none"}[r.IntN(3)]
		edits = append(edits, crawling(slow, time.Duration(r.IntN(100))*time.Millisecond))
		if r.IntN(3) == 0 {
			edits = append(edits, wrap([]string{"pods", "jobs"}[r.IntN(2)], func(s Source) Source { return elsewhere{s, 100_000} }))
		}
		x := onto(t, newRecord(), c, all(edits...))
		passing(time.Second)
		for i := range 200 {
			name, uid := fmt.Sprint("j", r.IntN(60)), fmt.Sprint("J", i)
			j, p := job(name, uid, 0), pod(fmt.Sprint("p", i), fmt.Sprint("P", i), 0, "Pending", ownedBy(name, uid))
			j.CreationTimestamp, p.CreationTimestamp = metav1.Now().Rfc3339Copy(), metav1.Now().Rfc3339Copy()
			if r.IntN(8) > 0 {
				c.write(kwatch.Added, j)
			}
			c.write(kwatch.Added, p)
			c.write(kwatch.Modified, running(p))
			p.Status.Phase = "Failed"
			if r.IntN(3) > 0 {
				c.write(kwatch.Modified, p)
				c.write(kwatch.Deleted, p)
			}
			if r.IntN(4) > 0 {
				c.write(kwatch.Modified, ends(j))
				for range r.IntN(6) {
					c.write(kwatch.Modified, j)
				}
			}
			c.write(kwatch.Deleted, j)
			if r.IntN(3) == 0 {
				passing(time.Duration(r.IntN(2000)) * time.Millisecond)
			}
			res := []string{"pods", "jobs"}[r.IntN(2)]
			switch r.IntN(40) {
			case 0:
				c.cutOff(res)
			case 1:
				c.refusing(res, apierrors.NewServiceUnavailable("x"))
				c.cutOff(res)
			case 2, 3:
				c.refusing("pods", nil)
				c.refusing("jobs", nil)
			case 4:
				c.compact()
			case 5:
				if r.IntN(3) == 0 {
					c.restore(c.head() - r.IntN(min(20, c.head())))
				}
			case 6:
				c.refusing(res, apierrors.NewForbidden(batchv1.Resource(res), "", fmt.Errorf("no")))
				c.cutOff(res)
			}
		}
		c.refusing("pods", nil)
		c.refusing("jobs", nil)
		passing(15 * time.Minute)
		c.bookmark()
		passing(15 * time.Minute)
		x.atRest(t)
	})
}
