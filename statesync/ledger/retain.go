package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// The rules of retention:
//   - Only what every sink of this run has settled durably is deleted, and none
//     has parked: once it is older than Keep, or at any age while nine tenths of
//     the bound are in use. A detached sink holds nothing.
//   - Oldest first, so that what is left has no holes above the least cursor.
//     What is kept below, because it is parked, is passed over, and looked at
//     again once a minute.
//   - A tombstone stays until the resume point of its stream has passed the
//     removal, no change of it is left, and it is older than Keep and an hour:
//     an event that is read again would bring the workload back to life. One
//     that the configuration let go, and that may live on, stays for 90 days.
//   - The bound is met by recording nothing, never by deleting what a sink
//     that is delivered to still needs. What is put aside for others gives way:
//     see leftovers.go.
//   - A chunk at a time, between groups: the committer is not held up.

const (
	defaultMaxBytes = 2 << 30
	defaultKeep     = 24 * time.Hour
	leastKeep       = time.Hour           // of tombstones
	untrackedKeep   = 90 * 24 * time.Hour // of those that may come back, and then go on with their seq
	retainChunk     = 500                 // rows a transaction
	retainEvery     = time.Second
	tombstonesEvery = time.Minute // they are looked through as often
	keptEvery       = time.Minute // so are changes that were kept because they are parked,
	keptPressed     = 10 * time.Second
)

// retention is what the committer remembers of its deleting.
type retention struct {
	due        time.Time // when to look again for what is old
	hold       time.Time // nothing is tried before, after a failure
	truncated  time.Time // when the WAL was last made short for lack of room
	tombstones time.Time // when to look through the tombstones again
	gone, id   int64     // those up to here have been looked at
	sweep      time.Time // when to look through the changes again
	passed     int64     // those up to here have been looked at
	counted    time.Time // when what is put aside was counted
	leftovers  time.Time // when to look again for what is put aside for nobody
	looked     int64     // those up to here have been looked at
}

// A kept is what retain leaves to do.
type kept struct {
	connected bool // else the connection is to be opened again
	more      bool // call it again
}

// retain deletes one chunk of what need not be kept, and decides whether there
// is room for entries.
func (l *Ledger) retain() kept {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.lookAfter()
	now, r := l.opts.Now(), &l.retains
	if l.writer == nil || now.Before(r.hold) {
		return kept{connected: l.writer != nil}
	}
	size, err := l.measure()
	deleted, more := 0, false
	pressed := size > l.opts.MaxBytes/10*9
	if err == nil && (pressed || !now.Before(r.due)) {
		r.due = now.Add(retainEvery)
		deleted, more, err = l.prune(now, pressed)
	}
	idle := deleted == 0 && !more
	if err == nil && idle && size >= l.tightBytes() {
		deleted, more, err = l.dropLeftovers(now)
		idle = deleted == 0 && !more
	}
	if err == nil && idle && l.worthTruncating(size, now) {
		r.truncated = now
		l.truncate()
		size, err = l.measure()
	}
	if err == nil && idle && size >= l.tightBytes() {
		err = l.countKept(now)
	}
	l.keepUp("prune", err)
	l.bound(size, idle, err)
	if err != nil {
		r.hold = now.Add(retryMax)
		_ = l.drop(err)
		return kept{}
	}
	if more {
		r.due = now
	}
	return kept{connected: true, more: more}
}

// measure returns the size that the bound is about: pages in use, and the WAL,
// or what it may grow to before it is cut. The database file never shrinks, but
// it grows only when no page is free; so both together stay within the bound.
// It looks at the path: to open the file and close it would drop our locks on
// it.
func (l *Ledger) measure() (int64, error) {
	pages, err := readNumber(l.writer, "PRAGMA page_count")
	if err != nil {
		return 0, fmt.Errorf("read page count: %w", err)
	}
	free, err := readNumber(l.writer, "PRAGMA freelist_count")
	if err != nil {
		return 0, fmt.Errorf("read free pages: %w", err)
	}
	page, err := readNumber(l.writer, "PRAGMA page_size")
	if err != nil {
		return 0, fmt.Errorf("read page size: %w", err)
	}
	wal, err := l.walSize()
	if err != nil {
		return 0, err
	}
	size := (pages-free)*page + max(wal, l.walReserve())
	l.size.Store(size)
	return size, nil
}

// walReserve is the size from which the WAL is cut.
func (l *Ledger) walReserve() int64 { return min(walLimit, l.opts.MaxBytes/8) }

func (l *Ledger) walSize() (int64, error) {
	info, err := os.Stat(l.path + "-wal")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("size of the WAL: %w", err)
	}
	return info.Size(), nil
}

