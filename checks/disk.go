package checks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// DiskConfig describes file systems and how much room there must be. Without any
// limit there must be 10 % of space and of inodes, or it warns, and 5 %, or it
// fails.
type DiskConfig struct {
	Path  string   `yaml:"path"`  // in the file system
	Paths []string `yaml:"paths"` // or several

	Limits        // of the free space in percent of what users may take: "10:"
	Bytes  Limits `yaml:"bytes"`  // of the free space in bytes
	Inodes Limits `yaml:"inodes"` // of the free inodes in percent

	// FullIn is how long the free space must last, were it to shrink on as it did
	// since the last time that it grew, in the last hour at most.
	FullIn TimeLeft `yaml:"full_in"`
}

const maxPaths = 50

// Validate is asked when the configuration is read.
func (c *DiskConfig) Validate() error {
	var errs []error
	paths := c.paths()
	switch {
	case len(paths) == 0:
		errs = append(errs, &config.FieldError{Key: "path", Got: "nothing", Want: "the path of a file system"})
	case len(paths) > maxPaths:
		errs = append(errs, &config.FieldError{Key: "paths", Got: strconv.Itoa(len(paths)) + " paths", Want: fmt.Sprintf("at most %d", maxPaths)})
	}
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") {
			errs = append(errs, &config.FieldError{Key: "path", Got: snippet(p, 100), Want: "a path that begins with /"})
		}
	}
	errs = append(errs, c.FullIn.validate("full_in"))
	return errors.Join(errs...)
}

