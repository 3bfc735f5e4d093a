package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/statesync"
)

// Who reads all workloads, again and again, is in nobody's way:
//   - It has a connection of its own, so that no sink waits for it. The connection
//     lives for one page, and with visiting held: nothing of this process may have
//     the file open when it is set aside, or looked into.
//   - Each page is a read transaction: a long one would keep the WAL from
//     shrinking.
//   - What it is given is given after the page.

const livingPage = 2000 // workloads a read

// A livingRow is a row as it was read. Labels are decoded when their turn comes.
type livingRow struct {
	statesync.Living
	labels   string
	id, gone int64
}

// Living yields where each workload stands whose object exists, and then those
// that have gone since a time, by the agent's clock, as long as their rows are
// kept. One that changes meanwhile may come twice, or as it was. The labels are
// yield's only until it returns. It ends with the first error, which may be
// yield's.
func (l *Ledger) Living(ctx context.Context, since time.Time, yield func(statesync.Living) error) error {
	const told = " AND state != '' AND kind != '" + statesync.StreamKind + "'"
	page := make([]livingRow, 0, livingPage)
	labels := map[string]string{}
	for _, part := range []struct {
		where string
		at    int64 // where to begin
	}{
		{"INDEXED BY living WHERE gone = ?1 AND gone = 0 AND id > ?2" + told + " ORDER BY id", 0},
		{"INDEXED BY tombstones WHERE (gone, id) > (?1, ?2) AND gone != 0" + told + " ORDER BY gone, id", max(since.UnixNano(), 1)},
	} {
		for last := (livingRow{gone: part.at}); ; last = page[len(page)-1] {
			var err error
			if page, err = l.livingPage(ctx, part.where, last.gone, last.id, page[:0]); err != nil {
				return fmt.Errorf("read workloads: %w", err)
			}
			for i := range page {
				clear(labels)
				if err := json.Unmarshal([]byte(page[i].labels), &labels); err != nil {
					return fmt.Errorf("read workloads: %w: labels of %s: %w", errDamaged, page[i].UID, err)
				}
				page[i].Labels = labels
				if err := yield(page[i].Living); err != nil {
					return err
				}
			}
			if len(page) < livingPage {
				break
			}
		}
	}
	return nil
}

// livingPage appends the next page to one that is empty.
func (l *Ledger) livingPage(ctx context.Context, where string, gone, id int64, page []livingRow) (_ []livingRow, err error) {
	l.visiting.RLock()
	defer l.visiting.RUnlock()
	defer func() { l.note(err) }()
	if err := errors.Join(ctx.Err(), l.mayVisit()); err != nil {
		return page, err
	}
	// It must not write: not even the WAL into the database, were it the last to
	// close.
	c, err := sqlite.OpenConn(l.path, sqlite.OpenReadOnly)
	if err != nil {
		return page, fmt.Errorf("open %s: %w", l.path, err)
	}
	c.SetBusyTimeout(time.Second)
	c.SetInterrupt(ctx.Done())
	err = sqlitex.ExecuteTransient(c,
		"SELECT kind, namespace, name, uid, labels, state, since, gone, id FROM workloads "+where+" LIMIT ?3",
		&sqlitex.ExecOptions{Args: []any{gone, id, livingPage}, ResultFunc: func(s *sqlite.Stmt) error {
			page = append(page, livingRow{
				Living: statesync.Living{
					Ref:   statesync.Ref{Kind: s.ColumnText(0), Namespace: s.ColumnText(1), Name: s.ColumnText(2), UID: s.ColumnText(3)},
					State: statesync.State(s.ColumnText(5)), Since: whole(s.ColumnInt64(6)),
				},
				labels: s.ColumnText(4), gone: s.ColumnInt64(7), id: s.ColumnInt64(8),
			})
			return nil
		}})
	if err != nil {
		return page, closeAfter(c, err)
	}
	return page, c.Close()
}

// mayVisit returns an error when the file is not to be opened. The caller holds
// visiting.
func (l *Ledger) mayVisit() error {
	if l.shut {
		return ErrClosed
	}
	l.mu.Lock()
	broken := l.broken
	l.mu.Unlock()
	if broken != nil {
		return broken
	}
	return l.Intact() // else it would be another's
}
