//go:build failpoint && unix

package ledger

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// TestFailpointsOfReplay ends a replay of dead letters in the middle of a
// transaction: each is then a dead letter or to be sent, and never both.
func TestFailpointsOfReplay(t *testing.T) {
	const dirVariable = "OUTRIDER_TEST_FAILPOINTS_OF_REPLAY_DIR"
	if dir := os.Getenv(dirVariable); dir != "" {
		l := open(t, dir)
		// Ten a transaction.
		_, err := replay.Run(t.Context(), l, replay.Query{Sink: "s", Letters: true, Rate: 40}, func(replay.Report) {})
		if err == nil || !strings.Contains(err.Error(), "input/output error") {
			t.Errorf("error %v, want that of the disk", err)
		}
		return
	}
	t.Parallel()
	for _, action := range []string{"kill@1", "kill@2", "EIO@1", "EIO@2"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, stop := replays(t, options(t, dir))
			for range 10 {
				letters(t, l)
			}
			if err := errors.Join(stop(), l.Close()); err != nil {
				t.Fatal(err)
			}
			failingChild(t, dirVariable+"="+dir, "ledger/replay", action)
			l = open(t, dir)
			aside := len(replayed(t, l))
			sinks, err := l.Sinks(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := map[byte]int{'1': 0, '2': 10}[action[len(action)-1]]
			if got := int(sinks[0].Letters); aside != want || got != 30-want {
				t.Errorf("%d to be sent and %d dead letters, want %d and %d", aside, got, want, 30-want)
			}
		})
	}
}
