package inspect

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// life is what is held of one workload while its changes are read.
type life struct {
	uid    string
	number int64 // of its last change read
	seq    int64
	epoch  int64
	state  statesync.State
	unread bool // the body of that change could not be read: its state is not known
	row    bool // its row was found
}

// stored is a change as its row has it.
type stored struct {
	number, workload, seq, previous int64
	row                             bool // the workload has a row
	uid, kind, namespace, name      string
	statesync.Change
	err error // why the body could not be read
}

// changes reads every change once, in order.
func (v *verifier) changes(ctx context.Context) error {
	var total int64
	if err := v.f.page(ctx, func() (err error) { total, err = v.f.kept(v.bounds); return err }); err != nil {
		return err
	}
	from := v.first - 1
	for from < v.head {
		v.progress(Progress{Stage: "changes", Done: v.reads, Total: total})
		read := 0
		err := v.f.page(ctx, func() error {
			if err := v.readLowest(); err != nil {
				return err
			}
			return v.f.each(`SELECT n, c.workload, c.seq, c.previous, c.body, w.id IS NOT NULL, w.uid, w.kind, w.namespace, w.name
				FROM changes c LEFT JOIN workloads w ON w.id = c.workload WHERE n > ? AND n <= ? ORDER BY n LIMIT ?`, []any{from, v.head, pageRows},
				func(s *sqlite.Stmt) error { read++; from = s.ColumnInt64(0); v.change(scan(s)); return nil })
		})
		if err != nil {
			return err
		}
		if read < pageRows {
			break
		}
	}
	v.hole(v.head + 1)
	rows := fmt.Sprintf("%d changes", v.reads)
	for _, name := range []string{checkBodies, checkSequence, checkPrevious, checkFrom, checkEnds, checkEpochs, checkIDs, checkGaps} {
		v.check(name).Scope = rows
	}
	v.check(checkNumbers).Scope = fmt.Sprintf("%d..%d", v.first, v.head)
	if v.reads == 0 {
		v.check(checkNumbers).Scope = fmt.Sprintf("none kept, head %d", v.head)
	}
	return nil
}

func scan(s *sqlite.Stmt) stored {
	c := stored{
		number: s.ColumnInt64(0), workload: s.ColumnInt64(1), seq: s.ColumnInt64(2), previous: s.ColumnInt64(3),
		row: s.ColumnBool(5), uid: s.ColumnText(6), kind: s.ColumnText(7), namespace: s.ColumnText(8), name: s.ColumnText(9),
	}
	if err := json.Unmarshal([]byte(s.ColumnText(4)), &c.Change); err != nil {
		c.err = err
		c.Change = statesync.Change{}
	}
	return c
}

func (v *verifier) readLowest() error {
	now, err := v.f.bounds()
	v.lowest = max(now.first, now.pruned+1)
	return err
}

// excused reports whether a change may be missing: retention has removed it,
// or a damaged file has cost it.
func (v *verifier) excused(number int64) bool {
	if number < v.lowest && number > 0 {
		return true
	}
	for _, l := range v.losses {
		if number >= l.First && number <= l.Last {
			return true
		}
	}
	return false
}

// hole looks at the numbers from the one that should come up to the one that
// came.
func (v *verifier) hole(came int64) {
	for n := v.next; n < came; n++ {
		if n < v.lowest {
			n = min(v.lowest, came) - 1
			continue
		}
		if end := v.lossEnd(n); end > 0 {
			n = min(end, came-1)
			continue
		}
		last := n
		for last+1 < came && !v.excused(last+1) {
			last++
		}
		v.found(checkNumbers, Finding{Number: n, Got: fmt.Sprintf("no change %d..%d", n, last), Want: "numbers without holes"})
		n = last
	}
	v.next = came + 1
}

// lossEnd is the last number of the loss that n is in; 0: it is in none.
func (v *verifier) lossEnd(n int64) int64 {
	for _, l := range v.losses {
		if n >= l.First && n <= l.Last {
			return l.Last
		}
	}
	return 0
}

// change holds one change to the rules.
func (v *verifier) change(c stored) {
	v.reads++
	v.hole(c.number)
	uid := c.uid
	if uid == "" {
		uid = c.Workload.UID
	}
	v.body(c, uid)
	l := v.lives[c.workload]
	if l == nil {
		v.firstKept(c, uid)
	} else {
		v.following(c, l)
	}
	if c.err == nil {
		v.ids = append(v.ids, idAt{half(c.ID), c.number})
		v.id(c, uid)
		v.gap(c, uid)
	}
	if l == nil {
		l = &life{uid: uid}
		v.lives[c.workload] = l
	}
	l.number, l.seq, l.unread = c.number, c.seq, c.err != nil
	if c.err == nil {
		l.epoch, l.state = c.Epoch, known(c.To)
	}
}

func (v *verifier) body(c stored, uid string) {
	bad := func(got, want string) {
		v.found(checkBodies, Finding{Number: c.number, UID: uid, Got: got, Want: want})
	}
	if c.err != nil {
		bad(fmt.Sprintf("JSON that %v: %v", errBody, c.err), "a change")
		return
	}
	if c.Change.Seq != c.seq {
		bad(fmt.Sprintf("seq %d in the body", c.Change.Seq), fmt.Sprintf("%d as in the row", c.seq))
	}
	if c.Epoch < 1 {
		bad(fmt.Sprintf("epoch %d", c.Epoch), "1 or more")
	}
	if v.cluster != "" && c.Cluster != v.cluster {
		bad("cluster "+c.Cluster, v.cluster)
	}
	w := c.Workload
	got := fmt.Sprintf("%s %s in the body", w.Key(), w.UID)
	want := fmt.Sprintf("%s %s as in the workload's row", statesync.Key{Kind: c.kind, Namespace: c.namespace, Name: c.name}, c.uid)
	if c.row && (w.UID != c.uid || w.Namespace != c.namespace || w.Name != c.name) {
		bad(got, want)
	}
}

