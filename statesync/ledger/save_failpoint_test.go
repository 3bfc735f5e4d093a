//go:build failpoint && unix

package ledger

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

const savedTimes = 12

// TestFailpointsOfSaving makes every step of what sinks do the last one of a
// process, and every step fail: what is left was saved once, and whole.
func TestFailpointsOfSaving(t *testing.T) {
	const dirVariable = "OUTRIDER_TEST_FAILPOINTS_OF_SAVING_DIR"
	if dir := os.Getenv(dirVariable); dir != "" {
		saveThroughFailpoints(t, dir)
		return
	}
	t.Parallel()
	for point, actions := range map[string][]string{
		"save": {"kill@1", "kill@5", "EIO@1", "EIO@5"}, "commit": {"kill@8", "EIO@8"}, "committed": {"kill@8", "EIO@8", "EIO@9"},
		"settled": {"kill@8"}, "alter": {"kill@1", "kill@2", "EIO@2"}, "altered": {"kill@1", "kill@2", "EIO@2"}, "attach": {"kill@1", "EIO@1"},
	} {
		for _, action := range actions {
			t.Run(point+" "+action, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				out, _ := failingChild(t, dirVariable+"="+dir, "ledger/"+point, action)
				wasSaved(t, open(t, dir), int64(strings.Count(out, "saved\n")), strings.Contains(out, "attached\n"))
			})
		}
	}
}

// wasSaved fails unless the ledger has so many savings of the child, or one
// more, each once.
func wasSaved(t *testing.T, l *Ledger, done int64, attached bool) {
	t.Helper()
	sinks, err := l.Sinks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(sinks) == 0 {
		if done > 0 {
			t.Errorf("no cursor, and %d were saved", done)
		}
		return
	}
	c, got := sinks[0], asides(t, l, "s")
	if c.Letters < done || c.Letters > done+1 || c.Acked != c.Letters {
		t.Errorf("cursor %+v, want %d, or one more, with as many dead letters", c, done)
	}
	if len(got) > 0 && got[0].Gap != nil {
		if len(got) != 2 || tell(&got[0]) != fmt.Sprintf("stream/sink/s 1 gap 0..%d", savedTimes) || !got[1].Initial || c.Detached != "" {
			t.Errorf("put aside %q of cursor %+v, want a gap and a state", tellAll(got), c)
		}
		return
	}
	if attached || int64(len(got)) != c.Letters {
		t.Fatalf("attached %t, and put aside %q", attached, tellAll(got))
	}
	for i := range got {
		if got[i].Number != int64(i+1) {
			t.Errorf("put aside %q, want each change once", tellAll(got))
		}
	}
}

// saveThroughFailpoints is the child.
func saveThroughFailpoints(t *testing.T, dir string) {
	l, err := Open(options(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	cursorOf(t, l, "s")
	stop := start(t, l)
	say := func(word string) {
		if _, err := os.Stdout.WriteString(word + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(savedTimes) {
		record(t, l, entry("u", i+1, 1))
		o, saved := offered(t, l, i+1), make(chan struct{})
		l.Save(statesync.Progress{
			Sink: "s", Acked: i + 1, PutAside: []statesync.Offered{o}, Letters: []statesync.DeadLetter{{Delivery: o.Delivery}},
			Saved: func() { close(saved) },
		})
		<-saved
		say("saved")
	}
	l.Save(statesync.Progress{Sink: "s", Acked: savedTimes, Detach: statesync.DetachedGone})
	deadline := time.Now().Add(10 * time.Second)
	until(t, "it is attached", func() bool {
		_, err := l.Attach(t.Context(), "s")
		if errors.Is(err, errSink) {
			t.Errorf("attach after a lost answer: %v", err)
		}
		return err == nil || time.Now().After(deadline)
	})
	say("attached")
	if err := errors.Join(stop(), l.Close()); err != nil {
		t.Fatal(err)
	}
}
