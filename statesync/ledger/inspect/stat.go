package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/outrider-agent/outrider/statesync"
)

// Stat sums a ledger up.
type Stat struct {
	Path      string       `json:"path"`
	Format    int          `json:"format"`
	Live      bool         `json:"live"`    // a process has it open, or was killed while it had
	Cluster   string       `json:"cluster"` // empty: not known yet
	Epoch     int64        `json:"epoch"`
	Head      int64        `json:"head"` // number of the last change ever written
	Changes   ChangeStat   `json:"changes"`
	Workloads WorkloadStat `json:"workloads"`
	Streams   []StreamStat `json:"streams"`
	Sinks     []SinkStat   `json:"sinks"`
	Losses    []LossStat   `json:"losses"`
	Rescue    *RescueStat  `json:"rescue,omitempty"`
	FileBytes int64        `json:"file_bytes"`
	FreeBytes int64        `json:"free_bytes"` // of the file, for later changes
	WALBytes  int64        `json:"wal_bytes"`
}

// ChangeStat is what is kept of the changes.
type ChangeStat struct {
	Kept  int64 `json:"kept"`
	First int64 `json:"first"` // 0: none is kept
	Last  int64 `json:"last"`
	Bytes int64 `json:"bytes"` // of their JSON
}

// WorkloadStat counts lives of workloads; streams are not among them.
type WorkloadStat struct {
	ByState map[statesync.State]int64 `json:"by_state"`
	Live    int64                     `json:"live"`  // neither ended nor gone
	Ended   int64                     `json:"ended"` // the object may still exist
	Gone    int64                     `json:"gone"`  // the object does not exist any more
}

// StreamStat is how far one stream has come.
type StreamStat struct {
	Name       string    `json:"name"`
	Definition string    `json:"definition"`
	Version    uint64    `json:"version"`
	At         time.Time `json:"at"`
	Objects    int64     `json:"objects"`
	Unread     int64     `json:"unread"` // of the objects: kept, and not yet reduced
	Lost       string    `json:"lost"`   // why it cannot be gone on with; empty: it can
}

// SinkStat is how far one sink has acknowledged.
type SinkStat struct {
	Name     string `json:"name"`
	Since    int64  `json:"since"`
	Cursor   int64  `json:"cursor"`
	Behind   int64  `json:"behind"`
	Begun    int64  `json:"begun"` // the head when it was told where every workload stands; 0: from the start
	Aside    int64  `json:"aside"` // deliveries put aside
	Letters  int64  `json:"dead_letters"`
	Detached string `json:"detached,omitempty"` // why nothing is delivered and kept any more
}

// LossStat is an interval of numbers that a damaged file has cost.
type LossStat struct {
	First int64     `json:"first"`
	Last  int64     `json:"last"`
	At    time.Time `json:"at"`
	Cause string    `json:"cause"`
}

// RescueStat says that the ledger was begun anew from a damaged one.
type RescueStat struct {
	At   string `json:"at"`
	Note string `json:"note"`
}

// Stat sums the ledger up. Each part is of one moment; on a live ledger the
// parts may be of several.
func (f *File) Stat(ctx context.Context) (*Stat, error) {
	s := &Stat{Path: f.path, Format: format, Live: !f.quiet, Streams: []StreamStat{}, Sinks: []SinkStat{}, Losses: []LossStat{}}
	for _, part := range []struct {
		name string
		read func(*Stat) error
	}{
		{"what it is of", f.statMeta},
		{"sinks", f.statSinks},
		{"workloads", f.statWorkloads},
		{"streams", f.statStreams},
		{"losses", f.statLosses},
	} {
		if err := f.page(ctx, func() error { return part.read(s) }); err != nil {
			return nil, fmt.Errorf("read %s: %w", part.name, err)
		}
	}
	if err := f.statChanges(ctx, s); err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	s.FileBytes, s.WALBytes = max(0, sizeOf(f.path)), max(0, sizeOf(f.path+"-wal"))
	return s, nil
}

