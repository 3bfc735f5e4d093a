package history

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/outrider-agent/outrider/metrics"
)

// TestWhatIsOpenHasLittleRoomToSpare: an open chunk does not keep the room that the
// one before it needed.
func TestWhatIsOpenHasLittleRoomToSpare(t *testing.T) {
	c, r := newClock(), rand.New(rand.NewPCG(1, 1))
	h := open(t, c, Options{})
	for range 200 {
		c.now = c.now.Add(time.Second)
		h.Observe(c.now, "s", []metrics.Family{noise(r, 10)})
		for _, s := range h.sources["s"].families["noise"].series {
			if room := cap(s.buf); room > len(s.buf)+firstRoom+sampleMost+moreRoom {
				t.Fatalf("an open chunk of %d bytes has room for %d, after %d that are closed", len(s.buf), room, len(s.chunks))
			}
		}
	}
	if n := len(h.sources["s"].closed); n < 20 {
		t.Errorf("%d chunks were closed, want some of each series", n)
	}
	if size := unsafe.Sizeof(series{}); size > seriesSize {
		t.Errorf("a series takes %d bytes, and is counted as %d", size, seriesSize)
	}
}
