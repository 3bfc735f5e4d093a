package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// What an entry of the table aside is.
const (
	asideParked  = "parked"  // a change of the log, which stays there for it
	asideSkipped = "skipped" // changes that the sink is to be told were left out; they need not stay
	asideInitial = "initial" // where a workload stood
	asideReplay  = "replay"  // sent again by command
	asideGap     = "gap"     // of the sink itself
)

// asideLetter is the cause of a replay that was a dead letter; of one that was
// an initial state too, it is asideInitial.
const asideLetter = "letter"

// CauseMissing is the cause of an [statesync.Offered] that was put aside and
// whose change is no longer there: a damaged file has cost it, or the sink was
// not configured for a time. The sink can only be told that it was left out.
const CauseMissing = statesync.SkipMissing

// An asideRow is an entry as the table has it, without its sink.
type asideRow struct {
	lane, what, uid, cause  string
	n, first, seq, previous int64
	skipped, body           string
}

// kindOf says what an entry is to be.
func kindOf(o *statesync.Offered) string {
	switch {
	case o.Cause != "":
		return asideSkipped
	case o.Initial:
		return asideInitial
	case o.Replayed:
		return asideReplay
	case o.Number == 0:
		return asideGap
	}
	return asideParked
}

// asideRows returns the rows of what is put aside. Of a lane, what is left out
// next to each other for one cause is one row.
func asideRows(put []statesync.Offered) (out []asideRow, err error) {
	last := map[string]int{} // index in out of a lane's last
	for i := range put {
		o := &put[i]
		r := asideRow{
			lane: o.Workload.Key().String(), what: kindOf(o), uid: o.Workload.UID, cause: o.Cause,
			n: o.Number, first: o.Seq, seq: o.Seq, previous: o.PreviousSeq,
		}
		if r.skipped, err = encodeSkips(o.Skipped); err != nil {
			return nil, err
		}
		switch r.what {
		case asideSkipped:
			if o.FromSeq > 0 {
				r.first = o.FromSeq
			}
		case asideParked:
		default:
			body, err := json.Marshal(&o.Change)
			if err != nil {
				return nil, fmt.Errorf("encode change: %w", err)
			}
			r.body = string(body)
		}
		if j, ok := last[r.lane]; ok && out[j].continues(&r) {
			out[j].seq, out[j].n = r.seq, r.n
			continue
		}
		last[r.lane] = len(out)
		out = append(out, r)
	}
	return out, nil
}

// continues reports whether next is what was left out right after r.
func (r *asideRow) continues(next *asideRow) bool {
	return r.what == asideSkipped && next.what == asideSkipped && r.uid == next.uid && r.cause == next.cause && next.first == r.seq+1
}

// putAside adds an entry, in the transaction that is open.
func (l *Ledger) putAside(sink string, r *asideRow) error {
	err := l.exec("INSERT INTO aside(sink, lane, n, what, uid, cause, first, seq, previous, skipped, body) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		sink, r.lane, r.n, r.what, r.uid, r.cause, r.first, r.seq, r.previous, r.skipped, r.body)
	if err != nil {
		return err
	}
	l.asideTop = max(l.asideTop, l.writer.LastInsertRowID())
	return nil
}

// encodeSkips is empty for none.
func encodeSkips(s []statesync.Skip) (string, error) {
	if len(s) == 0 {
		return "", nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode what was left out: %w", err)
	}
	return string(b), nil
}

func decodeSkips(s string) (out []statesync.Skip, err error) {
	if s == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(s), &out); err != nil {
		return nil, fmt.Errorf("%w: what was left out: %w", errDamaged, err)
	}
	return out, nil
}

// nanoseconds is 0 for no time.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// refOf is the workload of an entry without a body: its labels are not known.
func refOf(lane, uid string) statesync.Ref {
	parts := strings.SplitN(lane, "/", 3)
	for len(parts) < 3 {
		parts = append(parts, "")
	}
	return statesync.Ref{Namespace: parts[0], Kind: parts[1], Name: parts[2], UID: uid}
}

// asideColumns are those that scanAside takes, of the tables aside a, changes
// c, workloads w and told t.
const asideColumns = `a.id, a.lane, a.n, a.what, a.uid, a.cause, a.first, a.seq, a.previous, a.skipped, a.body,
	c.n, c.previous, c.recorded, c.body, w.seq, t.seq, t.skipped`

const asideJoins = ` LEFT JOIN changes c ON c.n = a.n AND a.what = 'parked'
	LEFT JOIN workloads w ON w.uid = a.uid
	LEFT JOIN told t ON t.sink = a.sink AND t.workload = w.id `

// scanAside makes an entry of its row.
func scanAside(s *sqlite.Stmt) (o statesync.Offered, err error) {
	id, lane, number, what, uid := s.ColumnInt64(0), s.ColumnText(1), s.ColumnInt64(2), s.ColumnText(3), s.ColumnText(4)
	switch {
	case what == asideParked && !s.ColumnIsNull(11):
		if o.Change, err = decodeChange(s.ColumnText(14), s.ColumnInt64(11), s.ColumnInt64(12), s.ColumnInt64(13)); err != nil {
			return o, err
		}
	case what == asideParked:
		o.Cause = CauseMissing
	case what == asideSkipped:
		o.Cause = s.ColumnText(5)
	default:
		if o.Change, err = decodeChange(s.ColumnText(10), number, 0, 0); err != nil {
			return o, fmt.Errorf("put aside at %d: %w", id, err)
		}
		o.Recorded = o.Observed
		// A replayed dead letter may have been an initial state: then that is its cause.
		o.Initial = what == asideInitial || what == asideReplay && s.ColumnText(5) == asideInitial
		o.Replayed = what == asideReplay
	}
	if o.Cause != "" {
		o.Number, o.Workload, o.FromSeq, o.Seq = number, refOf(lane, uid), s.ColumnInt64(6), s.ColumnInt64(7)
	}
	o.Aside, o.PreviousSeq = id, s.ColumnInt64(8)
	if o.Skipped, err = decodeSkips(s.ColumnText(9)); err != nil {
		return o, err
	}
	o.Replaced = !s.ColumnIsNull(15) && s.ColumnInt64(15) > o.Seq
	if !s.ColumnIsNull(16) {
		o.Told, err = scanTold(s, 16, uid)
	}
	return o, err
}

// scanTold takes what a sink was given from two columns.
func scanTold(s *sqlite.Stmt, at int, uid string) (*statesync.Told, error) {
	skipped, err := decodeSkips(s.ColumnText(at + 1))
	if err != nil {
		return nil, err
	}
	return &statesync.Told{UID: uid, Seq: s.ColumnInt64(at), Skipped: skipped}, nil
}
