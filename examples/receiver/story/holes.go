package story

import (
	"cmp"
	"slices"

	"github.com/outrider-agent/outrider/statesync"
)

// Why seqs are not there, beside the causes that the agent names.
const (
	Unexplained     = ""            // they were given, and are not here
	CauseInitial    = "initial"     // an initial state began the story anew beyond them
	CauseReplay     = "replay"      // a replay came before the change that says what became of them
	CauseLedgerLost = "ledger_lost" // the agent's own record was damaged, and a gap says so
)

const maxHoles = 64 // that one workload keeps; older ones are only counted

// A hole is a run of seqs that are not there. Those of a story are in order
// and do not overlap.
type hole struct {
	from, to int64
	cause    string
	epoch    int64 // of the change that showed it, when that is later than the one before the hole; else 0
}

func (h hole) size() int64 { return h.to - h.from + 1 }

// holeAt is where the hole is that has a seq.
func holeAt(hs []hole, seq int64) (int, bool) {
	return slices.BinarySearchFunc(hs, seq, func(h hole, seq int64) int {
		switch {
		case h.to < seq:
			return -1
		case h.from > seq:
			return 1
		}
		return 0
	})
}

// cut takes the seqs from..to out of the holes.
func cut(hs []hole, from, to int64) []hole {
	var out []hole
	for _, h := range hs {
		if h.to < from || h.from > to {
			out = append(out, h)
			continue
		}
		if h.from < from {
			out = append(out, hole{h.from, from - 1, h.cause, h.epoch})
		}
		if h.to > to {
			out = append(out, hole{to + 1, h.to, h.cause, h.epoch})
		}
	}
	return out
}

// put puts a hole among the others, which have none of its seqs, and joins it
// with neighbours that are like it.
func put(hs []hole, h hole) []hole {
	if h.to < h.from {
		return hs
	}
	i, _ := slices.BinarySearchFunc(hs, h, func(a, b hole) int { return cmp.Compare(a.from, b.from) })
	hs = slices.Insert(hs, i, h)
	like := func(a, b hole) bool { return a.to+1 == b.from && a.cause == b.cause && a.epoch == b.epoch }
	if i+1 < len(hs) && like(hs[i], hs[i+1]) {
		hs[i].to = hs[i+1].to
		hs = slices.Delete(hs, i+1, i+2)
	}
	if i > 0 && like(hs[i-1], hs[i]) {
		hs[i-1].to = hs[i].to
		hs = slices.Delete(hs, i, i+1)
	}
	return hs
}

// split cuts from..to along the skips: what one names, with its cause, and
// what none names, with the cause for that.
func split(from, to int64, skipped []statesync.Skip, otherwise string) (out []hole) {
	runs := slices.Clone(skipped)
	slices.SortFunc(runs, func(a, b statesync.Skip) int { return cmp.Compare(a.From, b.From) })
	for _, s := range runs {
		if s.To < from || s.From > to {
			continue
		}
		if s.From > from {
			out = append(out, hole{from: from, to: s.From - 1, cause: otherwise})
			from = s.From
		}
		last := min(s.To, to)
		out = append(out, hole{from: from, to: last, cause: s.Cause})
		from = last + 1
	}
	if from <= to {
		out = append(out, hole{from: from, to: to, cause: otherwise})
	}
	return out
}

// mayBeFilled reports whether seqs left out for the cause may come yet, and so
// are worth to be remembered one by one.
func mayBeFilled(cause string) bool {
	return cause != statesync.SkipFilter && cause != statesync.SkipBefore
}
