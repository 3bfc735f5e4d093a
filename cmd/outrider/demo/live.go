package demo

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	mostPicture  = 20 // seconds of the queue that a live line shows
	leastPicture = 4  // fewer show nothing
	headEvery    = 20 // live lines a headline
)

// A second is what the live line shows of one.
type second struct {
	At        time.Duration // since the beginning
	Offered   float64       // changes a second
	In        float64       // changes a second that became durable
	Delivered float64       // changes a second that the receiver took
	Waiting   int64
	Retries   int64 // so far
	Drops     int64 // so far
	P99       float64
	Memory    int64 // bytes of the agent's process; 0: not known
}

// The columns of the live line, to which the picture is added: as many as
// leave room for one on 80.
const (
	lineFormat = "%8s %7s %5s %9s %7s %7s %5s %5s %6s"
	lineWidth  = 8 + 1 + 7 + 1 + 5 + 1 + 9 + 1 + 7 + 1 + 7 + 1 + 5 + 1 + 5 + 1 + 6
)

// headline names the columns.
func headline(picture int) string {
	line := fmt.Sprintf(lineFormat, "time", "offered", "in/s", "delivered", "waiting", "retries", "drops", "p99", "memory")
	head := fmt.Sprintf("last %d s", picture)
	if whole := "waiting, " + head; len(whole) <= picture {
		head = whole
	}
	if len(head) <= picture {
		line += "  " + head
	}
	return line
}

// A live renders seconds as lines, one each.
type live struct {
	colors  bool
	columns func() int // of the terminal; nil, or 0: as many as it takes
	lines   int
	queue   []int64 // waiting, of the last seconds
	drops   int64
}

// picture is how many seconds a line has room for. The terminal's last column
// stays free: some begin a line of their own after it.
func (l *live) picture() int {
	if l.columns == nil {
		return mostPicture
	}
	all := l.columns()
	if all <= 0 {
		return mostPicture
	}
	if room := all - 1 - lineWidth - 2; room >= leastPicture {
		return min(room, mostPicture)
	}
	return 0
}

// render returns the line of a second, below a headline when it is time for
// one.
func (l *live) render(s second) string {
	if l.queue = append(l.queue, s.Waiting); len(l.queue) > mostPicture {
		l.queue = l.queue[1:]
	}
	var b strings.Builder
	width := l.picture()
	if l.lines%headEvery == 0 {
		b.WriteString(l.paint("1", headline(width)) + "\n")
	}
	l.lines++
	line := fmt.Sprintf(lineFormat, clock(s.At), short(s.Offered), short(s.In), short(s.Delivered), short(float64(s.Waiting)),
		short(float64(s.Retries)), short(float64(s.Drops)), milliseconds(s.P99), size(s.Memory))
	if width > 0 {
		line += "  " + picture(l.queue[max(0, len(l.queue)-width):])
	}
	if s.Drops > l.drops {
		line = l.paint("31", line)
	}
	l.drops = s.Drops
	b.WriteString(line)
	return b.String()
}

func (l *live) paint(code, text string) string {
	if !l.colors {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// picture draws how much waited, each second by a bar of its own. The highest
// one is full, unless hardly anything waits: a queue of a few is no mountain.
func picture(queue []int64) string {
	const flat = 100
	bars := []rune("▁▂▃▄▅▆▇█")
	most := int64(flat)
	for _, n := range queue {
		most = max(most, n)
	}
	var b strings.Builder
	for _, n := range queue {
		b.WriteRune(bars[max(0, n)*int64(len(bars)-1)/most])
	}
	return b.String()
}

func clock(d time.Duration) string {
	seconds := int(d.Round(time.Second).Seconds())
	if seconds >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	}
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

// short writes a number in five characters at most: 1234, 12.3k, 123k, 1.2M.
func short(n float64) string {
	switch n = math.Round(n); {
	case n < 10_000:
		return strconv.FormatFloat(n, 'f', 0, 64)
	case n < 99_950:
		return strconv.FormatFloat(n/1000, 'f', 1, 64) + "k"
	case n < 999_500:
		return strconv.FormatFloat(n/1000, 'f', 0, 64) + "k"
	case n < 99_950_000:
		return strconv.FormatFloat(n/1e6, 'f', 1, 64) + "M"
	}
	return strconv.FormatFloat(n/1e6, 'f', 0, 64) + "M"
}

// milliseconds writes seconds in five characters at most; nothing was measured
// of NaN.
func milliseconds(seconds float64) string {
	switch {
	case math.IsNaN(seconds):
		return "-"
	case math.IsInf(seconds, 1):
		return ">210s"
	case seconds < 0.0095:
		return strconv.FormatFloat(seconds*1000, 'f', 1, 64) + "ms"
	case seconds < 0.9995:
		return strconv.FormatFloat(seconds*1000, 'f', 0, 64) + "ms"
	}
	if seconds < 99.95 {
		return strconv.FormatFloat(seconds, 'f', 1, 64) + "s"
	}
	return strconv.FormatFloat(seconds, 'f', 0, 64) + "s"
}

func size(bytes int64) string {
	if bytes <= 0 {
		return "-"
	}
	if mib := (bytes + 1<<19) >> 20; mib < 1000 {
		return strconv.FormatInt(mib, 10) + "MiB"
	}
	return strconv.FormatFloat(float64(bytes)/(1<<30), 'f', 1, 64) + "GiB"
}

// spoken writes a duration as people do: 1m, not 1m0s.
func spoken(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
