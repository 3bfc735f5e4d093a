package inspect

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"slices"

	"github.com/outrider-agent/outrider/statesync"
)

// The checks of a receiver's record, in the order in which they are shown.
const (
	checkLines = "record lines" // can be read as events
	checkTold  = "record told"  // every kept change up to the cursor is there, as the ledger has it
	checkOrder = "record order" // seq ascends in each source, apart from repeats
	checkLinks = "record links" // previous is the seq recorded before: nothing is missing in between
	checkOnce  = "record once"  // one ID, one change
)

// CompareOptions say what is compared with what.
type CompareOptions struct {
	Cluster string
	Sink    SinkStat // whose cursor says what must be there; read before the record
	Lost    bool     // the ledger has lost changes, or may grow: the record may have more
	// Rows yields the changes that are kept, in order.
	Rows     func(yield func(Row) error) error
	Record   io.Reader
	Findings int // shown for each check; 0: 5
	Progress func(done Progress)
}

// comparison holds about 100 bytes a change, of the ledger and of the record.
type comparison struct {
	checklist
	o      CompareOptions
	seed   maphash.Seed
	lives  map[string]*recorded // by UID
	notes  []string
	others map[string]int64 // why lines were left out: how many
	lines  int64
	need   int64
}

// recorded is one life of a workload in both books.
type recorded struct {
	kept []keptChange // ascending by seq
	said []saidChange // ascending by seq
	last int64        // seq of the last one said

	skipped []statesync.Skip // said to be left out
}

type keptChange struct {
	number, seq int64
	id          [16]byte
	content     uint64
	to          statesync.State
	need, seen  bool
}

type saidChange struct {
	seq, line int64
	id        [16]byte
	content   uint64
}

// Compare holds a receiver's record, NDJSON of CloudEvents, to the ledger's
// rows. A line that cannot be read is a finding; a last line without its end
// is a note, for its change was not acknowledged.
func Compare(ctx context.Context, o CompareOptions) (checks []*Check, notes []string, err error) {
	c := &comparison{
		checklist: checklist{limit: cmp.Or(o.Findings, maxFindings)}, o: o, seed: maphash.MakeSeed(),
		lives: map[string]*recorded{}, others: map[string]int64{},
	}
	if c.o.Progress == nil {
		c.o.Progress = func(Progress) {}
	}
	for _, name := range []string{checkLines, checkTold, checkOrder, checkLinks, checkOnce} {
		c.check(name)
	}
	if err := o.Rows(c.keep); err != nil {
		return nil, nil, err
	}
	if err := c.read(ctx); err != nil {
		return nil, nil, fmt.Errorf("compare with the record: %w", err)
	}
	c.missing()
	c.once()
	lines := fmt.Sprintf("%d lines", c.lines)
	for _, name := range []string{checkLines, checkOrder, checkLinks, checkOnce} {
		c.check(name).Scope = lines
	}
	c.check(checkTold).Scope = fmt.Sprintf("%d changes", c.need)
	for _, why := range slices.Sorted(maps.Keys(c.others)) {
		c.notes = append(c.notes, fmt.Sprintf("%d lines of the record were left out: %s", c.others[why], why))
	}
	return c.checks, c.notes, nil
}

// keep books one change of the ledger.
func (c *comparison) keep(r Row) error {
	content, err := c.content(r.Change)
	if err != nil {
		return err
	}
	need := r.Number > max(c.o.Sink.Since, c.o.Sink.Begun) && r.Number <= c.o.Sink.Cursor && !slices.Contains(r.Apart, c.o.Sink.Name)
	if need {
		c.need++
	}
	l := c.life(r.Workload.UID)
	k := keptChange{number: r.Number, seq: r.Seq, id: idBytes(r.ID), content: content, to: known(r.To), need: need}
	if n := len(l.kept); n > 0 && l.kept[n-1].seq >= r.Seq {
		return nil // the ledger is out of order, which its own checks tell
	}
	l.kept = append(l.kept, k)
	return nil
}

func (c *comparison) life(uid string) *recorded {
	l := c.lives[uid]
	if l == nil {
		l = &recorded{}
		c.lives[uid] = l
	}
	return l
}

// content is the same for two changes that tell receivers the same.
func (c *comparison) content(change statesync.Change) (uint64, error) {
	b, err := statesync.MarshalEvent(statesync.Delivery{Change: change})
	return maphash.Bytes(c.seed, b), err
}

