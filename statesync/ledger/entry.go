package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// What an entry becomes in the tables. An entry without changes may be written
// twice, when the answer to a commit was lost: everything but the changes is
// set to a value, and never counted up.

// empty reports whether nothing of e is written.
func empty(e *statesync.Entry) bool {
	return len(e.Changes) == 0 && e.Row.UID == "" && len(e.Objects) == 0 && e.Resume == nil && e.Forget == ""
}

// cost is about how many bytes an entry adds to the WAL: a page for each row,
// for they lie anywhere, and what they hold.
func cost(e *statesync.Entry) (bytes int64) {
	const change = 1024
	bytes = pageBytes + change*int64(len(e.Changes))
	for i := range e.Objects {
		bytes += pageBytes + int64(len(e.Objects[i].Body))
	}
	return bytes
}

// writeEntry writes e in the transaction of its group. What a stream had goes
// first, so that one entry can put another in its place.
func (l *Ledger) writeEntry(e *statesync.Entry) error {
	if e.Row.UID != "" || len(e.Changes) > 0 {
		if err := l.writeWorkload(e); err != nil {
			return fmt.Errorf("record %s: %w", e.Row.UID, err)
		}
	}
	if e.Forget != "" {
		if err := l.forget(e.Forget); err != nil {
			return fmt.Errorf("forget stream %s: %w", e.Forget, err)
		}
	}
	for i := range e.Objects {
		if err := l.writeObject(&e.Objects[i]); err != nil {
			return fmt.Errorf("keep object %s of stream %s: %w", e.Objects[i].UID, e.Objects[i].Stream, err)
		}
	}
	if e.Resume != nil {
		if err := l.writeResume(e.Resume); err != nil {
			return fmt.Errorf("resume point of stream %s: %w", e.Resume.Stream, err)
		}
	}
	return nil
}

func (l *Ledger) writeWorkload(e *statesync.Entry) error {
	r := &e.Row
	if r.UID == "" {
		return errors.New("the entry has changes and no row")
	}
	id, err := l.identity(r)
	if err != nil {
		return err
	}
	recorded := l.opts.Now()
	var since any // nil: the state is as it was
	for i := range e.Changes {
		c := &e.Changes[i]
		body, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("encode change: %w", err)
		}
		err = sqlitex.Execute(l.writer, "INSERT INTO changes(workload, seq, previous, recorded, body) VALUES(?, ?, ?, ?, ?)",
			&sqlitex.ExecOptions{Args: []any{id.id, c.Seq, id.last, recorded.UnixNano(), string(body)}})
		if err != nil {
			return fmt.Errorf("insert change: %w", err)
		}
		id.last = l.writer.LastInsertRowID()
		if moves(c) {
			since = seconds(c.Occurred)
		}
		if err := failpoint.Here("ledger/change"); err != nil {
			return err
		}
	}
	labels, err := json.Marshal(r.Labels)
	if err != nil {
		return fmt.Errorf("encode labels: %w", err)
	}
	err = sqlitex.Execute(l.writer,
		`UPDATE workloads SET labels = ?, stream = ?, state = ?, reason = ?, epoch = ?, seq = ?, rv = ?,
		 suspended = ?, started = ?, suspension = ?, last = ?, gone = ?, removed = ?, since = coalesce(?, since) WHERE id = ?`,
		&sqlitex.ExecOptions{Args: []any{
			string(labels), r.Stream, string(r.State), r.Reason, r.Epoch, r.Seq, r.ResourceVersion,
			r.Suspended, seconds(r.Started), seconds(r.Suspension), id.last, goneAt(r, recorded), r.Removed, since, id.id,
		}})
	if err != nil {
		return fmt.Errorf("update workload: %w", err)
	}
	l.ids[r.UID] = id
	if r.Gone {
		delete(l.ids, r.UID)
	}
	return nil
}

// moves reports whether a change leads to another state: one may tell another
// reason alone.
func moves(c *statesync.Change) bool { return c.Gap == nil && c.From != c.To }

// goneAt is 0 for a workload whose object exists, else when it went.
func goneAt(r *statesync.Row, now time.Time) int64 {
	if !r.Gone {
		return 0
	}
	return now.UnixNano()
}

