package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// The rules about damage:
//   - It is what SQLite calls corrupt or no database, what cannot be decoded,
//     and numbers that are missing though nothing has deleted them. A disk
//     that is full, fails or cannot be read is not: that may pass.
//   - Found at the start, it is looked for in the size of the file and in its
//     WAL, and in what everything rests on; not in every page.
//   - Who finds it while the ledger runs has it rescued before going on.
//   - Entries that were handed over before the watch has loaded anew keep their
//     changes; their objects and resume points rest on what is gone.

// rescueEvery is the least time between two rescues: a disk that spoils what is
// written at once is not to be filled with damaged ledgers.
const rescueEvery = time.Minute

// isDamage reports whether an error says that the file is damaged.
func isDamage(err error) bool {
	if errors.Is(err, errDamaged) {
		return true
	}
	switch code := sqlite.ErrCode(err); code {
	case sqlite.ResultIOErrShortRead: // of a frame of the WAL that is gone
		return true
	default:
		return code.ToPrimary() == sqlite.ResultCorrupt || code.ToPrimary() == sqlite.ResultNotADB
	}
}

// Rescued returns when the ledger last had to be begun anew, because its file
// was damaged, and what was saved and lost; the zero time: never.
func (l *Ledger) Rescued() (at time.Time, report string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rescuedAt, l.rescueReport
}

// open makes or opens the ledger, and rescues it if need be.
func (l *Ledger) open() error {
	anew, err := finishRescue(l.path)
	if err != nil {
		return err
	}
	if err := makeLedger(l.path); err != nil {
		return fmt.Errorf("make ledger: %w", err)
	}
	if err = examine(l.path); err == nil {
		err = l.connect()
	}
	if anew = anew || isDamage(err); isDamage(err) {
		if err = l.replace(err, last{durable: -1}); err == nil {
			err = l.connect()
		}
	}
	if err != nil {
		return errors.Join(err, l.release())
	}
	if anew {
		l.opts.Log.Error(l.rescueReport)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = l.durable
	return nil
}

// examine looks at the file as a whole. No connection of this process may be
// open: see [makeFile].
func examine(path string) error {
	p, err := openPages(path)
	if err != nil {
		return err
	}
	defer p.close()
	return p.check()
}

// connect opens the file, and reads what everything rests on. It needs all
// four locks, once the ledger is shared. After an error what is open is left
// so.
func (l *Ledger) connect() (err error) {
	if l.writer, err = openConn(l.path); err != nil {
		return err
	}
	file, err := os.Stat(l.path)
	if err != nil {
		return err
	}
	if err := migrate(l.writer); err != nil {
		return err
	}
	if l.durable, err = head(l.writer); err != nil {
		return err
	}
	for _, query := range []string{
		"SELECT max(n) FROM changes", "SELECT min(n) FROM changes", "SELECT max(acked) FROM cursors",
		"SELECT count(*) * 0 FROM streams",
	} {
		n, err := readNumber(l.writer, query)
		if err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		if n > l.durable {
			return fmt.Errorf("%w: %s: got %d, want no more than %d, the last number given", errDamaged, query, n, l.durable)
		}
	}
	places, err := readNumber(l.writer, "SELECT seq FROM sqlite_sequence WHERE name = 'aside'")
	if err != nil {
		return fmt.Errorf("read places: %w", err)
	}
	l.asideTop = max(l.asideTop, places)
	if err := l.recall(); err != nil {
		return err
	}
	if l.reader, err = openConn(l.path); err != nil {
		return err
	}
	l.ids, l.streams = map[string]identity{}, map[string]int64{}
	l.largest = file.Size()
	l.mu.Lock()
	l.file = file
	l.mu.Unlock()
	l.wrote(pageBytes) // a WAL may be there
	return nil
}

// recall reads which numbers may be missing, and what came of a rescue.
func (l *Ledger) recall() error {
	losses, err := readLosses(l.writer)
	if err != nil {
		return err
	}
	meta := map[string]string{}
	for _, key := range []string{metaPruned, metaRescued, metaRescuedAt, metaCursorsLost} {
		if meta[key], err = readMeta(l.writer, key); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.losses, l.rescueReport = losses, meta[metaRescued]
	l.cursorsLost = meta[metaCursorsLost] != ""
	l.prunedTo, _ = strconv.ParseInt(meta[metaPruned], 10, 64)     // 0: nothing yet
	l.rescuedAt, _ = time.Parse(time.RFC3339, meta[metaRescuedAt]) // zero: never
	return nil
}

func readLosses(c *sqlite.Conn) (out []span, err error) {
	err = sqlitex.Execute(c, "SELECT first, last FROM losses ORDER BY first", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			out = append(out, span{s.ColumnInt64(0), s.ColumnInt64(1)})
			return nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("read losses: %w", err)
	}
	return out, nil
}

// replace has the damaged file set aside and a new one put in its place. All
// connections are closed after.
func (l *Ledger) replace(cause error, known last) error {
	_, err := rescue(l.path, known, l.opts.Now(), cause, func() { _ = l.release() }) // what they have open is given up
	return err
}

// repair has the file rescued, unless it is no longer the one of that
// generation, and tells the watch to load anew. The caller holds writing. What
// a failure leaves is repaired by the next call.
func (l *Ledger) repair(generation int64, cause error) error {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	l.checking.Lock()
	defer l.checking.Unlock()
	l.visiting.Lock()
	defer l.visiting.Unlock()
	l.mu.Lock()
	if l.broken == nil && generation == l.generation {
		l.broken = cause
	}
	known := last{durable: max(l.durable, l.head), acked: maps.Clone(l.acked), place: l.asideTop}
	at, broken := l.rescuedAt, l.broken
	l.mu.Unlock()
	if broken == nil {
		return nil
	}
	if since := l.opts.Now().Sub(at); !at.IsZero() && since >= 0 && since < rescueEvery {
		return fmt.Errorf("the ledger was rescued only %s ago: %w", since.Round(time.Second), broken)
	}
	finished, err := finishRescue(l.path)
	if err == nil && !finished {
		err = l.replace(broken, known)
	}
	if err == nil {
		err = l.connect()
	}
	if err != nil {
		return errors.Join(err, l.release())
	}
	l.durable = max(l.durable, known.durable)
	l.mu.Lock()
	l.broken = nil
	l.generation++
	report := l.rescueReport
	l.mu.Unlock()
	l.opts.Log.Error(report)
	l.renewed()
	l.signal()
	return nil
}

// note remembers that the file is damaged.
func (l *Ledger) note(err error) {
	if !isDamage(err) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = err
	}
	l.signal()
}

// lookAfter drops the writing connection when the file is known to be damaged,
// or has become shorter than its pages are: what is written to it now may be
// lost. The caller holds writing.
func (l *Ledger) lookAfter() {
	l.mu.Lock()
	broken, file := l.broken, l.file
	l.mu.Unlock()
	if info, err := os.Stat(l.path); broken == nil && err == nil && os.SameFile(info, file) {
		if info.Size() < l.largest {
			broken = l.lookInto()
		}
		l.largest = info.Size()
	}
	if broken != nil && l.writer != nil {
		_ = l.drop(broken) // which remembers it
	}
}

// lookInto examines the file while it is in use. That costs this process its
// locks, and so all connections are made anew.
func (l *Ledger) lookInto() error {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	l.checking.Lock()
	defer l.checking.Unlock()
	l.visiting.Lock()
	defer l.visiting.Unlock()
	err := examine(l.path)
	if err == nil {
		err = errors.Join(l.release(), l.connect())
		if l.writer != nil { // the committer opens its own, and looks how far it had come
			err = errors.Join(err, l.writer.Close())
			l.writer = nil
		}
	}
	return err
}

// missing returns an error when changes between after and upTo are not there
// though they should be.
func (l *Ledger) missing(after, upTo int64, got []statesync.Offered) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := max(after, l.prunedTo) + 1
	hole := func(end int64) error {
		if left := uncovered(span{next, end}, l.losses); len(left) > 0 {
			return fmt.Errorf("%w: changes are missing: %s", errDamaged, left[0])
		}
		return nil
	}
	for i := range got {
		n := got[i].Number
		if err := hole(n - 1); err != nil {
			return err
		}
		next = max(next, n+1)
	}
	return hole(upTo)
}

