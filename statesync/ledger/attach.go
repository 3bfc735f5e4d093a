package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// How a sink begins, and begins again. All of it is in the transaction of who
// asked for it.

// errSink is what is said of a sink that is not one that can be asked for.
var errSink = errors.New("refused")

const (
	// lives are the workloads that a new sink is told of.
	lives = "w.gone = 0 AND w.state IN ('Queued', 'Running')"
	// unheard are those besides of which a sink may not have been given the
	// last change: the change is above its cursor, or below and was put aside,
	// or left out.
	unheard = `w.last > ?1 OR w.uid IN (SELECT uid FROM aside WHERE sink = ?2) OR w.id IN (SELECT workload FROM told WHERE sink = ?2)`
	// newCursor is one of a sink, since a number and at one.
	newCursor = `INSERT INTO cursors(sink, since, acked, skipped, begun, gaps)
		SELECT ?1, ?2, ?3, ?3, ?3, coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = '` + metaGaps + `' || ?1), 0)`
	// toldNothing is that a sink was given nothing of a workload, of which it
	// may be given more.
	toldNothing = `INSERT OR REPLACE INTO told(sink, workload, seq, skipped)
		SELECT ?, w.id, 0, json_array(json_object('from', 1, 'to', w.seq, 'cause', '` + statesync.SkipBefore + `')) FROM workloads w WHERE w.seq > 0 AND `
)

// begin makes the cursor of a sink not seen before.
func (l *Ledger) begin(sink string) error {
	start := l.durable
	l.mu.Lock()
	lost := l.cursorsLost
	l.mu.Unlock()
	if lost {
		oldest, err := readNumber(l.writer, "SELECT min(n) FROM changes")
		if err != nil {
			return err
		}
		if oldest > 0 {
			start = oldest - 1
		}
		return l.exec(newCursor, sink, start, start)
	}
	if err := l.exec(newCursor, sink, 0, start); err != nil {
		return err
	}
	if err := l.initial(sink, l.opts.Now(), lives); err != nil {
		return err
	}
	return l.exec(toldNothing+"(w.state = ? OR w.kind = ?)", sink, string(statesync.Untracked), statesync.StreamKind)
}

// attach has a sink that was not given anything since a time begin again at
// the head.
func (l *Ledger) attach(k *cursorRow, since time.Time) error {
	now, head := l.opts.Now(), l.durable
	from, err := l.givenUpTo(k)
	if err != nil {
		return err
	}
	if since, err = l.recordedSince(from, since); err != nil {
		return err
	}
	gap, err := l.sinkGap(k, from, since, now)
	if err != nil {
		return err
	}
	last, err := readNumber(l.writer, "SELECT coalesce(max(id), 0) FROM aside")
	if err != nil {
		return err
	}
	if err := l.putAside(k.Sink, gap); err != nil {
		return err
	}
	if err := l.initial(k.Sink, now, lives+" OR "+unheard, from, k.Sink); err != nil {
		return err
	}
	streams, err := l.streamsUnheard(from, k.Sink)
	if err != nil {
		return err
	}
	// What waited since the last mark will not come any more.
	if err := l.exec("UPDATE cursors SET skipped = skipped + ? WHERE sink = ?", k.Waiting, k.Sink); err != nil {
		return err
	}
	// A gap that it was not given yet tells of other numbers, and a dead letter
	// that is being replayed is nowhere else.
	if err := l.exec("DELETE FROM aside WHERE sink = ? AND id <= ? AND what NOT IN ('gap', 'replay')", k.Sink, last); err != nil {
		return err
	}
	if err := l.exec("DELETE FROM told WHERE sink = ?", k.Sink); err != nil {
		return err
	}
	for _, id := range streams {
		if err := l.exec(toldNothing+"w.id = ?", k.Sink, id); err != nil {
			return err
		}
	}
	if err := failpoint.Here("ledger/attach"); err != nil {
		return err
	}
	// Of two rows that a rescue may find, the one with more saves counts.
	return l.exec(`UPDATE cursors SET since = 0, acked = max(acked, ?1), skipped = skipped + max(0, ?1 - acked), begun = ?1, detached = '', detached_at = 0, gaps = gaps + 1, saves = saves + 1
		WHERE sink = ?2`, head, k.Sink)
}

// givenUpTo is the number up to which a sink was given or told everything: the
// cursor, but for what is parked below it.
func (l *Ledger) givenUpTo(k *cursorRow) (n int64, err error) {
	n = k.Acked
	err = sqlitex.Execute(l.writer, "SELECT min(n) FROM aside WHERE sink = ? AND what = 'parked'", &sqlitex.ExecOptions{
		Args: []any{k.Sink},
		ResultFunc: func(s *sqlite.Stmt) error {
			if !s.ColumnIsNull(0) {
				n = min(n, s.ColumnInt64(0)-1)
			}
			return nil
		},
	})
	return n, err
}

