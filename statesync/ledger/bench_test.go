package ledger

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// BenchmarkAppend measures changes from Append to durable, fsync included, in
// groups as they form: one operation is one entry of one change.
func BenchmarkAppend(b *testing.B) {
	for _, workloads := range []int{1, 1000} {
		b.Run(fmt.Sprintf("workloads=%d", workloads), func(b *testing.B) {
			l := open(b, b.TempDir())
			start(b, l)
			seq := make([]int64, workloads)
			var durable sync.WaitGroup
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				u := i % workloads
				seq[u]++
				e := entry(fmt.Sprintf("uid-%d", u), seq[u], 1)
				durable.Add(1)
				e.Done = durable.Done
				if err := l.Append(context.Background(), e); err != nil {
					b.Fatal(err)
				}
			}
			durable.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
			if s := l.commits.Snapshot(); s.Count > 0 {
				b.ReportMetric(float64(b.N)/float64(s.Count), "changes/fsync")
			}
		})
	}
}

// BenchmarkAppendAlone measures one change at a time: what a quiet cluster's
// change waits for its fsync.
func BenchmarkAppendAlone(b *testing.B) {
	l := open(b, b.TempDir())
	start(b, l)
	for i := int64(1); b.Loop(); i++ {
		record(b, l, entry("u", i, 1))
	}
}

// BenchmarkRead measures reading back, in the batches of a sink that is
// behind: one operation is one change.
func BenchmarkRead(b *testing.B) {
	l := open(b, b.TempDir())
	start(b, l)
	const n, batch = 2048, 512
	for i := range int64(n / 16) {
		record(b, l, entry("u", 16*i+1, 16))
	}
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		got, err := readLog(context.Background(), l, int64(done%n), batch)
		if err != nil || len(got) != batch {
			b.Fatal(len(got), err)
		}
	}
}

// BenchmarkFlush measures what is kept of a stream: one operation is one entry
// of 512 objects of 600 bytes and the resume point, of a stream of 20 000.
func BenchmarkFlush(b *testing.B) {
	l := open(b, b.TempDir())
	start(b, l)
	const stream, flushed = 20_000, 512
	body := make([]byte, 600)
	var durable sync.WaitGroup
	for i := 0; b.Loop(); i++ {
		e := resume("pods", uint64(i+1))
		for j := range flushed {
			uid := fmt.Sprintf("00000000-0000-0000-0000-%012d", (i*flushed+j)*7919%stream)
			e.Objects = append(e.Objects, statesync.Object{Stream: "pods", UID: uid, Body: body})
		}
		durable.Add(1)
		e.Done = durable.Done
		if err := l.Append(context.Background(), e); err != nil {
			b.Fatal(err)
		}
		if i%4 == 3 {
			durable.Wait() // the watch does not run ahead either
		}
	}
	durable.Wait()
	b.ReportMetric(float64(flushed*b.N)/b.Elapsed().Seconds(), "objects/s")
}

// BenchmarkAppendBesideCheckpoints measures one change at a time, as
// BenchmarkAppendAlone does, while what flushes write is copied into the
// database all the time.
func BenchmarkAppendBesideCheckpoints(b *testing.B) {
	for _, checkpoints := range []bool{false, true} {
		b.Run(fmt.Sprintf("checkpoints=%t", checkpoints), func(b *testing.B) {
			l := open(b, b.TempDir())
			start(b, l)
			body := make([]byte, 600)
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for i := 0; checkpoints; i++ {
					select {
					case <-stop:
						return
					default:
					}
					if i%20 == 0 { // pages all over the file
						e := statesync.Entry{}
						for j := range 512 {
							uid := fmt.Sprintf("%012d", (i*512+j)*7919%20_000)
							e.Objects = append(e.Objects, statesync.Object{Stream: "pods", UID: uid, Body: body})
						}
						record(b, l, e)
					}
					if _, err := l.checkpoint(context.Background(), "PASSIVE"); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			var took []time.Duration
			for i := int64(1); b.Loop(); i++ {
				began := time.Now()
				record(b, l, entry("u", i, 1))
				took = append(took, time.Since(began))
			}
			close(stop)
			if checkpoints {
				<-stopped
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
		})
	}
}