// bound opens or closes the ledger for entries; idle says that nothing more can
// be deleted now.
func (l *Ledger) bound(size int64, idle bool, failure error) {
	room := size < l.opts.MaxBytes
	switch {
	case size == 0: // it is not known: as before
		return
	case room:
		l.full = nil
	case idle:
		l.full = l.fullError(size, failure)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room = room
	l.tight = size >= l.tightBytes() && (idle || l.tight) && !l.sweep
}

// fullError says what stands in the way.
func (l *Ledger) fullError(size int64, failure error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	sinks := map[string]bool{}
	for _, of := range []map[string]int64{l.acked, l.aside, l.letters} {
		for sink := range of {
			sinks[sink] = true
		}
	}
	var holders []string
	for _, sink := range slices.Sorted(maps.Keys(sinks)) {
		var holds []string
		add := func(n int64, what string) {
			if n > 0 {
				holds = append(holds, fmt.Sprintf("%d %s", n, what))
			}
		}
		add(l.behind(sink), "changes")
		add(l.aside[sink], "entries put aside")
		add(l.letters[sink], "dead letters")
		if holds != nil {
			holders = append(holders, "sink "+sink+" holds "+strings.Join(holds, ", "))
		}
	}
	if len(holders) == 0 {
		holders = []string{"no sink holds a change: workloads and objects alone need as much"}
	}
	err := fmt.Errorf("the ledger is full: %d bytes, want less than %d: %s", size, l.opts.MaxBytes, strings.Join(holders, "; "))
	if failure != nil {
		err = fmt.Errorf("%w (and nothing can be deleted: %w)", err, failure)
	}
	return err
}

// An upkeep is how a step that no entry waits for fares.
type upkeep struct {
	failures int64
	failing  bool
}

// keepUp counts the failures of such a step, and logs the first and the last
// of a run of them.
func (l *Ledger) keepUp(step string, err error) {
	l.mu.Lock()
	u := l.upkeep[step]
	before := u.failing
	if u.failing = err != nil; u.failing {
		u.failures++
	}
	l.upkeep[step] = u
	l.mu.Unlock()
	switch {
	case err != nil && !before:
		l.opts.Log.Error("the ledger's upkeep fails; it is tried again, and nothing is lost", "step", step, "err", err)
	case err == nil && before:
		l.opts.Log.Info("the ledger's upkeep works again", "step", step)
	}
}

func (l *Ledger) describeUpkeep(reg *metrics.Registry) error {
	gauge := func(name, help, unit string, value func() float64) error {
		return reg.Func(metrics.Desc{
			Name: "outrider_ledger_" + name, Datadog: "outrider.ledger." + name, Type: metrics.GaugeType,
			Help: help, Unit: unit, Budget: 1,
		}, func(yield func(metrics.Point)) { yield(metrics.Point{Value: value()}) })
	}
	counter := func(name, tag, help, unit string, values func() map[string]int64) error {
		return reg.Func(metrics.Desc{
			Name: "outrider_ledger_" + name + "_total", Datadog: "outrider.ledger." + name, Type: metrics.CounterType,
			Help: help, Unit: unit, Tags: []string{tag}, Budget: 4,
		}, func(yield func(metrics.Point)) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for value, n := range values() {
				yield(metrics.Point{Tags: []string{value}, Value: float64(n)})
			}
		})
	}
	return errors.Join(
		gauge("wal_bytes", "Size of the ledger's write-ahead log.", "bytes", func() float64 { n, _ := l.walSize(); return float64(n) }),
		gauge("size_bytes", "Size of the ledger that its bound is about: pages in use, and the write-ahead log or what is kept for it.", "bytes",
			func() float64 { return float64(l.size.Load()) }),
		gauge("bound_bytes", "Size at which the ledger records nothing more until its sinks have acknowledged.", "bytes",
			func() float64 { return float64(l.opts.MaxBytes) }),
		gauge("used_ratio", "Size of the ledger by its bound: at 0.9 retention deletes what every sink has, at 1 nothing more is recorded.", "ratio",
			func() float64 { return float64(l.size.Load()) / float64(l.opts.MaxBytes) }),
		counter("pruned", "table", "Rows that retention has deleted, by table.", "rows", func() map[string]int64 {
			// Each from the beginning: of a counter that appears at 1 Prometheus knows no rate.
			out := map[string]int64{"changes": 0, "workloads": 0, "aside": 0}
			maps.Copy(out, l.pruned)
			return out
		}),
		counter("upkeep_failures", "step", "Checkpoints and deletions that failed and are tried again.", "failures", func() map[string]int64 {
			out := map[string]int64{}
			for step, u := range l.upkeep {
				out[step] = u.failures
			}
			return out
		}),
		reg.Func(metrics.Desc{
			Name: "outrider_ledger_checkpoint_seconds", Datadog: "outrider.ledger.checkpoint", Type: metrics.HistogramType,
			Help: "How long a checkpoint of the ledger's write-ahead log takes.", Unit: "seconds", Budget: 1,
		}, func(yield func(metrics.Point)) {
			s := l.checks.Snapshot()
			yield(metrics.Point{Hist: &s})
		}),
	)
}
