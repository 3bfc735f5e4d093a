package scenario

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// heap returns the bytes in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkWrites is the driver alone, with nobody who watches.
func BenchmarkWrites(b *testing.B) {
	for _, workloads := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(workloads), func(b *testing.B) {
			s, _ := start(b, Options{Seed: 1, Workloads: workloads})
			writes, offered := s.writes, s.pace.done
			b.ReportAllocs()
			for b.Loop() {
				s.step()
			}
			took := b.Elapsed().Seconds()
			b.ReportMetric(float64(s.writes-writes)/took, "writes/s")
			b.ReportMetric((s.pace.done-offered)/took, "changes/s")
		})
	}
}

// BenchmarkObjects makes whole objects of their versions, as a list does.
func BenchmarkObjects(b *testing.B) {
	s, c := start(b, Options{Seed: 1, Workloads: 1000})
	for _, r := range c.Resources() {
		objects, _, err := c.List(r, "")
		if err != nil {
			b.Fatal(err)
		}
		b.Run(r.Plural, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				objects[i%len(objects)].Source.Object()
			}
		})
	}
	runtime.KeepAlive(s)
}

// BenchmarkMemory says what 100,000 pods take in all: in the cluster with its
// history, in the scenario, and in the truth.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		before := heap()
		s, c := start(b, Options{Seed: 1, Workloads: 100_000, Mix: Mix{Notebooks: 1}})
		all := heap()
		s.truth = nil
		without := heap()
		pods := float64(s.Figures().Live["pods"])
		b.ReportMetric(pods, "pods")
		b.ReportMetric(float64(all-before)/1e6, "MB")
		b.ReportMetric(float64(all-without)/pods, "truth-B/pod")
		runtime.KeepAlive(c)
	}
}

func TestATruthIsSmall(t *testing.T) {
	const n = 50_000
	before := heap()
	tr := truth()
	for i := range n {
		id := []byte(fmt.Sprintf("training-%06d00000000-0000-4000-8000-%012d", i, i))
		both := string(id)
		tr.tell(kindPod, &entity{namespace: "team-01", name: both[:15], uid: types.UID(both[15:])}, queued, time.Now())
	}
	if each := (heap() - before) / n; each > 200 {
		t.Errorf("got %d bytes a workload, want 200 at most", each)
	}
	runtime.KeepAlive(tr)
}