// recordedSince is the earlier of a time and when the first change above from
// was recorded, as far as it is kept: a detached sink may have been given
// nothing for long.
func (l *Ledger) recordedSince(from int64, since time.Time) (time.Time, error) {
	err := sqlitex.Execute(l.writer, "SELECT recorded FROM changes WHERE n > ? ORDER BY n LIMIT 1", &sqlitex.ExecOptions{
		Args: []any{from},
		ResultFunc: func(s *sqlite.Stmt) error {
			if at := instant(s.ColumnInt64(0)); !at.IsZero() && at.Before(since) {
				since = at
			}
			return nil
		},
	})
	return since, err
}

// streamsUnheard returns the streams of which the sink may lack a gap: its own
// tells of the same time.
func (l *Ledger) streamsUnheard(from int64, sink string) (ids []int64, err error) {
	err = sqlitex.Execute(l.writer, "SELECT w.id FROM workloads w WHERE w.kind = ?3 AND ("+unheard+")", &sqlitex.ExecOptions{
		Args:       []any{from, sink, statesync.StreamKind},
		ResultFunc: func(s *sqlite.Stmt) error { ids = append(ids, s.ColumnInt64(0)); return nil },
	})
	return ids, err
}

// identified returns the cluster and its epoch, as far as they are known.
func (l *Ledger) identified() (cluster string, epoch int64, err error) {
	if cluster, err = readMeta(l.writer, "cluster"); err != nil {
		return "", 0, err
	}
	epoch, err = readNumber(l.writer, "SELECT value FROM meta WHERE key = 'epoch'")
	return cluster, epoch, err
}

// sinkGap is the entry that tells a sink what it was not given.
func (l *Ledger) sinkGap(k *cursorRow, from int64, since, now time.Time) (*asideRow, error) {
	cluster, epoch, err := l.identified()
	if err != nil {
		return nil, err
	}
	if since.IsZero() || since.After(now) { // not known, or by a clock that was ahead
		since = now
	}
	ref := statesync.StreamRef("sink/" + k.Sink)
	c := statesync.Change{
		ID: madeID("gap", cluster, epoch, ref.UID, k.gaps+1, l.durable), Cluster: cluster, Epoch: epoch, Workload: ref, Seq: k.gaps + 1,
		Occurred: now.UTC(), Observed: now.UTC(),
		Gap: &statesync.Gap{
			Stream: ref.Name, Reason: statesync.GapDetached, From: since.UTC(), To: now.UTC(), FromNumber: from, ToNumber: l.durable,
		},
	}
	body, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("encode gap: %w", err)
	}
	return &asideRow{lane: ref.Key().String(), what: asideGap, uid: ref.UID, first: c.Seq, seq: c.Seq, previous: k.gaps, body: string(body)}, nil
}

// madeID is the ID of what no event has caused: the same for the same.
func madeID(what, cluster string, epoch int64, uid string, seq, number int64) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%s\x00%d\x00%d", what, cluster, epoch, uid, seq, number))
	return hex.EncodeToString(h[:16])
}

// initial puts aside where the workloads stand that a condition selects.
func (l *Ledger) initial(sink string, now time.Time, where string, args ...any) error {
	cluster, _, err := l.identified()
	if err != nil {
		return err
	}
	query := `SELECT w.kind, w.namespace, w.name, w.uid, w.labels, w.state, w.reason, w.epoch, w.seq FROM workloads w
		WHERE w.kind != '` + statesync.StreamKind + `' AND w.seq > 0 AND (` + where + `) ORDER BY w.id`
	return sqlitex.Execute(l.writer, query, &sqlitex.ExecOptions{Args: args, ResultFunc: func(s *sqlite.Stmt) error {
		c := statesync.Change{
			Cluster:  cluster,
			Workload: statesync.Ref{Kind: s.ColumnText(0), Namespace: s.ColumnText(1), Name: s.ColumnText(2), UID: s.ColumnText(3)},
			To:       statesync.State(s.ColumnText(5)), Reason: s.ColumnText(6), Epoch: s.ColumnInt64(7), Seq: s.ColumnInt64(8),
			Occurred: now.UTC(), Observed: now.UTC(),
		}
		if err := json.Unmarshal([]byte(s.ColumnText(4)), &c.Workload.Labels); err != nil {
			return fmt.Errorf("%w: labels of %s: %w", errDamaged, c.Workload.UID, err)
		}
		c.ID = madeID("initial", cluster, c.Epoch, c.Workload.UID, c.Seq, 0)
		body, err := json.Marshal(&c)
		if err != nil {
			return fmt.Errorf("encode where %s stands: %w", c.Workload.UID, err)
		}
		return l.putAside(sink, &asideRow{lane: c.Workload.Key().String(), what: asideInitial, uid: c.Workload.UID, first: c.Seq, seq: c.Seq, body: string(body)})
	}})
}
