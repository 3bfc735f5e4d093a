package statesync

import "github.com/outrider-agent/outrider/metrics"

// StageDesc describes the histogram of the stages of a change's life. Those
// who see a stage feed its series: the log observed_recorded, with no sink;
// delivery the rest, for each sink.
//
// observed_recorded ends when the change is durable; recorded_sent begins a
// little earlier, when its row was written, so the two share the sync to disk
// (outrider_ledger_commit_seconds).
//
// occurred_observed compares the cluster's clocks, which tell whole seconds,
// with the agent's: it is exact to a second at best.
func StageDesc() metrics.Desc {
	return metrics.Desc{
		Name: "outrider_change_stage_seconds", Datadog: "outrider.change.stage", Type: metrics.HistogramType,
		Help: "How long a change stays in each stage of its life, from observed to acknowledged. In OpenMetrics, exemplars name changes that took 100 ms and longer.",
		Unit: "seconds", Tags: []string{"stage", "sink"}, Budget: 500,
	}
}

// The stages.
const (
	StageOccurredObserved = "occurred_observed"
	StageObservedRecorded = "observed_recorded"
	StageRecordedSent     = "recorded_sent"
	StageSentAcknowledged = "sent_acknowledged"
	StageWhole            = "whole"
)