func (f *File) statMeta(s *Stat) error {
	rescue := RescueStat{}
	rescued := false
	err := f.each("SELECT key, value FROM meta", nil, func(q *sqlite.Stmt) error {
		switch value := q.ColumnText(1); q.ColumnText(0) {
		case "cluster":
			s.Cluster = value
		case "epoch":
			s.Epoch = q.ColumnInt64(1)
		case "rescued_at":
			rescue.At, rescued = value, true
		case "rescued":
			rescue.Note, rescued = value, true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if rescued {
		s.Rescue = &rescue
	}
	free, err := f.number("PRAGMA freelist_count")
	if err != nil {
		return err
	}
	size, err := f.number("PRAGMA page_size")
	s.FreeBytes = free * size
	return err
}

// statSinks reads the head in the transaction of the cursors: a sink is never
// ahead of it.
func (f *File) statSinks(s *Stat) error {
	b, err := f.bounds()
	if err != nil {
		return err
	}
	s.Head = b.head
	return f.eachSink(func(k sinkRow) {
		s.Sinks = append(s.Sinks, SinkStat{
			Name: k.name, Since: k.since, Cursor: k.acked, Behind: b.head - k.acked,
			Begun: k.begun, Detached: k.detached, Aside: k.aside, Letters: k.letters,
		})
	})
}

func (f *File) statWorkloads(s *Stat) error {
	w := WorkloadStat{ByState: map[statesync.State]int64{}}
	err := f.each("SELECT state, gone != 0, count(*) FROM workloads WHERE kind != ? GROUP BY 1, 2", []any{statesync.StreamKind},
		func(q *sqlite.Stmt) error {
			state, gone, n := statesync.State(q.ColumnText(0)), q.ColumnBool(1), q.ColumnInt64(2)
			w.ByState[state] += n
			switch {
			case gone:
				w.Gone += n
			case state.Ended():
				w.Ended += n
			default:
				w.Live += n
			}
			return nil
		})
	s.Workloads = w
	return err
}

func (f *File) statStreams(s *Stat) error {
	return f.each(`SELECT name, definition, version, at, lost, count(o.uid), coalesce(sum(o.unread != 0), 0)
		FROM streams LEFT JOIN objects o ON o.stream = streams.id GROUP BY streams.id ORDER BY name`, nil,
		func(q *sqlite.Stmt) error {
			s.Streams = append(s.Streams, StreamStat{
				Name: q.ColumnText(0), Definition: q.ColumnText(1), Version: uint64(q.ColumnInt64(2)),
				At: nanos(q.ColumnInt64(3)), Lost: q.ColumnText(4), Objects: q.ColumnInt64(5), Unread: q.ColumnInt64(6),
			})
			return nil
		})
}

func (f *File) statLosses(s *Stat) (err error) {
	s.Losses, err = f.losses()
	return err
}

func (f *File) losses() ([]LossStat, error) {
	out := []LossStat{}
	err := f.each("SELECT first, last, at, cause FROM losses", nil, func(q *sqlite.Stmt) error {
		out = append(out, LossStat{First: q.ColumnInt64(0), Last: q.ColumnInt64(1), At: nanos(q.ColumnInt64(2)), Cause: q.ColumnText(3)})
		return nil
	})
	slices.SortFunc(out, func(a, b LossStat) int { return cmp.Compare(a.First, b.First) })
	return out, err
}

// statChanges counts up to the head that was read with the cursors.
func (f *File) statChanges(ctx context.Context, s *Stat) error {
	const step = 20 * pageRows // numbers a transaction: a page of bytes is never decoded here
	var first int64
	for after := int64(-1); after < s.Head; {
		err := f.page(ctx, func() error {
			if after < 0 {
				b, err := f.bounds()
				if err != nil {
					return err
				}
				after = b.first - 1
			}
			return f.each("SELECT count(*), coalesce(sum(octet_length(body)), 0), min(n), max(n) FROM changes WHERE n > ? AND n <= ?",
				[]any{after, min(after+step, s.Head)}, func(q *sqlite.Stmt) error {
					if n := q.ColumnInt64(0); n > 0 {
						if first == 0 {
							first = q.ColumnInt64(2)
						}
						s.Changes.Kept += n
						s.Changes.Bytes += q.ColumnInt64(1)
						s.Changes.First, s.Changes.Last = first, q.ColumnInt64(3)
					}
					return nil
				})
		})
		if err != nil {
			return err
		}
		after += step
	}
	return nil
}

// nanos is the time of nanoseconds since 1970; 0 is none.
func nanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
