package exporters

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// A Source gives what there is to export. [*metrics.Registry] is one.
type Source interface{ Gather() []metrics.Family }

// A Feed is a source, with what an exporter must know of it.
type Feed struct {
	Source Source

	// FromZero says that its counters began at 0 in this process: all of a new
	// one's first value has grown since. Of others nobody knows when it grew,
	// so the first value of a metric is only where the next one is counted from.
	FromZero bool

	// Tags are added to all of its series, as the service of a neighbour.
	Tags map[string]string

	// Verbatim says that its descriptions have the names in Datadog whole, as
	// somebody sent them.
	Verbatim bool
}

// A Builder is the configuration of one kind: it makes the exporter that it
// describes.
type Builder interface {
	// Build makes the exporter. It opens nothing that must be closed.
	Build(Env) (Exporter, error)
}

// Env is what an exporter is made in.
type Env struct {
	Name      string            // of the item in the configuration
	Tags      map[string]string // of all series: service, env, version ...
	UserAgent string            // how it introduces itself
	Log       *slog.Logger
	Now       func() time.Time
	Offer     func(Point) // puts a point of the exporter's own making into its queue
}

// An Exporter gives points to one system, in its own form. If it has a Close
// method, that is called once after everything else.
type Exporter interface {
	// Encode makes the points of one series that was read. It is called by one
	// goroutine, and must not block. emit takes what Send knows the series by,
	// the value, and how many times the value was seen.
	Encode(r *Reading, emit func(ref any, value float64, times uint64))

	// Send gives points away, oldest first, and may change their order. What
	// it says was sent or rejected is the beginning of them as they then are;
	// the rest is tried again, because of the error. The other goroutine
	// calls it: never twice at once.
	Send(ctx context.Context, points []Point) (Sent, error)

	// Batch is how many points one Send takes.
	Batch() int
}

// A Teller is an exporter that can also give verdicts away. Tell is called by the
// goroutine that calls Encode, and must not block.
type Teller interface{ Tell(v Verdict) }

// A Verdict is one answer to "is it healthy?".
type Verdict struct {
	Name    string // of the service check, as the other side shows it: outrider.check
	Status  verdict.Status
	Message string
	Tags    []Tag
}

// A Reading is one series as it was read.
type Reading struct {
	Desc  *metrics.Desc
	Tags  []Tag // set while State is nil: none is empty, none twice
	State any   // what Encode keeps for the series; nil when it is new

	Verbatim bool // as of its [Feed]

	Value float64                    // as it stands; not of histograms
	Hist  *metrics.HistogramSnapshot // as it stands; nil for all but histograms

	// Grown and Since are what counters and histograms have got since the
	// reading before. They mean nothing unless Known.
	Grown float64
	Since metrics.HistogramSnapshot
	Known bool
}

// A Tag is a tag's name and value.
type Tag struct{ Name, Value string }

// A Point is a value that waits to be sent.
type Point struct {
	Ref   any // whose value it is, in the exporter's terms
	Value float64
	Times uint64 // how many times the value was seen; 1 for all but distributions
	At    int64  // when it was read: milliseconds since 1970
}

// Sent is what became of the first points of a batch.
type Sent struct {
	Out, Rejected int
	Why           error // of the first one that was rejected
}

// A Failure says why points could not be given away now.
type Failure struct {
	Cause string        // timeout, refused, 5xx ...: a tag's value, so one of few
	After time.Duration // how long the other side wants to be left alone; 0: it did not say
	Err   error
}

// Error gives the cause's own words.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// failureOf names the cause of an error that does not name it itself.
func failureOf(err error) *Failure {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f
	}
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	cause := "other"
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		cause = "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		cause = "refused"
	case errors.Is(err, fs.ErrNotExist):
		cause = "no_socket"
	case errors.Is(err, fs.ErrPermission):
		cause = "permission"
	case errors.As(err, &dns):
		cause = "dns"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		cause = "closed"
	}
	return &Failure{Cause: cause, Err: err}
}

// WithBase adds the tags of base whose names are not among tags, sorted by name,
// after these.
func WithBase(tags []Tag, base map[string]string) []Tag {
	tags = slices.Clip(tags)
	own := len(tags)
	for _, name := range slices.Sorted(maps.Keys(base)) {
		taken := slices.ContainsFunc(tags[:own], func(t Tag) bool { return t.Name == name })
		if !taken && base[name] != "" {
			tags = append(tags, Tag{name, base[name]})
		}
	}
	return tags
}

// gather reads a feed. A function that panics is one metric's mistake: it must
// not end the program, nor keep the other feeds from being read.
func (f Feed) gather() (fams []metrics.Family, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("gather metrics: panic: %v", p)
		}
	}()
	return f.Source.Gather(), nil
}
