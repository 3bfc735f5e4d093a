package history

import (
	"iter"
	"math"
	"slices"
	"time"
)

// Stats sum up samples. All of them are NaN if there is none.
type Stats struct {
	Now, Min, P95, Max float64 // Now is the last; P95 is by nearest rank
	Count              int
}

// A Step sums up the samples of one span of time.
type Step struct {
	At                  time.Time // when it begins
	Min, Max, Avg, Last float64
	Count               int
}

// Summarize sums up samples. Those that are not a number, or infinite, are left out;
// ok is false if there are no others.
func Summarize(samples iter.Seq2[time.Time, float64]) (st Stats, ok bool) {
	var values []float64
	for _, v := range samples {
		if isNumber(v) {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		nan := math.NaN()
		return Stats{nan, nan, nan, nan, 0}, false
	}
	st = Stats{Now: values[len(values)-1], Count: len(values)}
	slices.Sort(values)
	rank := (len(values)*95 + 99) / 100
	st.Min, st.P95, st.Max = values[0], values[rank-1], values[len(values)-1]
	return st, true
}

// Rates yields for the samples of a counter how much it grew since the sample
// before, in units a second. A counter that has fallen has begun anew, from 0.
func Rates(samples iter.Seq2[time.Time, float64]) iter.Seq2[time.Time, float64] {
	return func(yield func(time.Time, float64) bool) {
		var before time.Time
		last, any := 0.0, false
		for at, v := range samples {
			if !isNumber(v) {
				continue
			}
			if span := at.Sub(before).Seconds(); any && span > 0 && !yield(at, grown(last, v)/span) {
				return
			}
			before, last, any = at, v, true
		}
	}
}

// Steps yields samples by steps, which begin at multiples of step in UTC. A step
// without a number is left out. A step that is not positive yields nothing.
func Steps(samples iter.Seq2[time.Time, float64], step time.Duration) iter.Seq[Step] {
	return func(yield func(Step) bool) {
		if step <= 0 {
			return
		}
		var s Step
		sum := 0.0
		for at, v := range samples {
			if !isNumber(v) {
				continue
			}
			if begin := at.UTC().Truncate(step); s.Count == 0 || !begin.Equal(s.At) {
				if s.Count > 0 && !yield(s.of(sum)) {
					return
				}
				s, sum = Step{At: begin, Min: v, Max: v}, 0
			}
			s.Min, s.Max, s.Last = min(s.Min, v), max(s.Max, v), v
			s.Count++
			sum += v
		}
		if s.Count > 0 {
			yield(s.of(sum))
		}
	}
}

func (s Step) of(sum float64) Step {
	s.Avg = sum / float64(s.Count)
	return s
}

// grown is by how much a counter has grown.
func grown(before, now float64) float64 {
	if now < before {
		return now
	}
	return now - before
}

func isNumber(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
