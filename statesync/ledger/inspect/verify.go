package inspect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// The checks, in the order in which they are shown.
const (
	checkIntegrity = "integrity" // SQLite's own check of the file
	checkNumbers   = "numbers"   // without holes above what retention has deleted, but for losses
	checkBodies    = "bodies"    // the JSON can be read and agrees with the columns
	checkSequence  = "sequence"  // seq counts up by one for each UID
	checkPrevious  = "previous"  // links to the UID's change before
	checkFrom      = "from"      // is the state that the change before left
	checkEnds      = "ends"      // nothing follows an end
	checkEpochs    = "epochs"    // never fall
	checkIDs       = "ids"       // no two alike; those of ends are what can be computed
	checkGaps      = "gaps"      // are changes of streams, and of time
	checkWorkloads = "workloads" // each row is what its last change left
	checkPruned    = "pruned"    // a row without a change is older than what retention has deleted
	checkLabels    = "labels"    // can be read
	checkCursors   = "cursors"   // are not ahead of the ledger
	checkAside     = "aside"     // what is put aside and told is of a sink, can be read, and is not ahead of its cursor
	checkObjects   = "objects"   // belong to a stream
)

// VerifyOptions say how to recount.
type VerifyOptions struct {
	Findings int                 // shown for each check; 0: 5
	Progress func(done Progress) // called now and then; nil: nobody looks
}

