package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

func TestWindowBoundsWhatIsRead(t *testing.T) {
	t.Parallel()
	for _, window := range []int{1, 10, 1000} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				sink := newRecorder(t, func(context.Context, statesync.Delivery, int) error {
					time.Sleep(time.Second)
					return nil
				})
				log := newLog(t)
				log.sink, log.window = sink, window
				o := options(t, log, sink)
				o.Window = window
				o.Concurrency = 100
				d, _ := start(t, o)
				log.addMany(1500, 1500)
				synctest.Wait()
				if log.furthest != int64(window) || log.reads > 3 {
					t.Errorf("read up to %d in %d reads while nothing is acknowledged, want %d in a few", log.furthest, log.reads, window)
				}
				if b := books(t, d); b.Queued != 1500 {
					t.Errorf("queued %d, want 1500: what is not read waits too", b.Queued)
				}
				time.Sleep(30 * time.Minute)
				synctest.Wait()
				if got := sink.count(); got != 1500 {
					t.Errorf("%d acknowledged, want 1500", got)
				}
			})
		})
	}
}

func TestCursorIsTheLowWaterMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := map[string]chan struct{}{}
		for _, id := range []string{"a-1", "b-1", "c-1", "d-1"} {
			release[id] = make(chan struct{})
		}
		sink := newRecorder(t, func(_ context.Context, d statesync.Delivery, _ int) error {
			<-release[d.ID]
			return nil
		})
		log := newLog(t)
		log.sink = sink
		d, _ := start(t, options(t, log, sink))
		log.add("a", "b", "c", "d")
		for _, step := range []struct {
			ack   string
			saved int64
		}{{"c-1", -1}, {"a-1", 1}, {"d-1", 1}, {"b-1", 4}} {
			close(release[step.ack])
			time.Sleep(saveEvery)
			synctest.Wait()
			if saved := log.lastSaved(); saved != step.saved {
				t.Errorf("after %s: cursor %d, want %d", step.ack, saved, step.saved)
			}
			if s := d.Standing(); s.Acked != max(0, step.saved) {
				t.Errorf("after %s: standing says %d, want %d", step.ack, s.Acked, step.saved)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(log.saved) != 2 {
			t.Errorf("saved %v, want each once: a cursor that has not moved costs an fsync", log.saved)
		}
	})
}

func TestBacklogIsCarried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, nil)
		sink.from = 40
		log := newLog(t)
		log.sink = sink
		log.addMany(100, 10)
		o := options(t, log, sink)
		o.Cursor.Acked = 40
		d, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if b := books(t, d); b.Carried != 60 || b.Queued != 60 || b.In != 0 {
			t.Errorf("books before Run %+v, want 60 carried and queued", b)
		}
		log.add("w0") // between New and Run
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		synctest.Wait()
		if b := books(t, d); b.Carried != 60 || b.In != 1 || b.Out != 61 || b.Queued != 0 {
			t.Errorf("books %+v, want 60 carried, 1 in, 61 out", b)
		}
		if got := sink.ids(); len(got) != 61 || sink.has("w0-4") || !sink.has("w0-5") {
			t.Errorf("%d delivered, want the 61 after the cursor", len(got))
		}
		cancel()
		if err := <-done; err != nil || log.lastSaved() != 101 {
			t.Errorf("error %v, cursor %d, want none and 101", err, log.lastSaved())
		}
	})
}

// TestBooksBalanceUnderLoad takes snapshots as fast as it can, in real time.
func TestBooksBalanceUnderLoad(t *testing.T) {
	t.Parallel()
	for name, ordered := range map[string]bool{"lanes": false, "ordered": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := newLog(t)
			var sink statesync.Sink = newRecorder(t, func(_ context.Context, d statesync.Delivery, try int) error {
				if d.Seq%40 == 0 && try == 1 {
					return errRefused
				}
				return nil
			})
			if ordered {
				sink = &orderedRecorder{t: t, answer: func(_ context.Context, try int) error {
					if try == 3 {
						return errRefused
					}
					return nil
				}}
			}
			o := options(t, log, sink)
			o.Window = 128
			d, _ := start(t, o)
			go func() {
				for range 100 {
					log.addMany(20, 20)
				}
			}()
			snapshots := 0
			until(t, "all is acknowledged", func() bool {
				for range 20 {
					if balance, ok := d.pipe.Snapshot().Balance(); balance != 0 || !ok {
						t.Fatalf("balance %d (known %t) in snapshot %d: %+v", balance, ok, snapshots, d.pipe.Snapshot())
					}
					snapshots++
				}
				return books(t, d).Out == 2000
			})
		})
	}
}

