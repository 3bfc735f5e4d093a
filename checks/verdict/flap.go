package verdict

// Damping, in full.
//
// A check flaps when the weighted share of changes from one result to the next,
// among the 20 that the last 21 results can have, reaches FlapHigh, and does so
// until the share is down to FlapLow. As in Nagios, the newest change weighs 1.2
// and the oldest 0.8, and results that have not come yet are no changes.
//
// While it flaps, its verdict is the worst of those that it would have had without
// damping after the last 21 results. So a failure among them is never hidden, and
// who polls sees one long problem instead of twenty. The end is a change of the
// verdict as any other, so nobody's recovery is lost.
//
// Verdicts, not results, are held: what FailAfter takes for a blip stays one.

// The thresholds that fit most checks. Nagios' own are 30 and 20 percent, its
// sample configuration's 20 and 5: with the seconds between the runs here, two
// outages of a minute in a row would count as flapping. Half of all possible
// changes is about every second result, nine changes in a row at the least; it
// ends with some 16 results in a row that are alike.
const (
	FlapHigh = 50
	FlapLow  = 20
)

const (
	newestWeight = 1.2
	oldestWeight = 0.8
)

// FlapShare is the weighted share of changes in a history, in percent.
func FlapShare(history string) float64 {
	const pairs = HistoryLen - 1
	var sum float64
	for i := range min(pairs, len(history)-1) { // 0 is the newest change
		at := len(history) - 1 - i
		if history[at] != history[at-1] {
			sum += newestWeight - (newestWeight-oldestWeight)*float64(i)/(pairs-1)
		}
	}
	return 100 * sum / pairs
}

func flaps(history string, before bool, p Policy) bool {
	if p.FlapHigh <= 0 {
		return false
	}
	share := FlapShare(history)
	return share >= p.FlapHigh || before && share > p.FlapLow
}

// damped is the verdict after the last result.
func (s State) damped() Status {
	worst := s.Settled
	if s.Flapping {
		for i := range len(s.Verdicts) {
			if status, ok := byLetter(s.Verdicts[i]); ok {
				worst = Worse(worst, status)
			}
		}
	}
	return worst
}

func byLetter(letter byte) (Status, bool) {
	for s := Pass; s.valid(); s++ {
		if s.String()[0] == letter {
			return s, true
		}
	}
	return Unknown, false
}
