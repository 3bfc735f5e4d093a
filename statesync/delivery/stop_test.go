package delivery

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

func TestStopLetsWhatIsInFlightFinish(t *testing.T) {
	t.Parallel()
	for name, ordered := range map[string]bool{"lanes": false, "ordered": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				slow := func(ctx context.Context) error {
					time.Sleep(finishTime - 100*time.Millisecond)
					return ctx.Err()
				}
				log := newLog(t)
				lanes := newRecorder(t, func(ctx context.Context, _ statesync.Delivery, _ int) error { return slow(ctx) })
				inOrder := &orderedRecorder{t: t, answer: func(ctx context.Context, _ int) error { return slow(ctx) }}
				o := options(t, log, lanes)
				o.Concurrency = 3
				if ordered {
					o.Sink = inOrder
				}
				d, stop := start(t, o)
				log.add("a", "b", "a", "c", "d", "e") // d and e have no worker yet
				synctest.Wait()
				began := time.Now()
				if err := stop(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took != finishTime-100*time.Millisecond {
					t.Errorf("stopped after %s, want it when the last delivery in flight is done", took)
				}
				// In flight were the first of each lane, or the batch as it was then.
				if got, want := int64(len(lanes.ids())), int64(3); !ordered && got != want {
					t.Errorf("%d acknowledged, want %d: what was in flight and nothing new", got, want)
				}
				saved := log.lastSaved()
				if want := int64(2); !ordered && saved != want {
					t.Errorf("cursor %d, want %d", saved, want)
				}
				if ordered && saved != int64(len(inOrder.acked)) {
					t.Errorf("cursor %d, want the %d acknowledged", saved, len(inOrder.acked))
				}
				if b := books(t, d); b.Out == 0 || b.Out+b.Queued != 6 {
					t.Errorf("books %+v, want the rest of 6 queued", b)
				}
			})
		})
	}
}

func TestStopDoesNotWaitForAHangingSink(t *testing.T) {
	t.Parallel()
	type deliver = func(context.Context) error
	for _, tt := range []struct {
		name    string
		hang    func(forever chan struct{}) deliver
		min     time.Duration
		max     time.Duration
		wantErr string
	}{
		{
			"one that hears its context is told after the grace",
			func(chan struct{}) deliver {
				return func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			}, finishTime, finishTime, "",
		},
		{
			"one that hears nothing is left behind",
			func(forever chan struct{}) deliver {
				return func(context.Context) error { <-forever; return nil }
			}, finishTime, 3 * time.Second, "sink sink",
		},
	} {
		for kind, ordered := range map[string]bool{"lanes": false, "ordered": true} {
			t.Run(tt.name+", "+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					forever := make(chan struct{})
					defer func() { close(forever); synctest.Wait() }()
					hang := tt.hang(forever)
					log := newLog(t)
					o := options(t, log, newRecorder(t, func(ctx context.Context, d statesync.Delivery, _ int) error {
						if d.Workload.Name == "good" {
							return nil
						}
						return hang(ctx)
					}))
					if ordered {
						o.Sink = &orderedRecorder{t: t, answer: func(ctx context.Context, _ int) error { return hang(ctx) }}
					}
					d, stop := start(t, o)
					log.add("good", "bad", "bad")
					synctest.Wait()
					stopped := make(chan error, 1)
					began := time.Now()
					go func() { stopped <- stop() }()
					select {
					case err := <-stopped:
						if took := time.Since(began); took < tt.min || took > tt.max {
							t.Errorf("stopped after %s, want %s to %s", took, tt.min, tt.max)
						}
						if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
							t.Errorf("error %v, want %q", err, tt.wantErr)
						}
					case <-time.After(time.Hour):
						t.Error("still running after an hour")
					}
					if saved := log.lastSaved(); !ordered && saved != 1 {
						t.Errorf("cursor %d, want the 1 that is acknowledged", saved)
					}
					if b := books(t, d); b.Queued != b.In-b.Out || b.Queued < 2 {
						t.Errorf("books %+v, want what hangs still queued", b)
					}
				})
			})
		}
	}
}

// TestStopWhileBackingOff: a wait of ten seconds, or of the minutes that a
// receiver asked for, does not hold the stop up.
func TestStopWhileBackingOff(t *testing.T) {
	t.Parallel()
	later := &statesync.SinkError{Cause: "status_4xx", After: 15 * time.Minute, Err: errors.New("status 429")}
	for name, sink := range map[string]statesync.Sink{
		"lanes":   newRecorder(t, func(context.Context, statesync.Delivery, int) error { return later }),
		"ordered": &orderedRecorder{t: t, answer: func(context.Context, int) error { return later }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := newLog(t)
				_, stop := start(t, options(t, log, sink))
				log.add("a", "b", "a")
				time.Sleep(time.Second)
				began := time.Now()
				if err := stop(); err != nil || time.Since(began) != 0 {
					t.Errorf("stopped after %s with %v, want at once: nothing is in flight", time.Since(began), err)
				}
				if saved, aside := log.lastSaved(), len(log.aside); saved != int64(aside) && saved != -1 {
					t.Errorf("cursor %d saved, and %d changes are aside, want as many", saved, aside)
				}
			})
		})
	}
}

func TestStopOfAnIdleDispatcherIsImmediate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newLog(t)
		_, stop := start(t, options(t, log, newRecorder(t, nil)))
		log.addMany(10, 3)
		synctest.Wait()
		began := time.Now()
		if err := stop(); err != nil || time.Since(began) != 0 || log.lastSaved() != 10 {
			t.Errorf("error %v after %s, cursor %d: want none, at once, and the last cursor 10", err, time.Since(began), log.lastSaved())
		}
	})
}