// uncovered returns what of s is not in known, which is sorted.
func uncovered(s span, known []span) (out []span) {
	for _, k := range known {
		if k.last < s.first || k.first > s.last {
			continue
		}
		if k.first > s.first {
			out = append(out, span{s.first, k.first - 1})
		}
		s.first = k.last + 1
	}
	if s.first <= s.last {
		out = append(out, s)
	}
	return out
}

// read runs f with the reading connection, until ctx ends; once more when the
// file turned out to be damaged and was rescued.
func (l *Ledger) read(ctx context.Context, f func(*sqlite.Conn) error) error {
	generation, err := l.readOnce(ctx, f)
	if !isDamage(err) {
		return err
	}
	l.writing.Lock()
	failed := l.repair(generation, err)
	l.writing.Unlock()
	if failed != nil {
		return errors.Join(err, failed)
	}
	_, err = l.readOnce(ctx, f)
	return err
}

func (l *Ledger) readOnce(ctx context.Context, f func(*sqlite.Conn) error) (generation int64, err error) {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	l.mu.Lock()
	generation = l.generation
	broken := l.broken
	l.mu.Unlock()
	if l.reader == nil {
		switch {
		case broken != nil:
			return generation, broken
		case l.shut:
			return generation, ErrClosed
		}
		if l.reader, err = openConn(l.path); err != nil {
			return generation, err
		}
	}
	l.reader.SetInterrupt(ctx.Done())
	defer l.reader.SetInterrupt(nil)
	return generation, f(l.reader)
}