func TestMissingChangesAreDropsNotSilence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		from, to int64
	}{
		{"at the start", 1, 3},
		{"in the middle", 700, 700},
		{"more than a read", 5, 600},
		{"a whole read", 1, 512},
		{"at the end", 995, 1000},
		{"everything", 1, 1000},
	} {
		for _, ordered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ordered %t", tt.name, ordered), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					lost := tt.to - tt.from + 1
					log := newLog(t)
					log.addMany(1000, 1000)
					log.lose(tt.from, tt.to)
					var said bytes.Buffer
					lanes, inOrder := newRecorder(t, nil), &orderedRecorder{t: t}
					o := options(t, log, lanes)
					if ordered {
						o.Sink = inOrder
					}
					o.Logger = slog.New(slog.NewTextHandler(&said, nil))
					o.Window = 600
					d, stop := start(t, o)
					synctest.Wait()
					log.add("later")
					synctest.Wait()
					b := books(t, d)
					if b.Dropped["missing"] != lost || b.Out != 1001-lost || b.Queued != 0 {
						t.Errorf("books %+v, want %d dropped as missing, %d out, 0 queued", b, lost, 1001-lost)
					}
					if got := int64(len(lanes.ids()) + len(inOrder.acked)); got != 1001-lost {
						t.Errorf("%d delivered, want %d", got, 1001-lost)
					}
					if err := stop(); err != nil || log.lastSaved() != 1001 {
						t.Errorf("error %v, cursor %d, want none and 1001", err, log.lastSaved())
					}
					if !strings.Contains(said.String(), "missing from the ledger") {
						t.Errorf("the log says nothing of it: %s", said.String())
					}
				})
			})
		}
	}
}

// TestMarksDoNotClaimWhatIsMissing, at the log's end either.
func TestMarksDoNotClaimWhatIsMissing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, nil)
		log := newLog(t)
		o := options(t, log, sink)
		o.MarkEvery = time.Second
		start(t, o)
		log.add("a")
		time.Sleep(5 * time.Second)
		log.mu.Lock()
		log.head += 10 // that the file has lost
		log.wakeAll()
		log.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		claimed, skipped := int64(0), int64(0)
		for _, m := range sink.marks {
			claimed, skipped = claimed+m.Changes, skipped+m.Skipped
		}
		if claimed != 1 || skipped != 10 {
			t.Errorf("marks claim %d changes and leave %d out, want 1 and 10: %+v", claimed, skipped, sink.marks)
		}
	})
}

func TestOrderedSinkGetsTheLogsOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d *Dispatcher
		sink := &orderedRecorder{t: t}
		log := newLog(t)
		sink.answer = func(_ context.Context, try int) error {
			if try >= 2 && try <= 5 {
				log.addMany(100, 7) // what comes meanwhile must not change the batch
				return errRefused
			}
			return nil
		}
		log.addMany(2000, 13)
		d, _ = start(t, options(t, log, sink))
		time.Sleep(time.Minute)
		synctest.Wait()
		var want []string
		for _, c := range log.changes {
			want = append(want, c.ID)
		}
		if diff := cmp.Diff(want, sink.ackedIDs()); diff != "" {
			t.Errorf("(-log +acknowledged):\n%s", diff)
		}
		for try := 2; try <= 5; try++ {
			if diff := cmp.Diff(sink.batches[1], sink.batches[try]); diff != "" {
				t.Errorf("retry %d is not the batch that failed (-failed +retry):\n%s", try, diff)
			}
		}
		for _, batch := range sink.batches {
			if len(batch) > readBatch || len(batch) == 0 {
				t.Errorf("a batch of %d, want 1 to %d", len(batch), readBatch)
			}
		}
		if b := books(t, d); b.Retries["status_5xx"] != 4*readBatch || b.Out != 2400 {
			t.Errorf("books %+v, want each change of four failed batches as a retry, and 2400 out", b)
		}
	})
}

// TestBacklogOfAFailingSinkIsTold: what the log gains while a sink fails is
// on the books at once, whether or not the dispatcher can read it yet.
func TestBacklogOfAFailingSinkIsTold(t *testing.T) {
	t.Parallel()
	refuse := func() error { return errRefused }
	for name, sink := range map[string]statesync.Sink{
		"lanes":   newRecorder(t, func(context.Context, statesync.Delivery, int) error { return refuse() }),
		"ordered": &orderedRecorder{t: t, answer: func(context.Context, int) error { return refuse() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := newLog(t)
				o := options(t, log, sink)
				o.Window = 10
				d, _ := start(t, o)
				log.addMany(10, 10)
				time.Sleep(time.Second)
				log.addMany(5000, 10)
				time.Sleep(time.Millisecond)
				if s := d.Standing(); s.Waiting != 5010 || s.Head != 5010 {
					t.Errorf("standing says %d waiting of %d, want 5010 of 5010", s.Waiting, s.Head)
				}
				if b := books(t, d); b.In != 5010 || b.Queued != 5010 {
					t.Errorf("in %d, queued %d, want 5010: the backlog grows while the sink fails", b.In, b.Queued)
				}
			})
		})
	}
}