// seconds is 0 for no time.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// identity returns the workload's row, making it if there is none.
func (l *Ledger) identity(r *statesync.Row) (identity, error) {
	if id, ok := l.ids[r.UID]; ok {
		return id, nil
	}
	err := sqlitex.Execute(l.writer,
		`INSERT INTO workloads(uid, kind, namespace, name, labels, stream, state, reason, epoch, seq, rv,
		 suspended, started, suspension, last, gone, removed)
		 VALUES(?, ?, ?, ?, '{}', '', '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING`,
		&sqlitex.ExecOptions{Args: []any{r.UID, r.Kind, r.Namespace, r.Name}})
	if err != nil {
		return identity{}, fmt.Errorf("insert workload: %w", err)
	}
	var id identity
	err = sqlitex.Execute(l.writer, "SELECT id, last FROM workloads WHERE uid = ?", &sqlitex.ExecOptions{
		Args:       []any{r.UID},
		ResultFunc: func(s *sqlite.Stmt) error { id = identity{s.ColumnInt64(0), s.ColumnInt64(1)}; return nil },
	})
	if err != nil {
		return identity{}, fmt.Errorf("find workload: %w", err)
	}
	return id, nil
}

// stream returns the id of the stream's row, making one without a resume point
// if there is none.
func (l *Ledger) stream(name string) (id int64, err error) {
	if id, ok := l.streams[name]; ok {
		return id, nil
	}
	err = sqlitex.Execute(l.writer,
		"INSERT INTO streams(name, definition, version, at, lost) VALUES(?, '', 0, 0, '') ON CONFLICT DO NOTHING",
		&sqlitex.ExecOptions{Args: []any{name}})
	if err != nil {
		return 0, fmt.Errorf("insert stream: %w", err)
	}
	err = sqlitex.Execute(l.writer, "SELECT id FROM streams WHERE name = ?", &sqlitex.ExecOptions{
		Args:       []any{name},
		ResultFunc: func(s *sqlite.Stmt) error { id = s.ColumnInt64(0); return nil },
	})
	if err != nil {
		return 0, fmt.Errorf("find stream: %w", err)
	}
	l.streams[name] = id
	return id, nil
}

func (l *Ledger) writeObject(o *statesync.Object) error {
	stream, err := l.stream(o.Stream)
	if err != nil {
		return err
	}
	if o.Body == nil {
		return sqlitex.Execute(l.writer, "DELETE FROM objects WHERE stream = ? AND uid = ?",
			&sqlitex.ExecOptions{Args: []any{stream, o.UID}})
	}
	return sqlitex.Execute(l.writer,
		`INSERT INTO objects(stream, uid, unread, body) VALUES(?, ?, ?, ?)
		 ON CONFLICT DO UPDATE SET unread = excluded.unread, body = excluded.body`,
		&sqlitex.ExecOptions{Args: []any{stream, o.UID, o.Unread, o.Body}})
}

// writeResume moves a stream's resume point. That the stream was lost before is
// forgotten: an entry that was handed over before NewEpoch would say so
// wrongly, and none is, because the watch waits for all of them first.
func (l *Ledger) writeResume(r *statesync.Resume) error {
	id, err := l.stream(r.Stream)
	if err != nil {
		return err
	}
	var at int64
	if !r.At.IsZero() {
		at = r.At.UnixNano()
	}
	return sqlitex.Execute(l.writer, "UPDATE streams SET definition = ?, version = ?, at = ?, lost = ? WHERE id = ?",
		&sqlitex.ExecOptions{Args: []any{r.Definition, r.Version, at, r.Lost, id}})
}

// forget deletes what is kept of a stream. Its workloads stay.
func (l *Ledger) forget(stream string) error {
	delete(l.streams, stream) // the id may be another stream's next
	for _, statement := range []string{
		"DELETE FROM objects WHERE stream = (SELECT id FROM streams WHERE name = ?)",
		"DELETE FROM streams WHERE name = ?",
	} {
		if err := sqlitex.Execute(l.writer, statement, &sqlitex.ExecOptions{Args: []any{stream}}); err != nil {
			return err
		}
	}
	return nil
}
