package checks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

const gib = 1 << 30

// disks builds a check whose file systems are what spaces says.
func disks(t *testing.T, text string, now *time.Time, spaces func(path string) (space, error)) *diskCheck {
	t.Helper()
	d := checker[DiskConfig](t, text, func() time.Time { return *now }).(*diskCheck)
	d.statfs = spaces
	return d
}

func TestDisk(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	spaces := func(path string) (space, error) {
		switch path {
		case "/full":
			return space{size: 100 * gib, free: 3 * gib, inodes: 1000, inodesFree: 900}, nil
		case "/many":
			return space{size: 100 * gib, free: 50 * gib, inodes: 1000, inodesFree: 70}, nil
		case "/btrfs":
			return space{size: 100 * gib, free: 8 * gib}, nil
		case "/none":
			return space{}, &fs.PathError{Op: "statfs", Path: path, Err: fs.ErrNotExist}
		case "/closed":
			return space{}, errors.New("permission denied")
		case "/proc":
			return space{}, nil
		}
		return space{size: 100 * gib, free: 50 * gib, inodes: 1000, inodesFree: 900}, nil
	}
	const pass, warn, fail, unknown = verdict.Pass, verdict.Warn, verdict.Fail, verdict.Unknown
	tests := []struct {
		name, config string
		status       verdict.Status
		message      string
	}{
		{"much room passes", `{path: /}`, pass, "/: 50 % free, 50 GiB"},
		{"little room fails", `{path: /full}`, fail, "/full: 3 % free (3 GiB), want 5:"},
		{"less room warns", `{path: /btrfs}`, warn, "/btrfs: 8 % free (8 GiB), want 10:"},
		{"few inodes warn", `{path: /many}`, warn, "/many: 7 % of the inodes free, want 10:"},
		{"limits are the user's", `{path: /full, crit: "1:"}`, pass, "/full: 3 % free"},
		{"bytes may be limited", `{path: /, bytes: {warn: "64424509440:"}}`, warn, "/: 50 GiB free, want 64424509440: bytes"},
		{"the worst of several counts", `{paths: [/, /many, /full, /btrfs]}`, fail, "/full: 3 % free (3 GiB), want 5:; and 2 more"},
		{"of those that pass, the fullest", `{paths: [/, /full], crit: "1:"}`, pass, "/full: 3 % free"},
		{"none at the place fails", `{path: /none}`, fail, "/none: no such folder"},
		{"what cannot be asked is unknown", `{path: /closed}`, unknown, "/closed: permission denied"},
		{"what has no size is unknown", `{path: /proc}`, unknown, "/proc: the file system has no size"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := disks(t, tt.config, &now, spaces)
			for range 3 {
				wantResult(t, ask(t, d), tt.status, tt.message)
			}
		})
	}
	r := ask(t, disks(t, `{path: /full}`, &now, spaces))
	m := r.Measures[0]
	if m.Label != "/full" || m.Value != 3 || m.Unit != "%" || m.Warn != "10:" || m.Crit != "5:" || *m.Min != 0 || *m.Max != 100 || *r.Value != 0.03 {
		t.Errorf("measure %+v, value %v, want 3 %% with its limits", m, *r.Value)
	}
}