// read books the record, line by line.
func (c *comparison) read(ctx context.Context) error {
	r := newRecord(c.o.Record)
	for {
		if r.line%10_000 == 0 {
			c.o.Progress(Progress{Stage: "record", Done: c.lines})
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		line, whole, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c.lines++
		d, err := parseEvent(line)
		var content uint64
		if err == nil {
			content, err = c.content(d.Change)
		}
		switch {
		case err != nil && !whole:
			c.notes = append(c.notes, fmt.Sprintf("line %d of the record, the last one, is not finished", r.line))
		case errors.Is(err, errOther):
			c.others["they tell neither a change nor a gap"]++
		case err != nil:
			c.found(checkLines, Finding{Line: r.line, Got: clip(err.Error()), Want: "a change or a gap as a CloudEvent"})
		case c.o.Cluster != "" && d.Cluster != c.o.Cluster:
			c.others["they are of other clusters"]++
		default:
			c.say(told{line: r.line, Delivery: d}, content)
		}
	}
}

// say books one line of the record.
func (c *comparison) say(d told, content uint64) {
	l := c.life(d.Workload.UID)
	said := saidChange{seq: d.Seq, line: d.line, id: idBytes(d.ID), content: content}
	if d.Seq > l.last {
		l.skipped = append(l.skipped, d.Skipped...)
		if len(l.said) > 0 && d.PreviousSeq != l.last && !begins(d) {
			c.found(checkLinks, Finding{Line: d.line, UID: d.Workload.UID, Got: fmt.Sprintf("seq %d after seq %d", d.Seq, d.PreviousSeq), Want: fmt.Sprintf("after %d, the last one recorded", l.last)})
		}
		l.last = d.Seq
		l.said = append(l.said, said)
		if !d.Initial {
			c.hold(l, d, said)
		}
		return
	}
	i, ok := find(l.said, d.Seq, func(s saidChange) int64 { return s.seq })
	switch {
	case !ok && d.Replayed:
		l.said = slices.Insert(l.said, i, said)
		c.hold(l, d, said)
	case !ok:
		c.found(checkOrder, Finding{Line: d.line, UID: d.Workload.UID, Got: fmt.Sprintf("seq %d after seq %d", d.Seq, l.last), Want: "a later one, or a repeat"})
		l.said = slices.Insert(l.said, i, said)
		c.hold(l, d, said)
	case d.Initial: // after a gap: where it stood already
	case l.said[i].id != said.id:
		c.found(checkOrder, Finding{Line: d.line, UID: d.Workload.UID, Got: fmt.Sprintf("seq %d again, with ID %s", d.Seq, clip(d.ID)), Want: fmt.Sprintf("the ID of line %d", l.said[i].line)})
	case l.said[i].content != content:
		c.found(checkOnce, Finding{Line: d.line, UID: d.Workload.UID, Got: fmt.Sprintf("ID %s with another content", clip(d.ID)), Want: fmt.Sprintf("that of line %d", l.said[i].line)})
	}
}

// hold compares one recorded change with the ledger's.
func (c *comparison) hold(l *recorded, d told, said saidChange) {
	i, ok := find(l.kept, d.Seq, func(k keptChange) int64 { return k.seq })
	if !ok {
		if len(l.kept) > 0 && d.Seq > l.kept[0].seq && !c.o.Lost {
			c.found(checkTold, Finding{Line: d.line, UID: d.Workload.UID, Got: fmt.Sprintf("seq %d", d.Seq), Want: "a change that the ledger has"})
		}
		return
	}
	k := &l.kept[i]
	k.seen = true
	bad := func(got, want string) {
		c.found(checkTold, Finding{Number: k.number, Line: d.line, UID: d.Workload.UID, Got: got, Want: want})
	}
	switch {
	case k.id != said.id:
		bad("ID "+clip(d.ID), hex.EncodeToString(k.id[:]))
	case k.to != d.To && d.Gap == nil:
		bad("to "+clip(quoted(string(d.To))), quoted(string(k.to)))
	case k.content != said.content:
		bad("another content", "what the ledger has")
	}
}

// missing books what the sink has acknowledged and the record does not have.
func (c *comparison) missing() {
	var out []Finding
	for uid, l := range c.lives {
		for _, k := range l.kept {
			if k.need && !k.seen && !l.leftOut(k.seq) {
				out = append(out, Finding{Number: k.number, UID: uid, Got: "no line", Want: fmt.Sprintf("seq %d, to %s, ID %s", k.seq, quoted(string(k.to)), hex.EncodeToString(k.id[:]))})
			}
		}
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.Number, b.Number) })
	for _, f := range out {
		c.found(checkTold, f)
	}
}

// begins reports whether a line tells a workload's story from a new start: then
// it says all before to be left out.
func begins(d told) bool {
	return d.Initial || d.PreviousSeq == 0 && len(d.Skipped) > 0
}

// leftOut reports whether the record says that a change was left out.
func (l *recorded) leftOut(seq int64) bool {
	return slices.ContainsFunc(l.skipped, func(s statesync.Skip) bool { return s.From <= seq && seq <= s.To })
}

// once finds IDs that two different changes of the record have.
func (c *comparison) once() {
	type entry struct {
		saidChange
		uid string
	}
	all := make([]entry, 0, c.lines)
	for uid, l := range c.lives {
		for _, s := range l.said {
			all = append(all, entry{s, uid})
		}
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(slices.Compare(a.id[:], b.id[:]), cmp.Compare(a.line, b.line))
	})
	for i := 1; i < len(all); i++ {
		if a, b := all[i-1], all[i]; a.id == b.id {
			c.found(checkOnce, Finding{Line: b.line, UID: b.uid, Got: fmt.Sprintf("the ID of line %d, which tells seq %d of %s", a.line, a.seq, a.uid), Want: "an ID of its own"})
		}
	}
}

func find[T any](in []T, seq int64, of func(T) int64) (int, bool) {
	return slices.BinarySearchFunc(in, seq, func(t T, seq int64) int { return cmp.Compare(of(t), seq) })
}

// idBytes is the ID itself, or the hash of a text that is no ID.
func idBytes(id string) (out [16]byte) {
	if b, err := hex.DecodeString(id); err == nil && len(b) == len(out) {
		copy(out[:], b)
		return out
	}
	sum := sha256.Sum256([]byte(id))
	copy(out[:], sum[:])
	return out
}

// known returns the constant of a state, so that the text that was read can
// be freed.
func known(s statesync.State) statesync.State {
	for _, k := range []statesync.State{
		statesync.Queued, statesync.Running, statesync.Succeeded, statesync.Failed,
		statesync.Cancelled, statesync.Deleted, statesync.Untracked,
	} {
		if s == k {
			return k
		}
	}
	return s
}