// Progress is how far a recount has come.
type Progress struct {
	Stage string `json:"stage"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0: not known
}

// verifier recounts one ledger.
type verifier struct {
	f        *File
	progress func(Progress)
	checklist

	cluster string
	bounds             // at the start: what comes later is not looked at
	lowest  int64      // all kept from here on: on a live ledger it rises meanwhile
	losses  []LossStat // sorted
	rescued bool

	lives map[int64]*life // by the workload's id
	ids   []idAt
	next  int64 // number that is to come
	reads int64 // changes looked at
}

// idAt is the first half of a change's ID: equal ones are read again.
type idAt struct {
	half   uint64
	number int64
}

// Verify recounts everything from the rows and trusts no stored counter. What
// is added to a live ledger meanwhile is not looked at, and what retention
// removes meanwhile is not missed. Only what makes it impossible to look is an
// error; damage is a finding.
func (f *File) Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	v := &verifier{
		f: f, progress: o.Progress, checklist: checklist{limit: cmp.Or(o.Findings, maxFindings)},
		lives: map[int64]*life{},
	}
	if v.progress == nil {
		v.progress = func(Progress) {}
	}
	for _, name := range []string{
		checkIntegrity, checkNumbers, checkBodies, checkSequence, checkPrevious, checkFrom, checkEnds, checkEpochs,
		checkIDs, checkGaps, checkWorkloads, checkPruned, checkLabels, checkCursors, checkAside, checkObjects,
	} {
		v.check(name)
	}
	for _, stage := range []func(context.Context) error{
		v.begin, v.integrity, v.changes, v.sameIDs, v.workloads, v.cursors, v.aside, v.objects,
	} {
		err := stage(ctx)
		if sqlite.ErrCode(err).ToPrimary() == sqlite.ResultCorrupt && ctx.Err() == nil {
			v.damaged(err)
			break
		}
		if err != nil {
			return nil, fmt.Errorf("verify ledger %s: %w", f.path, err)
		}
	}
	return &Report{Path: f.path, Cluster: v.cluster, Checks: v.checks, Notes: v.notes()}, nil
}

// damaged books an error of reading, which leaves the rest unread.
func (v *verifier) damaged(err error) {
	v.found(checkIntegrity, Finding{Got: err.Error(), Want: "a file that can be read"})
	for _, c := range v.checks {
		if c.Scope == "" && c.Name != checkIntegrity {
			c.Skipped = "the file is damaged"
		}
	}
}

func (v *verifier) begin(ctx context.Context) error {
	return v.f.page(ctx, func() (err error) {
		if v.bounds, err = v.f.bounds(); err != nil {
			return err
		}
		v.lowest, v.next = max(v.first, v.pruned+1), v.first
		if v.cluster, err = v.f.text("SELECT value FROM meta WHERE key = 'cluster'"); err != nil {
			return err
		}
		rescued, err := v.f.number("SELECT count(*) FROM meta WHERE key = 'rescued_at'")
		if err != nil {
			return err
		}
		v.rescued = rescued > 0
		v.losses, err = v.f.losses()
		return err
	})
}

// integrity runs SQLite's own check: of a live ledger table by table, each in
// a transaction of its own; of another the whole file, free pages included.
func (v *verifier) integrity(ctx context.Context) error {
	v.progress(Progress{Stage: "integrity"})
	tables := []string{""}
	if !v.f.quiet {
		tables = []string{"(meta)", "(workloads)", "(changes)", "(streams)", "(objects)", "(cursors)", "(losses)", "(aside)", "(told)", "(dead_letters)"}
	}
	for _, table := range tables {
		err := v.f.page(ctx, func() error {
			return v.f.each("PRAGMA integrity_check"+table, nil, func(s *sqlite.Stmt) error {
				for line := range strings.Lines(s.ColumnText(0)) {
					if line = strings.TrimSpace(line); line != "ok" {
						v.found(checkIntegrity, Finding{Got: line, Want: "ok"})
					}
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	v.check(checkIntegrity).Scope = "the file"
	if !v.f.quiet {
		v.check(checkIntegrity).Scope = "10 tables"
	}
	return nil
}

// sameIDs finds changes with one ID. Those of which half is equal are read
// again.
func (v *verifier) sameIDs(ctx context.Context) error {
	slices.SortFunc(v.ids, func(a, b idAt) int {
		return cmp.Or(cmp.Compare(a.half, b.half), cmp.Compare(a.number, b.number))
	})
	for i := 1; i < len(v.ids); i++ {
		a, b := v.ids[i-1], v.ids[i]
		if a.half != b.half {
			continue
		}
		err := v.f.page(ctx, func() error {
			var rows []statesync.Change
			err := v.f.each("SELECT body FROM changes WHERE n IN (?, ?)", []any{a.number, b.number}, func(s *sqlite.Stmt) error {
				c := statesync.Change{}
				err := json.Unmarshal([]byte(s.ColumnText(0)), &c)
				rows = append(rows, c)
				return err
			})
			if err == nil && len(rows) == 2 && rows[0].ID == rows[1].ID {
				v.found(checkIDs, Finding{
					Number: b.number, UID: rows[1].Workload.UID,
					Got: fmt.Sprintf("ID %s of change %d", rows[1].ID, a.number), Want: "an ID of its own",
				})
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	v.ids = nil
	return nil
}

// workloads holds each row to the last change of it that was read.
func (v *verifier) workloads(ctx context.Context) error {
	var total, rows, end int64
	err := v.f.page(ctx, func() error {
		return v.f.each("SELECT count(*), coalesce(max(id), 0) FROM workloads NOT INDEXED", nil, func(s *sqlite.Stmt) error {
			total, end = s.ColumnInt64(0), s.ColumnInt64(1) // later rows are not looked at
			return nil
		})
	})
	if err != nil {
		return err
	}
	for after := int64(-1); after < end; {
		v.progress(Progress{Stage: "workloads", Done: rows, Total: total})
		err := v.f.page(ctx, func() error {
			if err := v.readLowest(); err != nil {
				return err
			}
			read := 0
			err := v.f.each("SELECT id, uid, labels, state, epoch, seq, last FROM workloads WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
				[]any{after, end, pageRows}, func(s *sqlite.Stmt) error {
					after = s.ColumnInt64(0)
					read++
					v.workload(s)
					return nil
				})
			if rows += int64(read); read < pageRows {
				after = end
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for id, l := range v.lives {
		if !l.row && !v.excused(l.number) {
			v.found(checkWorkloads, Finding{Number: l.number, UID: l.uid, Got: fmt.Sprintf("no row %d", id), Want: "a row for the workload of the change"})
		}
	}
	scope := fmt.Sprintf("%d rows", rows)
	v.check(checkWorkloads).Scope, v.check(checkLabels).Scope, v.check(checkPruned).Scope = scope, scope, scope
	return nil
}

func (v *verifier) workload(s *sqlite.Stmt) {
	id, uid, state, epoch, seq, last := s.ColumnInt64(0), s.ColumnText(1), s.ColumnText(3), s.ColumnInt64(4), s.ColumnInt64(5), s.ColumnInt64(6)
	var labels map[string]string
	if err := json.Unmarshal([]byte(s.ColumnText(2)), &labels); err != nil {
		v.found(checkLabels, Finding{UID: uid, Got: clip(s.ColumnText(2)), Want: "a JSON object of texts"})
	}
	l := v.lives[id]
	if l != nil {
		l.row = true
	}
	switch {
	case last > v.head: // it has changed since the recount began
		v.tooFar(uid, last)
	case l == nil && last == 0 && (seq == 0 || v.rescued): // known, and nothing told of it here
	case l == nil && !v.excused(last):
		v.found(checkPruned, Finding{UID: uid, Got: fmt.Sprintf("last change %d, which is not there", last), Want: fmt.Sprintf("one below %d, the lowest kept", v.lowest)})
	case l == nil:
	case last > l.number && seq > l.seq && v.excused(last): // what came after is gone
	case last != l.number || seq != l.seq || !l.unread && (epoch != l.epoch || state != string(l.state)):
		v.found(checkWorkloads, Finding{
			Number: l.number, UID: uid,
			Got:  fmt.Sprintf("a row with last change %d, seq %d, epoch %d, state %s", last, seq, epoch, quoted(state)),
			Want: fmt.Sprintf("%d, %d, %d, %s", l.number, l.seq, l.epoch, quoted(string(l.state))),
		})
	}
}

// tooFar books a row that is ahead of the whole ledger.
func (v *verifier) tooFar(uid string, last int64) {
	if now, err := v.f.bounds(); err == nil && last > now.head {
		v.found(checkWorkloads, Finding{UID: uid, Got: fmt.Sprintf("a row with last change %d", last), Want: fmt.Sprintf("at most %d, the head", now.head)})
	}
}

func (v *verifier) cursors(ctx context.Context) error {
	return v.f.page(ctx, func() error {
		now, err := v.f.bounds()
		if err != nil {
			return err
		}
		rows := 0
		err = v.f.each("SELECT sink, since, acked FROM cursors ORDER BY sink", nil, func(s *sqlite.Stmt) error {
			rows++
			sink, since, acked := s.ColumnText(0), s.ColumnInt64(1), s.ColumnInt64(2)
			if acked > now.head {
				v.found(checkCursors, Finding{UID: sink, Got: fmt.Sprintf("a cursor at %d", acked), Want: fmt.Sprintf("at most %d, the head", now.head)})
			}
			if since > acked {
				v.found(checkCursors, Finding{UID: sink, Got: fmt.Sprintf("a cursor at %d, below its start at %d", acked, since), Want: "one at or above its start"})
			}
			return nil
		})
		v.check(checkCursors).Scope = fmt.Sprintf("%d sinks", rows)
		return err
	})
}

func (v *verifier) objects(ctx context.Context) error {
	return v.f.page(ctx, func() error {
		total, err := v.f.number("SELECT count(*) FROM objects")
		if err != nil {
			return err
		}
		v.check(checkObjects).Scope = fmt.Sprintf("%d objects", total)
		return v.f.each("SELECT stream, uid FROM objects WHERE stream NOT IN (SELECT id FROM streams)", nil, func(s *sqlite.Stmt) error {
			v.found(checkObjects, Finding{UID: s.ColumnText(1), Got: fmt.Sprintf("stream %d, which is not there", s.ColumnInt64(0)), Want: "a stream"})
			return nil
		})
	})
}

// notes says what is worth knowing of a ledger in which every rule holds.
func (v *verifier) notes() (out []string) {
	for _, l := range v.losses {
		out = append(out, fmt.Sprintf("changes %d..%d are lost: %s", l.First, l.Last, l.Cause))
	}
	if v.rescued {
		out = append(out, "this ledger was begun anew from a damaged one")
	}
	if !v.f.quiet {
		out = append(out, fmt.Sprintf("the ledger is live, or was not closed: changes above %d were not looked at", v.head))
	}
	return out
}

var errBody = errors.New("cannot be read")

func quoted(state string) string {
	if state == "" {
		return `""`
	}
	return state
}

// clip shortens what was read for a finding.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
