package demo

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestLiveLine shows a spike that a receiver of 1,500 changes a second takes.
func TestLiveLine(t *testing.T) {
	var b strings.Builder
	var l live
	var waiting int64
	for i := range 45 {
		s := second{At: time.Duration(i+1) * time.Second, Offered: 500, P99: 0.0048, Memory: 180 << 20}
		if i >= 3 && i < 9 {
			s.Offered = 10_000
		}
		s.In = s.Offered
		s.Delivered = min(1500, float64(waiting)+s.Offered)
		waiting += int64(s.In - s.Delivered)
		s.Waiting = waiting
		if waiting > 0 {
			s.P99 = float64(waiting) / 1500
			s.Retries = 12_345
		}
		switch i {
		case 0:
			s.P99, s.Memory = math.NaN(), 0
		case 30:
			s.Drops = 3
		case 31:
			s.Drops, s.P99 = 3, math.Inf(1)
		}
		b.WriteString(l.render(s) + "\n")
	}
	b.WriteString(l.render(second{At: 26 * time.Hour, Offered: 123_456, In: 99_999, Delivered: 1_234_567, Waiting: 3_400_000, Retries: 999_949, Drops: 999_999, P99: 0.0471, Memory: 4096 << 20}) + "\n")
	b.WriteString(l.render(second{At: time.Hour, Offered: 123_456_789, P99: 209.96, Memory: 999 << 20}) + "\n")
	got := b.String()
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > lineWidth+2+mostPicture {
			t.Errorf("%d columns, want at most %d: %s", n, lineWidth+2+mostPicture, line)
		}
	}
	golden := filepath.Join("testdata", "live.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the lines are not those of %s; -update writes it anew:\n%s", golden, got)
	}
}

func TestLiveLineShowsDropsInRed(t *testing.T) {
	l := live{colors: true, lines: 1}
	for _, step := range []struct {
		drops int64
		red   bool
	}{{0, false}, {2, true}, {2, false}, {3, true}} {
		if line := l.render(second{Drops: step.drops}); strings.HasPrefix(line, "\x1b[31m") != step.red {
			t.Errorf("%d drops: %q, want red: %t", step.drops, line, step.red)
		}
	}
}

func TestLiveLineFitsItsTerminal(t *testing.T) {
	for _, c := range []struct {
		columns int
		picture int
		head    string // how the headline ends
	}{
		{80, 10, "memory  last 10 s"},
		{90, mostPicture, "memory  waiting, last 20 s"},
		{200, mostPicture, "memory  waiting, last 20 s"},
		{0, mostPicture, "memory  waiting, last 20 s"}, // it does not say
		{73, 0, "memory"},
		{40, 0, "memory"},
	} {
		l := live{columns: func() int { return c.columns }}
		lines := strings.Split(l.render(second{}), "\n")
		if !strings.HasSuffix(lines[0], c.head) {
			t.Errorf("%d columns: headline %q, want it to end with %q", c.columns, lines[0], c.head)
		}
		for i := range 2 * mostPicture {
			lines = append(lines, strings.Split(l.render(second{Waiting: int64(i)}), "\n")...)
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); c.columns >= 73 && n >= c.columns {
				t.Errorf("%d columns: %q has %d", c.columns, line, n)
			}
		}
		last := lines[len(lines)-1]
		if n := strings.Count(last, "▁") + strings.Count(last, "▂") + strings.Count(last, "▃"); n != c.picture {
			t.Errorf("%d columns: %q shows %d seconds, want %d", c.columns, last, n, c.picture)
		}
	}
}

func TestSpoken(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", 3 * time.Hour: "3h", 90 * time.Second: "1m30s",
		100 * time.Second: "1m40s", time.Hour + time.Second: "1h0m1s", 10 * time.Minute: "10m", 500 * time.Millisecond: "500ms",
	} {
		if got := spoken(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}
