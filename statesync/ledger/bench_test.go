package ledger

import (
	"context"
	"fmt"
	"sync"
	"testing"
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
		got, err := l.Read(context.Background(), int64(done%n), batch)
		if err != nil || len(got) != batch {
			b.Fatal(len(got), err)
		}
	}
}
