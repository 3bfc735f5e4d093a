package delivery

import (
	"strings"
	"time"

	"github.com/outrider-agent/outrider/metrics"
	"github.com/outrider-agent/outrider/statesync"
)

// lateAfter is the objective: a change is to be acknowledged within this time of
// being observed.
const lateAfter = time.Second

// dropDetached is the reason for what a detached sink is not given.
const dropDetached = "detached"

// dropReasons are all for which a sink is not given a change.
func (d *Dispatcher) dropReasons() []string {
	reasons := []string{dropDetached, statesync.SkipMissing, statesync.SkipCompacted, statesync.SkipDeadLetter}
	if d.opts.Filter != nil {
		reasons = append(reasons, statesync.SkipFilter)
	}
	return reasons
}

// TakesNothing is for how long changes have waited while every try failed; 0 when
// none waits, when the last one was taken, and when it was refused as such: then
// the receiver is alive. A detached sink is not tried.
func (s *Standing) TakesNothing(now time.Time) time.Duration {
	if s.Detached != "" || s.Waiting == 0 || s.Failing.IsZero() || refuses(s.Failure) {
		return 0
	}
	return max(0, now.Sub(s.Failing))
}

// describeSink registers what the alerts ask of a sink.
func (d *Dispatcher) describeSink() []error {
	series := func(name string, typ metrics.Type, unit, help string, value func() float64) error {
		short := strings.TrimSuffix(strings.TrimSuffix(name, "_total"), "_seconds")
		tags := []string{d.opts.Name}
		return d.metrics.Func(metrics.Desc{
			Name: "outrider_sink_" + name, Datadog: "outrider.sink." + short, Type: typ,
			Help: help, Unit: unit, Tags: []string{"sink"}, Budget: 100,
		}, func(yield func(metrics.Point)) {
			d.mu.Lock()
			v := value()
			d.mu.Unlock()
			yield(metrics.Point{Tags: tags, Value: v})
		})
	}
	return []error{
		series("acknowledged_total", metrics.CounterType, "changes", "Changes that a sink's receiver has acknowledged, those that were put aside included; initial states and replays are not counted.",
			func() float64 { return float64(d.acknowledged) }),
		series("late_total", metrics.CounterType, "changes", "Of the acknowledged changes, those that were so more than a second after they were observed.",
			func() float64 { return float64(d.late) }),
		series("failing_seconds", metrics.GaugeType, "seconds", "For how long changes have waited while every try failed; 0 while the sink takes something, nothing waits, or the last failure was a change refused as such, which shows that the receiver is alive. A detached sink is not tried: 0.",
			d.failingSeconds),
		series("circuit_open", metrics.GaugeType, "bool", "1 while a sink's circuit breaker is open or half-open, so that one delivery now and then is tried; 0 for a detached sink, which is not tried.",
			func() float64 { return truth(d.pace.open && d.detached == "") }),
		series("detached", metrics.GaugeType, "bool", "1 while a sink is given nothing, and nothing is kept for it.",
			func() float64 { return truth(d.detached != "") }),
		series("dead_letters", metrics.GaugeType, "changes", "Dead letters that are kept for a sink now.",
			func() float64 { return float64(d.letters) }),
		series("parked_lanes", metrics.GaugeType, "workloads", "Workloads whose changes wait aside because the first of them is not taken.",
			func() float64 { return float64(d.parked) }),
	}
}

// failingSeconds needs the lock.
func (d *Dispatcher) failingSeconds() float64 {
	s := d.standing
	s.Waiting, s.Detached = d.queued().Len, d.detached
	return s.TakesNothing(d.opts.Now()).Seconds()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