// firstKept looks at the first change of a workload that is kept.
func (v *verifier) firstKept(c stored, uid string) {
	switch {
	case c.seq < 1:
		v.found(checkSequence, Finding{Number: c.number, UID: uid, Got: fmt.Sprintf("seq %d", c.seq), Want: "1 or more"})
	case c.previous == 0 && c.seq != 1 && !v.rescued:
		v.found(checkPrevious, Finding{Number: c.number, UID: uid, Got: fmt.Sprintf("no change before seq %d", c.seq), Want: "the number of one"})
	case c.previous != 0 && c.seq == 1:
		v.found(checkPrevious, Finding{Number: c.number, UID: uid, Got: fmt.Sprintf("change %d before seq 1", c.previous), Want: "none"})
	case c.previous != 0 && !v.excused(c.previous):
		v.found(checkPrevious, Finding{Number: c.number, UID: uid, Got: fmt.Sprintf("change %d before it, which is none of this UID's", c.previous), Want: fmt.Sprintf("one below %d, the lowest kept", v.lowest)})
	}
	if c.seq == 1 && c.From != "" && c.kind != statesync.StreamKind {
		v.found(checkFrom, Finding{Number: c.number, UID: uid, Got: "from " + string(c.From) + " at seq 1", Want: `""`})
	}
}

// following looks at a change of a workload of which one was read before.
func (v *verifier) following(c stored, l *life) {
	if c.err == nil && c.Epoch < l.epoch {
		v.found(checkEpochs, Finding{Number: c.number, UID: l.uid, Got: fmt.Sprintf("epoch %d", c.Epoch), Want: fmt.Sprintf("at least %d, as change %d", l.epoch, l.number)})
	}
	if c.previous != l.number && c.previous > l.number && v.excused(c.previous) {
		if c.seq <= l.seq {
			v.found(checkSequence, Finding{Number: c.number, UID: l.uid, Got: fmt.Sprintf("seq %d", c.seq), Want: fmt.Sprintf("above %d, that of change %d", l.seq, l.number)})
		}
		return // what came between is gone: there is nothing to compare with
	}
	if c.previous != l.number {
		v.found(checkPrevious, Finding{Number: c.number, UID: l.uid, Got: fmt.Sprintf("change %d before it", c.previous), Want: fmt.Sprint(l.number)})
	}
	if c.seq != l.seq+1 {
		v.found(checkSequence, Finding{Number: c.number, UID: l.uid, Got: fmt.Sprintf("seq %d", c.seq), Want: fmt.Sprint(l.seq + 1)})
	}
	if c.err != nil || l.unread || c.kind == statesync.StreamKind || c.Gap != nil {
		return
	}
	if c.From != l.state {
		v.found(checkFrom, Finding{Number: c.number, UID: l.uid, Got: "from " + quoted(string(c.From)), Want: quoted(string(l.state)) + fmt.Sprintf(", as change %d left it", l.number)})
	}
	if irrevocable(l.state) && c.Epoch <= l.epoch {
		v.found(checkEnds, Finding{Number: c.number, UID: l.uid, Got: fmt.Sprintf("%s after %s of change %d", quoted(string(c.To)), l.state, l.number), Want: "nothing after an end"})
	}
}

// id recomputes what is not made of a resourceVersion.
func (v *verifier) id(c stored, uid string) {
	if c.ID == "" {
		v.found(checkIDs, Finding{Number: c.number, UID: uid, Got: "no ID", Want: "one"})
		return
	}
	if c.Gap != nil || !irrevocable(c.To) {
		return
	}
	if want := statesync.ChangeID(c.Cluster, c.Epoch, c.Workload.UID, "", 0, 0, c.To); c.ID != want {
		v.found(checkIDs, Finding{Number: c.number, UID: uid, Got: "ID " + clip(c.ID), Want: want + ", that of the end"})
	}
}

func (v *verifier) gap(c stored, uid string) {
	bad := func(got, want string) {
		v.found(checkGaps, Finding{Number: c.number, UID: uid, Got: got, Want: want})
	}
	stream := c.Workload.Kind == statesync.StreamKind
	switch g := c.Gap; {
	case g == nil && stream:
		bad("a change of a stream without a gap", "a gap")
	case g == nil:
	case !stream:
		bad("a gap of a "+c.Workload.Kind, "one of a "+statesync.StreamKind)
	case g.Stream != c.Workload.Name:
		bad("a gap of stream "+g.Stream, c.Workload.Name)
	case g.To.Before(g.From):
		bad("a gap that ends at "+g.To.UTC().Format(timeLayout), "not before "+g.From.UTC().Format(timeLayout))
	}
}

// irrevocable reports whether an end is one for good.
func irrevocable(s statesync.State) bool { return s.Ended() && s != statesync.Untracked }

// half is a number made of an ID, of which equal IDs have the same.
func half(id string) uint64 {
	if b, err := hex.DecodeString(id); err == nil && len(b) >= 8 {
		return binary.BigEndian.Uint64(b)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return h.Sum64()
}
