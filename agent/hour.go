package agent

import (
	"math"
	"slices"
)

// An hour is one measure of a pipeline over the last hour, once a second: ten
// seconds are put together, so that an hour takes 4 KiB. Minimum and maximum are
// those of the seconds, the 95th percentile is that of the ten-second means.
type hour struct {
	slots []slot // the last one is being filled
	next  int    // where the next slot goes, once there are all
	fill  int    // seconds in the last one
}

type slot struct{ min, max, mean float32 }

const (
	slotSeconds = 10
	hourSlots   = 360
)

func (h *hour) add(v float64) {
	if math.IsNaN(v) {
		return
	}
	x := float32(v)
	if h.fill == 0 || h.fill == slotSeconds {
		h.fill = 1
		if len(h.slots) < hourSlots {
			h.slots = append(h.slots, slot{x, x, x})
		} else {
			h.slots[h.next] = slot{x, x, x}
			h.next = (h.next + 1) % hourSlots
		}
		return
	}
	s := &h.slots[(h.next+len(h.slots)-1)%len(h.slots)]
	h.fill++
	s.min, s.max = min(s.min, x), max(s.max, x)
	s.mean += (x - s.mean) / float32(h.fill)
}

// stats are those of the last hour; ok is false before the first second.
func (h *hour) stats() (low, p95, high float64, ok bool) {
	if len(h.slots) == 0 {
		return 0, 0, 0, false
	}
	means := make([]float32, len(h.slots))
	least, most := h.slots[0].min, h.slots[0].max
	for i, s := range h.slots {
		means[i] = s.mean
		least, most = min(least, s.min), max(most, s.max)
	}
	slices.Sort(means)
	return float64(least), float64(means[(len(means)*95+99)/100-1]), float64(most), true
}
