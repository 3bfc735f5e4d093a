package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
)

// The rules of a rescue:
//   - Every page of the damaged file is read by itself; a row is known by its
//     shape. What one bad page costs is what was on it.
//   - The new file is made whole under another name, and synced. Then the
//     damaged one is set aside, its WAL after it, and the new one takes its
//     place. Without a ledger.db, a new file that waits is the ledger.
//   - The damaged file is kept as it is: never deleted, never written over.
//   - Numbers go on. Those that are gone and that some sink had not
//     acknowledged are written down in losses.
//   - Objects stay behind: the API server has them. So no stream can be gone
//     on with, and a new epoch begins.

const (
	asideSuffix  = ".damaged-" // and the time; then -wal and -shm, as SQLite names them
	readySuffix  = ".rescued-" // and the same time: made whole, not yet in its place
	makingSuffix = ".making"
	stampLayout  = "20060102T150405Z"

	// metaRescuedAt and metaRescued tell when the ledger was last rescued, and
	// what came of it.
	metaRescuedAt = "rescued_at"
	metaRescued   = "rescued"
	// metaCursorsLost stands there until the sinks of the next start have their
	// cursors: one that has none may have lost it.
	metaCursorsLost = "cursors_lost"
	// metaPruned is the number up to which a missing change is no loss:
	// retention has deleted it, or every sink had it.
	metaPruned = "pruned"
	// metaGaps and the name of a forgotten sink is how many gaps it had.
	metaGaps = "gaps/"
)

// A rescued ledger says what was saved and what was not.
type rescued struct {
	cause                                error
	aside                                string // the name of the damaged file now
	epoch, head                          int64
	changes, workloads, cursors, streams int64
	lost                                 []span // numbers that some sink had not acknowledged
	bad, pages                           int    // pages with something that could not be read; all pages
	unread                               int    // rows of what is kept for sinks that could not be understood
}

// A span is numbers of changes, both ends included.
type span struct{ first, last int64 }

func (s span) String() string {
	if s.first == s.last {
		return fmt.Sprint(s.first)
	}
	return fmt.Sprintf("%d-%d", s.first, s.last)
}

// String tells it in a line of at most 512 bytes.
func (r *rescued) String() string {
	lost, spans := int64(0), []string{}
	for i, s := range r.lost {
		lost += s.last - s.first + 1
		if i < 5 {
			spans = append(spans, s.String())
		} else if i == 5 {
			spans = append(spans, "...")
		}
	}
	numbers := ""
	if lost > 0 {
		numbers = " (" + strings.Join(spans, ", ") + ")"
	}
	unread := ""
	if r.unread > 0 {
		unread = fmt.Sprintf(" and %d rows kept for sinks", r.unread)
	}
	out := fmt.Sprintf("the ledger was damaged and begun anew: %d changes lost%s; saved %d changes, %d workloads, %d cursors, %d streams; %d of %d pages%s unreadable; kept as %s: %v",
		lost, numbers, r.changes, r.workloads, r.cursors, r.streams, r.bad, r.pages, unread, r.aside, r.cause)
	if len(out) > 512 {
		out = strings.ToValidUTF8(out[:512], "")
	}
	return out
}

// last is what a running ledger knows of itself without its file.
type last struct {
	durable int64            // number of the last durable change; -1: not known
	acked   map[string]int64 // by sink
	place   int64            // the highest that was given to what is put aside
}

// rescue sets the damaged ledger at path aside and puts a new one with all
// that can still be read in its place. Changes after the last durable one are
// left behind: they are still in memory. release closes the connections of
// this process, once all is read: the last to close would write the WAL into
// the database. After an error the damaged ledger is still in its place, or
// the new one waits for [finishRescue].
func rescue(path string, known last, now time.Time, cause error, release func()) (_ *rescued, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("rescue: %w", err)
		}
	}()
	p, err := openPages(path)
	if err != nil {
		release()
		return nil, err
	}
	defer p.close()
	stamp, err := freeStamp(path, now)
	if err != nil {
		release()
		return nil, err
	}
	made, ready := path+makingSuffix, path+readySuffix+stamp
	r := &rebuild{pages: p, path: made, last: known, now: now}
	r.cause, r.aside = cause, filepath.Base(path)+asideSuffix+stamp
	err = r.make(0)
	if sqlite.ErrCode(err).ToPrimary() == sqlite.ResultFull {
		err = r.make(r.low + 1) // without what every sink has
	}
	if err == nil {
		err = syncFile(made)
	}
	release()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", made, err), removeAll(made))
	}
	if err := rename(made, ready); err != nil {
		return nil, err
	}
	if err := putInPlace(path, stamp); err != nil {
		return nil, err
	}
	return &r.rescued, nil
}

// finishRescue ends what a crash has left of a rescue: without a ledger it
// puts the new one in its place; with one it removes what was made, and the
// damage will be found again. It must be called before the first connection.
func finishRescue(path string) (finished bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("finish rescue: %w", err)
		}
	}()
	if err := removeAll(path + makingSuffix); err != nil {
		return false, err
	}
	ready, err := filepath.Glob(escapeGlob(path+readySuffix) + "*")
	if err != nil || len(ready) == 0 {
		return false, err
	}
	if _, err := os.Lstat(path); err == nil {
		return false, removeAll(ready...)
	} else if !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	newest := slices.Max(ready)
	if err := putInPlace(path, strings.TrimPrefix(newest, path+readySuffix)); err != nil {
		return false, err
	}
	return true, nil
}

// putInPlace sets the damaged ledger aside, as far as it still is in its
// place, and puts the new one there. The WAL comes second: a ledger without
// its WAL would pass for an older one.
func putInPlace(path, stamp string) error {
	for _, end := range []string{"", "-wal", "-shm"} {
		aside := path + asideSuffix + stamp + end
		if _, err := os.Lstat(path + end); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if _, err := os.Lstat(aside); err == nil {
			return fmt.Errorf("set %s aside: %s exists", path+end, aside)
		}
		if err := rename(path+end, aside); err != nil {
			return err
		}
	}
	return rename(path+readySuffix+stamp, path)
}

// freeStamp returns the time as part of a name that no file has yet.
func freeStamp(path string, now time.Time) (string, error) {
	stamp := now.UTC().Format(stampLayout)
	for i := 1; ; i++ {
		name := stamp
		if i > 1 {
			name = fmt.Sprintf("%s-%d", stamp, i)
		}
		taken := false
		for _, suffix := range []string{asideSuffix + name, asideSuffix + name + "-wal", asideSuffix + name + "-shm", readySuffix + name} {
			if _, err := os.Lstat(path + suffix); err == nil {
				taken = true
			} else if !errors.Is(err, os.ErrNotExist) {
				return "", err
			}
		}
		if !taken {
			return name, nil
		}
	}
}

// rename renames durably.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFile(filepath.Dir(to))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeAll removes files that may not exist.
func removeAll(paths ...string) (err error) {
	for _, p := range paths {
		if e := os.Remove(p); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
