package rule

import (
	"cmp"
	"iter"
	"slices"
	"time"
)

// A Point is one sample.
type Point struct {
	At    time.Time
	Value float64
}

// Recorded is a series that is all there: a table of a test, a file that is
// replayed. The points are by growing time.
type Recorded struct {
	Labels map[string]string
	Grows  bool // it is a counter
	Points []Point
}

// Tags implements [Samples].
func (s *Recorded) Tags() map[string]string { return s.Labels }

// Counter implements [Samples].
func (s *Recorded) Counter() bool { return s.Grows }

// Range implements [Samples].
func (s *Recorded) Range(from, to time.Time) iter.Seq2[time.Time, float64] {
	return func(yield func(time.Time, float64) bool) {
		first, _ := slices.BinarySearchFunc(s.Points, from, func(p Point, at time.Time) int { return cmp.Compare(p.At.UnixNano(), at.UnixNano()) })
		for _, p := range s.Points[first:] {
			if p.At.After(to) || !yield(p.At, p.Value) {
				return
			}
		}
	}
}
