package checks

import (
	"iter"
	"time"
)

// Series finds series in the last hour. The history does.
type Series interface {
	// Select returns the series of a name whose tags have these values; others may
	// be there. A source is a neighbour's or a collector's name; empty: all.
	Select(source, name string, tags map[string]string) []Samples
}

// Samples are one series.
type Samples interface {
	Tags() map[string]string
	Counter() bool // it only grows, until it begins anew

	// Range yields the samples from one moment to another, both included, by growing
	// time. A NaN says that the series was not there.
	Range(from, to time.Time) iter.Seq2[time.Time, float64]
}
