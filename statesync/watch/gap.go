package watch

import (
	"context"
	"time"

	"github.com/outrider-agent/outrider/internal/failpoint"
	"github.com/outrider-agent/outrider/statesync"
)

// gaps are what a stream knows of its gaps.
type gaps struct {
	reason string    // why the next list leaves one, though the stream begins anew
	from   uint64    // how far the stream had come before; 0: not known
	since  time.Time // and when
	count  int64     // since the log began
	ours   int64     // of these, since the agent started
	told   [2]uint64 // from and to of the last one that the log has of this epoch
	last   *statesync.Gap
}

// owe makes it durable that a stream owes a gap, whatever becomes of the agent
// and of the configuration before it is told.
func (s *stream) owe(ctx context.Context) error {
	s.w.mu.Lock()
	owed := s.resumeAt(s.gap.from, s.gap.since)
	owed.Lost = s.gap.reason
	s.w.mu.Unlock()
	if owed.Lost == "" {
		return nil
	}
	_, err := s.w.handOver(ctx, statesync.Entry{Resume: owed})
	return err
}

// before returns the gap that a list as of a version leaves; nil: none. The
// lock must be held.
func (s *stream) before(version uint64, now time.Time) *statesync.Gap {
	gap := &statesync.Gap{Stream: s.Name(), ToRV: version, To: now}
	switch {
	case s.gap.reason != "":
		gap.Reason, gap.FromRV, gap.From = s.gap.reason, s.gap.from, s.gap.since
	case s.version == 0 || s.version == version:
		return nil // nothing was known before, or nothing has happened since
	default:
		gap.Reason, gap.FromRV, gap.From = statesync.GapExpired, s.version, s.reached
	}
	if gap.From.IsZero() {
		gap.From = gap.To
	}
	return gap
}

// tellGap hands the gap before a list to the log and returns why there is
// one; empty when there is none. One that the log had before the agent died
// is not told again.
func (s *stream) tellGap(version uint64) (reason string, err error) {
	_ = failpoint.Here("list/gap")
	s.w.mu.Lock()
	gap := s.before(version, s.w.opts.Now())
	if gap == nil || s.gap.told == [2]uint64{gap.FromRV, gap.ToRV} {
		s.w.mu.Unlock()
		if gap == nil {
			return "", nil
		}
		return gap.Reason, nil
	}
	s.hold()
	s.listed++     // the mark waits for the gap
	s.waits = true // while the log is behind
	change := statesync.Change{
		Cluster: s.w.opts.Cluster, Epoch: s.w.epoch, Workload: statesync.StreamRef(s.Name()), Seq: s.gap.count + 1,
		Occurred: gap.To, Observed: gap.To, ObservedLate: true, Gap: gap,
	}
	change.ID = statesync.ChangeID(change.Cluster, change.Epoch, change.Workload.UID, "gap", gap.ToRV, gap.FromRV, "")
	s.w.mu.Unlock()
	s.w.opts.Logger.Warn("nobody can say what happened in between: a gap", "stream", gap.Stream, "reason", gap.Reason,
		"from_rv", gap.FromRV, "to_rv", gap.ToRV, "from", gap.From, "to", gap.To)
	_, err = s.w.handOver(s.ctx, statesync.Entry{
		Changes: []statesync.Change{change},
		Row: statesync.Row{
			Ref: change.Workload, Stream: s.Name(), Epoch: change.Epoch, Seq: change.Seq,
			ResourceVersion: gap.ToRV, Removed: gap.FromRV,
		},
		Done: s.gapDone,
	})
	s.w.mu.Lock()
	s.waits = false
	if err == nil {
		s.gap.count, s.gap.last = change.Seq, gap
		s.gap.ours++
	}
	s.w.mu.Unlock()
	if err != nil {
		s.gapDone()
		return "", err
	}
	_ = failpoint.Here("list/gapped")
	return gap.Reason, nil
}

func (s *stream) gapDone() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.listed--
}