func TestDiskTimeToFull(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const size = 1000 * gib
	tests := []struct {
		name  string
		free  func(seconds float64) float64 // after so many
		after time.Duration
		want  string // "" is a pass
	}{
		{"a steady pace is told", func(s float64) float64 { return 500*gib - s*gib/10 }, 30 * time.Minute, "full in 53m19s at the pace of the last 30m0s, want at least 1h0m"},
		{"a slow one passes", func(s float64) float64 { return 500*gib - s*gib/1000 }, 30 * time.Minute, ""},
		{"too short a look says nothing", func(s float64) float64 { return 500*gib - s*gib }, 4 * time.Minute, ""},
		{"what grows is never full", func(s float64) float64 { return 500*gib + s*gib/1000 }, 30 * time.Minute, ""},
		{"what stays is never full", func(float64) float64 { return 500 * gib }, 30 * time.Minute, ""},
		{"only the last hour counts", func(s float64) float64 { return 500*gib - min(s, 3600)*gib/10 }, 150 * time.Minute, ""},
		{"what was freed begins anew", func(s float64) float64 {
			if s < 1500 {
				return 100 * gib
			}
			return 500*gib - (s-1500)*gib/5
		}, 40 * time.Minute, "full in 26m39s at the pace of the last 15m0s, want at least 1h0m"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			now, begun := now, now
			d := disks(t, `{path: /, full_in: {crit: 1h}}`, &now, func(string) (space, error) {
				return space{size: size, free: tt.free(now.Sub(begun).Seconds())}, nil
			})
			var r verdict.Result
			for ; now.Sub(begun) <= tt.after; now = now.Add(5 * time.Second) {
				r = ask(t, d)
				if n := len(d.disks[0].samples); n > 150 || d.disks[0].samples.span() > time.Hour {
					t.Fatalf("%d samples of %v, want at most 150 of an hour", n, d.disks[0].samples.span())
				}
			}
			if tt.want == "" {
				wantResult(t, r, verdict.Pass, "% free")
			} else {
				wantResult(t, r, verdict.Fail, tt.want)
			}
		})
	}
}

func TestSamplesAreFair(t *testing.T) {
	t.Parallel()
	var s samples
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// One large file in a quiet hour does not decide as much as the first and last do.
	for i := range 121 {
		free := 100.0 * gib
		if i >= 118 {
			free -= gib / 2
		}
		s.add(at.Add(time.Duration(i)*30*time.Second), space{size: 100 * gib, free: free})
	}
	full, ok := s.fullIn()
	if byEnds := time.Duration(99.5 / 0.5 * float64(time.Hour)); !ok || full < byEnds*3 {
		t.Errorf("full in %v, %v, want much more than the %v of first and last", full, ok, byEnds)
	}
	s.add(at, space{size: 100 * gib, free: math.NaN()}) // a clock set back
	if len(s) != 1 {
		t.Errorf("%d samples after the clock was set back, want 1", len(s))
	}
}

func TestDiskThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		free := make(chan struct{})
		d := checker[DiskConfig](t, `{paths: [/, /nfs]}`, nil).(*diskCheck)
		d.statfs = func(path string) (space, error) {
			if path == "/nfs" {
				asked.Add(1)
				<-free
			}
			return space{size: 100 * gib, free: 50 * gib}, nil
		}
		for n := range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			r := d.Check(ctx)
			cancel()
			wantResult(t, r, verdict.Fail, fmt.Sprintf("/nfs: the file system has not answered for %dm0s", n+1))
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times while it hung, want once", n)
		}
		close(free)
		wantResult(t, ask(t, d), verdict.Pass, "50 % free")
		wantResult(t, ask(t, d), verdict.Pass, "50 % free")
	})
}

func TestDiskOfThisMachine(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is asked")
	}
	r := ask(t, checker[DiskConfig](t, `{path: /, warn: "0:"}`, nil))
	wantResult(t, r, verdict.Pass, "/: ... % free, ")
	if r.Value == nil || *r.Value < 0 || *r.Value > 1 {
		t.Errorf("value %v, want 0 to 1", r.Value)
	}
}

func TestDiskConfigIsStrict(t *testing.T) {
	t.Parallel()
	wantMistakes[DiskConfig](t, map[string]string{
		`{}`:           "check.path: got nothing, want the path",
		`{path: data}`: "check.path: got data, want a path that begins with /",
		`{path: /, full_in: {warn: 1h, crit: 2h}}`: "check.full_in: got warn 1h0m0s, which is less",
		`{path: /, inodes: {warn: x}}`:             "check.inodes.warn: got x",
	})
}
