package ledger

import (
	"context"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A checkpoint copies the WAL into the database. It syncs what may be many
// pages all over the file, so it is not the committer's: a goroutine with a
// connection of its own does it beside the commits. Only a WAL that has grown
// beyond its limit is emptied with the committer stopped, after a checkpoint
// that left little to copy: under writes that never pause no checkpoint
// reaches the WAL's end, and it would grow without bound.

const (
	checkpointEvery = 2 * time.Second // when anything was written
	checkpointBytes = 8 << 20         // written since: sooner
	walLimit        = 64 << 20
	checkpointWait  = 100 * time.Millisecond // for readers, while the committer is stopped
	truncateEvery   = 10 * time.Second       // when readers were in the way
)

// wrote counts what was added to the WAL, about.
func (l *Ledger) wrote(bytes int64) {
	if l.unchecked.Add(bytes) < min(checkpointBytes, l.opts.MaxBytes/64) {
		return
	}
	select {
	case l.grown <- struct{}{}:
	default:
	}
}

// RunCheckpoints checkpoints until ctx ends. [Ledger.Run] does it too; without
// Run, who writes much is to do it beside: else the WAL grows without bound.
func (l *Ledger) RunCheckpoints(ctx context.Context) {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	var inTheWay time.Time // when readers last were
	for grown := l.grown; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-grown:
		}
		written := l.unchecked.Swap(0)
		if written == 0 {
			continue
		}
		complete, err := l.checkpoint(ctx, "PASSIVE")
		if ctx.Err() != nil {
			return
		}
		l.keepUp("checkpoint", err)
		if grown = l.grown; err != nil {
			l.unchecked.Add(written)
			grown = nil // not at once: at the next tick
			continue
		}
		if !complete {
			l.unchecked.Add(1)
		}
		if wal, err := l.walSize(); err == nil && wal > l.walReserve() && l.opts.Now().Sub(inTheWay) >= truncateEvery {
			l.writing.Lock()
			if !l.truncate() {
				inTheWay = l.opts.Now()
			}
			l.writing.Unlock()
		}
	}
}

// truncate empties the WAL, unless readers are in the way. The caller holds
// writing.
func (l *Ledger) truncate() bool {
	complete, err := l.checkpoint(context.Background(), "TRUNCATE")
	l.keepUp("truncate", err)
	return complete
}

// checkpoint reports whether all of the WAL is in the database.
func (l *Ledger) checkpoint(ctx context.Context, mode string) (complete bool, err error) {
	l.checking.Lock()
	defer l.checking.Unlock()
	defer func() { l.note(err) }()
	if l.distrust.Swap(false) && l.checker != nil {
		c := l.checker
		l.checker = nil
		if err := c.Close(); err != nil {
			return false, fmt.Errorf("checkpoint: %w", err)
		}
	}
	if l.checker == nil {
		c, err := openConn(l.path)
		if err != nil {
			return false, fmt.Errorf("checkpoint: %w", err)
		}
		c.SetBusyTimeout(checkpointWait)
		l.checker = c
	}
	l.checker.SetInterrupt(ctx.Done())
	defer func() {
		if err != nil {
			err = closeAfter(l.checker, fmt.Errorf("checkpoint: %w", err))
			l.checker = nil
			return
		}
		l.checker.SetInterrupt(nil)
	}()
	began := l.opts.Now()
	err = sqlitex.Execute(l.checker, "PRAGMA wal_checkpoint("+mode+")", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			busy, pages, copied := s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnInt64(2)
			complete = busy == 0 && pages == copied
			return nil
		},
	})
	if err == nil {
		l.checks.Observe(l.opts.Now().Sub(began))
	}
	return complete, err
}