func TestPreviousSeq(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		since int64
		want  []string // id:previous
	}{
		{"a sink there from the start is told of each change before", 0, []string{"a-1:0", "b-1:0", "a-2:1", "a-3:2", "b-2:1", "c-1:0", "a-4:3"}},
		{"a sink added later was never offered the ones before", 3, []string{"a-3:0", "b-2:0", "c-1:0", "a-4:3"}},
		{"a sink added between two changes", 2, []string{"a-2:0", "a-3:2", "b-2:0", "c-1:0", "a-4:3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				sink := newRecorder(t, nil)
				sink.from = tt.since
				log := newLog(t)
				log.add("a", "b", "a", "a", "b", "c", "a")
				o := options(t, log, sink)
				o.Concurrency = 1
				o.Cursor.Since, o.Cursor.Acked = tt.since, tt.since
				start(t, o)
				synctest.Wait()
				got := map[string]string{}
				for _, d := range sink.acked {
					got[d.ID] = fmt.Sprintf("%s:%d", d.ID, d.PreviousSeq)
				}
				want := map[string]string{}
				for _, w := range tt.want {
					id, _, _ := strings.Cut(w, ":")
					want[id] = w
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
	t.Run("a restart changes nothing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			sink := newRecorder(t, nil)
			log := newLog(t)
			log.add("a", "a", "a", "a")
			o := options(t, log, sink)
			o.Cursor.Since, o.Cursor.Acked = 1, 3
			start(t, o)
			synctest.Wait()
			if len(sink.acked) != 1 || sink.acked[0].PreviousSeq != 3 {
				t.Errorf("%+v, want a-4 with previous 3: it was offered before the restart", sink.acked)
			}
		})
	})
}

func TestReadErrorIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, nil)
		log := newLog(t)
		log.failing = 3
		log.addMany(5, 5)
		var said bytes.Buffer
		o := options(t, log, sink)
		o.Logger = slog.New(slog.NewTextHandler(&said, nil))
		d, _ := start(t, o)
		time.Sleep(2500 * time.Millisecond)
		if sink.count() != 0 {
			t.Error("delivered what cannot be read")
		}
		if s := d.Standing(); s.Failing.IsZero() || s.Failure == nil || s.Waiting != 5 || time.Since(s.Oldest) < 2*time.Second {
			t.Errorf("%+v: want it to say that 5 changes cannot be read, and for how long they have waited", s)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if books(t, d); sink.count() != 5 || log.failing != 0 {
			t.Errorf("%d delivered, %d failures left: want 5 and 0", sink.count(), log.failing)
		}
		if !strings.Contains(said.String(), "disk on strike") {
			t.Errorf("the log does not say why: %s", said.String())
		}
	})
}

func TestStandingTellsHowASinkDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		sink := newRecorder(t, refusesUntil(&well))
		log := newLog(t)
		d, _ := start(t, options(t, log, sink))
		if diff := cmp.Diff(Standing{Name: "sink", Breaker: "closed"}, d.Standing()); diff != "" {
			t.Errorf("before anything (-want +got):\n%s", diff)
		}
		began := time.Now()
		log.add("a", "b")
		time.Sleep(time.Minute)
		s := d.Standing()
		if !s.Failing.Equal(began) || !errors.Is(s.Failure, errRefused) || !s.Stuck.Equal(began) || s.Waiting != 2 {
			t.Errorf("standing %+v, want failing since the first try at %s", s, began)
		}
		well.Store(true)
		time.Sleep(retryMax)
		s = d.Standing()
		if !s.Failing.IsZero() || s.Waiting != 0 || !s.Oldest.IsZero() || !s.Stuck.IsZero() || s.Acked != 2 {
			t.Errorf("standing %+v, want it well", s)
		}
		if b := books(t, d); b.Unit != "changes" || b.Name != "delivery" || b.Target != "sink" {
			t.Errorf("pipeline %s of %s in %s", b.Name, b.Target, b.Unit)
		}
	})
}

func TestStagesAreObserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newRecorder(t, func(context.Context, statesync.Delivery, int) error { time.Sleep(2 * time.Second); return nil })
		log := newLog(t)
		log.add("a")
		log.changes[0].Occurred = time.Now().Add(-time.Second)
		log.changes[0].Recorded = time.Now().Add(time.Second)
		time.Sleep(5 * time.Second)
		o := options(t, log, sink)
		start(t, o)
		time.Sleep(3 * time.Second)
		got := map[string]float64{}
		var named []metrics.Label
		for _, f := range o.Registry.Gather() {
			if f.Desc.Name == statesync.StageDesc().Name {
				for _, p := range f.Points {
					got[strings.Join(p.Tags, " ")] = p.Hist.Sum
					for _, e := range p.Hist.Exemplars {
						named = append(named, e.Labels...)
					}
				}
			}
		}
		want := map[string]float64{"occurred_observed sink": 1, "recorded_sent sink": 4, "sent_acknowledged sink": 2, "whole sink": 7}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seconds in each stage (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]metrics.Label{{Name: "change", Value: log.changes[0].ID}}, named); diff != "" {
			t.Errorf("exemplars (-want +got):\n%s", diff)
		}
	})
}

func TestTwoSinksOfOneNameAreRefused(t *testing.T) {
	t.Parallel()
	o := options(t, newLog(t), newRecorder(t, nil))
	if _, err := New(o); err != nil {
		t.Fatal(err)
	}
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "sink sink") {
		t.Errorf("error %v, want one that names the sink", err)
	}
}