func (c *DiskConfig) paths() []string {
	all := slices.Clone(c.Paths)
	if c.Path != "" {
		all = append([]string{c.Path}, all...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Build implements [Builder].
func (c *DiskConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	d := &diskCheck{now: env.Now, statfs: statfs, free: c.Limits, bytes: c.Bytes, inodes: c.Inodes, fullIn: c.FullIn}
	if !d.free.given() && !d.bytes.given() && !d.inodes.given() && d.fullIn == (TimeLeft{}) {
		usual, err := parseLimits("10:", "5:")
		if err != nil {
			return nil, err
		}
		d.free, d.inodes = usual, usual
	}
	for _, p := range c.paths() {
		d.disks = append(d.disks, &disk{path: p})
	}
	return d, nil
}

// space is how much room a file system has.
type space struct{ size, free, inodes, inodesFree float64 }

// A disk is one file system.
type disk struct {
	path    string
	samples samples
	asked   chan spaceOrError // nil: nobody asks
	since   time.Time         // when it was asked
}

type spaceOrError struct {
	space
	err error
}

// A diskCheck looks how full file systems are.
type diskCheck struct {
	now    func() time.Time
	statfs func(string) (space, error)
	disks  []*disk

	free, bytes, inodes Limits
	fullIn              TimeLeft
}

// Check implements [Checker].
func (d *diskCheck) Check(ctx context.Context) verdict.Result {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	for _, one := range d.disks {
		one.ask(d.statfs, d.now())
	}
	var worst verdict.Result
	var measures []verdict.Measure
	others := 0
	for i, one := range d.disks {
		r := d.judge(ctx, one)
		measures = append(measures, r.Measures...)
		if r.Status != verdict.Pass && i > 0 && worst.Status != verdict.Pass {
			others++
		}
		if i == 0 || verdict.Compare(r.Status, worst.Status) > 0 || r.Status == worst.Status && less(r.Value, worst.Value) {
			worst = r
		}
	}
	if others > 0 {
		worst.Message += fmt.Sprintf("; and %d more", others)
	}
	worst.Measures = measures
	return worst
}

func less(a, b *float64) bool { return a != nil && b != nil && *a < *b }

// ask begins to ask, unless somebody still waits for an answer: a file system of a
// server that is gone lets statfs hang for ever, and takes one goroutine, not more.
func (o *disk) ask(statfs func(string) (space, error), now time.Time) {
	if o.asked != nil {
		return
	}
	answer := make(chan spaceOrError, 1)
	o.asked, o.since = answer, now
	go func() {
		s, err := statfs(o.path)
		answer <- spaceOrError{s, err}
	}()
}

// judge waits for the answer and holds it to the limits.
func (d *diskCheck) judge(ctx context.Context, one *disk) verdict.Result {
	var got spaceOrError
	select {
	case got = <-one.asked:
	default:
		select {
		case got = <-one.asked:
		case <-ctx.Done():
			r := refused(ctx, one.path, ctx.Err())
			if r.Status == verdict.Fail {
				r.Message = fmt.Sprintf("%s: the file system has not answered for %s", one.path, showTime(d.now().Sub(one.since)))
			}
			return r
		}
	}
	one.asked = nil
	switch {
	case errors.Is(got.err, fs.ErrNotExist):
		return verdict.Result{Status: verdict.Fail, Message: one.path + ": no such folder"}
	case got.err != nil:
		return verdict.Result{Status: verdict.Unknown, Message: one.path + ": " + got.err.Error()}
	case got.size <= 0:
		return verdict.Result{Status: verdict.Unknown, Message: one.path + ": the file system has no size"}
	}
	ratio := got.free / got.size
	r := verdict.Result{Value: &ratio, Unit: "ratio", Message: fmt.Sprintf("%s: %s %% free, %s", one.path, figure(100*ratio), showBytes(got.free))}
	worse := func(status verdict.Status, format string, args ...any) {
		if verdict.Compare(status, r.Status) > 0 {
			r.Status, r.Message = status, one.path+": "+fmt.Sprintf(format, args...)
		}
	}
	zero, hundred := 0.0, 100.0
	m := d.free.measure(one.path, math.Floor(1e4*ratio)/100, "%")
	m.Min, m.Max = &zero, &hundred
	r.Measures = append(r.Measures, m)
	if status, want := d.free.judge(100 * ratio); want != "" {
		worse(status, "%s %% free (%s), want %s", figure(100*ratio), showBytes(got.free), want)
	}
	if status, want := d.bytes.judge(got.free); want != "" {
		worse(status, "%s free, want %s bytes", showBytes(got.free), want)
	}
	if got.inodes > 0 { // btrfs has none to count
		left := 100 * got.inodesFree / got.inodes
		if status, want := d.inodes.judge(left); want != "" {
			worse(status, "%s %% of the inodes free, want %s", figure(left), want)
		}
	}
	one.samples.add(d.now(), got.space)
	if full, ok := one.samples.fullIn(); ok && d.fullIn != (TimeLeft{}) {
		r.Measures = append(r.Measures, d.fullIn.measure(one.path+" full in", full))
		if status, want := d.fullIn.judge(full); want != "" {
			worse(status, "full in %s at the pace of the last %s, want at least %s; %s free", showTime(full), showTime(one.samples.span()), want, showBytes(got.free))
		}
	}
	return r
}

// samples are how much was free, the oldest first.
type samples []sample

type sample struct {
	at   time.Time
	free float64
}

const (
	sampleEvery = 30 * time.Second // one more often takes the place of the last
	sampleSpan  = time.Hour
	leastSpan   = 5 * time.Minute // a pace of less is an accident
)

// add keeps what was free. When much was freed, the pace begins anew.
func (s *samples) add(at time.Time, got space) {
	all := *s
	if n := len(all); n > 0 && (got.free-all[n-1].free > got.size/100 || at.Before(all[n-1].at)) {
		all = all[:0]
	}
	if n := len(all); n > 1 && at.Sub(all[n-2].at) < sampleEvery {
		all = all[:n-1]
	}
	old := 0
	for old < len(all) && at.Sub(all[old].at) > sampleSpan {
		old++
	}
	*s = append(slices.Delete(all, 0, old), sample{at, got.free})
}

func (s samples) span() time.Duration {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].at.Sub(s[0].at)
}

// fullIn is when nothing is free any more, by the line that fits the samples best
// (least squares: one large file does not decide). It is not ok when there are too
// few samples, or nothing shrinks.
func (s samples) fullIn() (time.Duration, bool) {
	if len(s) < 3 || s.span() < leastSpan {
		return 0, false
	}
	n := float64(len(s))
	var t, f float64
	for _, one := range s {
		t += one.at.Sub(s[0].at).Seconds() / n
		f += one.free / n
	}
	var tt, tf float64
	for _, one := range s {
		x := one.at.Sub(s[0].at).Seconds() - t
		tt += x * x
		tf += x * (one.free - f)
	}
	pace := -tf / tt // bytes a second
	seconds := s[len(s)-1].free / pace
	const year = 365 * 24 * 3600
	if pace <= 0 || math.IsNaN(seconds) || seconds > year {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// showBytes shows an amount with a binary unit.
func showBytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for ; n >= 1024 && i < len(units)-1; i++ {
		n /= 1024
	}
	return cmp.Or(strings.TrimSuffix(strconv.FormatFloat(n, 'f', 1, 64), ".0"), "0") + " " + units[i]
}
