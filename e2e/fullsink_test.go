package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	ledgerBound = 8 << 20 // the smallest that a ledger may have
	// onDisk is what its files may take: free pages are not what the bound is
	// about, and the write-ahead log may be as long as an eighth of it before it
	// is cut.
	onDisk = ledgerBound / 4 * 5
	// inPages is what may be in use: the bound, and what was under way when it
	// was reached.
	inPages = ledgerBound / 64 * 65
)

// TestASinkThatIsDeadForEver fills the ledger with changes that one sink does
// not take. That sink is detached; the others get everything in time, what
// they have is deleted, and the disk holds. It comes back by a reload, with a
// gap and the states of the living.
func TestASinkThatIsDeadForEver(t *testing.T) {
	needCluster(t)
	s := newSession(t, "dead")
	dead := startReceiverAt(t, "127.0.0.1:0")
	dead.answers(503, 0)
	config := with(t, configOf(s.ns), "  sinks:", "  ledger: {max_bytes: 8MiB, keep: 1h}\n  sinks:")
	config = withSink(config, "dead", dead.url)
	a := startAgent(t, s.dir, config) // and nobody copies the ledger: who reads it for long makes its log longer
	stop := watchOver(t, filepath.Join(s.dir, "outrider-data"))
	still := pods(t, s.ns, "still", 3, nil)
	still.tell(s.want, podRuns)
	for i := 0; sizeOf(t) < ledgerBound/20*17; i++ {
		fill := pods(t, s.ns, fmt.Sprintf("fill-%d", i), 20, second, heavy()...)
		fill.tell(s.want, podSucceeds)
		s.hook.tells(t, time.Minute, s.want)
		fill.deletePods(t, s.ns)
	}
	l := load{labels: heavy()} // slowly: a twentieth of this bound is little
	l.start(t.Context(), t, s.ns, 1_000, 3)
	detached(t, "dead")
	_, message := check(t, "sink/dead")
	t.Logf("the digest says: %s", message)
	if status, message := check(t, "ledger"); status != "pass" {
		t.Errorf("the ledger: %s: %s, want it well: only the dead sink is", status, message)
	}
	during := pods(t, s.ns, "during", 100, second, heavy()...) // there is room again
	during.tell(s.want, podSucceeds)
	l.finish(t)
	s.hook.tells(t, time.Minute, s.want)
	if n := total(metrics(t), "outrider_ledger_pruned_total", `table="changes"`); n == 0 {
		t.Error("retention has deleted nothing, want what the living sinks have")
	}
	stop()
	if n := len(dead.everything()); n != 0 {
		t.Fatalf("the dead sink took %d events", n)
	}

	dead.answers(0, 0)
	a.reload(config)
	fresh := pods(t, s.ns, "fresh", 3, second)
	fresh.tell(s.want, podSucceeds)
	maps.Copy(s.want, l.stories())
	s.hook.tells(t, time.Minute, s.want)
	quiet(t, time.Minute)
	a.stop()
	found := gapsOf(dead.received())
	if g := gaps(found["sink/dead"]); len(g) != 1 || g[0].FromNumber != 0 || g[0].ToNumber < 3*int64(len(during)) {
		t.Errorf("gaps %+v, want one of the sink from number 0 on", g)
	}
	stands := map[string]string{} // the states of all that lived since number 0, and changes from then on
	for uid, story := range s.want {
		story, _, _ = strings.Cut(story[strings.LastIndex(story, ">")+1:], "(")
		stands[uid] = "Pod " + story
	}
	fresh.tell(stands, podSucceeds)
	compare(t, "the sink that came back", stands, tellings(dead.received()))
	whole(t, "the sink that came back", dead.everything())
	s.told(t)
}

// sizeOf is what the ledger's bound is about.
func sizeOf(t *testing.T) float64 {
	t.Helper()
	return total(metrics(t), "outrider_ledger_size_bytes")
}

// watchOver looks all the time that the ledger is within its bound, that no
// watch waits and that the other sinks are well, until stop is called.
func watchOver(t *testing.T, data string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	most, inUse, parts := int64(0), 0.0, [2]int64{}
	wg.Go(func() {
		for ctx.Err() == nil {
			now := [2]int64{}
			for i, name := range []string{"ledger.db", "ledger.db-wal"} {
				if info, err := os.Stat(filepath.Join(data, name)); err == nil {
					now[i] = info.Size()
				}
			}
			if size := now[0] + now[1]; size > most {
				most, parts = size, now
			}
			if _, body := get("http://127.0.0.1:9610/metrics"); ctx.Err() == nil {
				inUse = max(inUse, total(body, "outrider_ledger_size_bytes"))
				if held := total(body, "outrider_stream_held"); held > 0 {
					t.Errorf("%v watches wait, want none: one sink alone is dead", held)
					return
				}
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		t.Logf("the ledger took %d KiB of the disk at most, %d KiB of it the WAL, and had %.0f KiB in use at most", most>>10, parts[1]>>10, inUse/1024)
		if most > onDisk || inUse > inPages {
			t.Errorf("the ledger took %d bytes and had %.0f in use, want %d and %d at most", most, inUse, onDisk, inPages)
		}
	})
	t.Cleanup(stop)
	return stop
}
