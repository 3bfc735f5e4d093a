package dashboards

const (
	third = Columns / 3
	half  = Columns / 2
	whole = Columns
)

// Tags of pipelines, which neighbours have too, and of the rest. Read-only.
var (
	pipelines = []string{"service", "pipeline", "target"}
	sinks     = []string{"sink"}
	streams   = []string{"stream"}
	queues    = []string{"queue"}
	stages    = []string{"stage"}
	verdicts  = []string{"category", "check"}
)

// wanted are drops that somebody asked for. Read-only.
var wanted = map[string][]string{"reason": {"filter", "stopped"}}

// Shipped is the board that ships.
func Shipped() *Board {
	return &Board{
		Title:       "Outrider",
		Description: "Agents, the pipelines of their neighbours, and the state of workloads that they tell of.",
		Rows: []Row{
			overview(), throughput(), latency(), depth(), retries(), drops(), balance(),
			freshness(), ledger(), checks(), neighbours(), host(), runtime(),
		},
	}
}

func overview() Row {
	return Row{"Overview", []Panel{
		{
			Title: "Verdict", Description: "The worst verdict of the checks of each category.",
			Kind: Stat, Unit: Status, Width: third, Check: "outrider.digest",
			Queries: []Query{{Metric: "outrider_check_status", Func: Level, Aggregate: Max, By: []string{"category"}}},
		},
		{
			Title: "Checks that do not pass", Description: "How many checks warn, fail or are unknown.",
			Kind: Stat, Unit: Count, Width: third,
			Queries: []Query{{Metric: "outrider_check_status", Func: Nonzero}},
		},
		{
			Title: "Books that are off", Description: "By how much the books of the worst pipeline are off, which is 0 when all of them balance.",
			Kind: Stat, Unit: Count, Width: third, Rule: "pipeline-balance",
			Queries: []Query{{Metric: "outrider_pipeline_balance_excess", Func: Level, Aggregate: Max}},
		},
		{
			Title: "Drops", Description: "Items a second that pipelines give up, without what they were told to leave out.",
			Kind: Stat, Unit: PerSecond, Width: third, Rule: "pipeline-drops",
			Queries: []Query{{Metric: "outrider_pipeline_drops_total", Func: Rate, Aggregate: Sum, Except: wanted}},
		},
		{
			Title: "Longest wait", Description: "For how long the oldest item of all pipelines has waited.",
			Kind: Stat, Unit: Seconds, Width: third, Rule: "pipeline-oldest",
			Queries: []Query{{Metric: "outrider_pipeline_oldest_age_seconds", Func: Level, Aggregate: Max}},
		},
		{
			Title: "Late", Description: "Share of the acknowledged changes that took more than a second, of which 1 % is allowed.",
			Kind: Stat, Unit: Ratio, Width: third, Rule: "delivery-latency",
			Queries: []Query{{Metric: "outrider_sink_late_total", Func: Rate, Aggregate: Sum, Per: "outrider_sink_acknowledged_total"}},
		},
		{
			Title: "Sinks that take nothing", Description: "For how long every try of the worst sink has failed.",
			Kind: Stat, Unit: Seconds, Width: third, Rule: "sink-failing",
			Queries: []Query{{Metric: "outrider_sink_failing_seconds", Func: Level, Aggregate: Max}},
		},
		{
			Title: "Quietest watch", Description: "Since the last event or bookmark of the stream that heard nothing for longest.",
			Kind: Stat, Unit: Seconds, Width: third, Rule: "stream-stale",
			Queries: []Query{{Metric: "outrider_stream_seen_age_seconds", Func: Level, Aggregate: Max}},
		},
		{
			Title: "Ledger in use", Description: "How much of its bound the fullest ledger takes.",
			Kind: Stat, Unit: Ratio, Width: third, Rule: "ledger-space",
			Queries: []Query{{Metric: "outrider_ledger_used_ratio", Func: Level, Aggregate: Max}},
		},
		{
			Title: "Sinks", Description: "How each sink takes what it is told.",
			Kind: Table, Width: whole,
			Queries: []Query{
				{Name: "acknowledged", Unit: PerSecond, Metric: "outrider_sink_acknowledged_total", Func: Rate, Aggregate: Sum, By: sinks},
				{Name: "late", Unit: PerSecond, Metric: "outrider_sink_late_total", Func: Rate, Aggregate: Sum, By: sinks},
				{Name: "failing for", Unit: Seconds, Metric: "outrider_sink_failing_seconds", Func: Level, Aggregate: Max, By: sinks},
				{Name: "circuit open", Unit: Flag, Metric: "outrider_sink_circuit_open", Func: Level, Aggregate: Max, By: sinks},
				{Name: "detached", Unit: Flag, Metric: "outrider_sink_detached", Func: Level, Aggregate: Max, By: sinks},
				{Name: "parked workloads", Unit: Count, Metric: "outrider_sink_parked_lanes", Func: Level, Aggregate: Sum, By: sinks},
				{Name: "dead letters", Unit: Count, Metric: "outrider_sink_dead_letters", Func: Level, Aggregate: Sum, By: sinks},
			},
		},
	}}
}

func throughput() Row {
	return Row{"Throughput", []Panel{
		{
			Title: "In", Description: "Items a second that come into each pipeline.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_pipeline_in_total", Func: Rate, Aggregate: Sum, By: pipelines}},
		},
		{
			Title: "Out", Description: "Items a second that leave each pipeline done: acknowledged, not just sent.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_pipeline_out_total", Func: Rate, Aggregate: Sum, By: pipelines}},
		},
		{
			Title: "Out of what comes in", Description: "Share of what comes in that comes out, which is below 1 while a backlog grows.",
			Kind: Series, Unit: Ratio, Width: half,
			Queries: []Query{{Metric: "outrider_pipeline_out_total", Func: Rate, Aggregate: Sum, By: pipelines, Per: "outrider_pipeline_in_total"}},
		},
		{
			Title: "Acknowledged", Description: "Changes a second that the receiver of each sink acknowledges.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_sink_acknowledged_total", Func: Rate, Aggregate: Sum, By: sinks}},
		},
		{
			Title: "Pipelines", Description: "What each pipeline does now.",
			Kind: Table, Width: whole,
			Queries: []Query{
				{Name: "in", Unit: PerSecond, Metric: "outrider_pipeline_in_total", Func: Rate, Aggregate: Sum, By: pipelines},
				{Name: "out", Unit: PerSecond, Metric: "outrider_pipeline_out_total", Func: Rate, Aggregate: Sum, By: pipelines},
				{Name: "drops", Unit: PerSecond, Metric: "outrider_pipeline_drops_total", Func: Rate, Aggregate: Sum, By: pipelines},
				{Name: "queued", Unit: Count, Metric: "outrider_pipeline_queued", Func: Level, Aggregate: Sum, By: pipelines},
				{Name: "oldest", Unit: Seconds, Metric: "outrider_pipeline_oldest_age_seconds", Func: Level, Aggregate: Max, By: pipelines},
				{Name: "off by", Unit: Count, Metric: "outrider_pipeline_balance_excess", Func: Level, Aggregate: Max, By: pipelines},
			},
		},
	}}
}

func latency() Row {
	stage := func(title string, q float64, what string) Panel {
		return Panel{
			Title: title, Description: what, Kind: Series, Unit: Seconds, Width: third,
			Queries: []Query{{Metric: "outrider_change_stage_seconds", Func: Quantile, Q: q, By: stages}},
		}
	}
	ended := func(name string, q float64) Query {
		return Query{Name: name, Metric: "outrider_change_stage_seconds", Func: Quantile, Q: q, By: sinks, Match: map[string]string{"stage": "whole"}}
	}
	return Row{"Latency by stage", []Panel{
		stage("p50 by stage", 0.5, "Half of the changes are through a stage within this time."),
		stage("p95 by stage", 0.95, "Of 100 changes 95 are through a stage within this time."),
		stage("p99 by stage", 0.99, "Of 100 changes 99 are through a stage within this time."),
		{
			Title: "From observed to acknowledged", Description: "How long changes take from the watch to the receiver's answer.",
			Kind: Series, Unit: Seconds, Width: half,
			Queries: []Query{ended("p50", 0.5), ended("p95", 0.95), ended("p99", 0.99)},
		},
		{
			Title: "Late changes", Description: "Share of the acknowledged changes that took more than a second.",
			Kind: Series, Unit: Ratio, Width: half, Rule: "delivery-latency",
			Queries: []Query{{Metric: "outrider_sink_late_total", Func: Rate, Aggregate: Sum, By: sinks, Per: "outrider_sink_acknowledged_total"}},
		},
		{
			Title: "Wait in work queues", Description: "How long 99 of 100 keys wait at most for a worker.",
			Kind: Series, Unit: Seconds, Width: half,
			Queries: []Query{{Metric: "outrider_workqueue_wait_seconds", Func: Quantile, Q: 0.99, By: queues}},
		},
		{
			Title: "Work on a key", Description: "How long a worker holds 99 of 100 keys at most.",
			Kind: Series, Unit: Seconds, Width: half,
			Queries: []Query{{Metric: "outrider_workqueue_work_seconds", Func: Quantile, Q: 0.99, By: queues}},
		},
	}}
}

func depth() Row {
	waiting := func(title, metric, rule, what string) Panel {
		return Panel{
			Title: title, Description: what, Kind: Series, Unit: Count, Width: half, Rule: rule,
			Queries: []Query{{Metric: metric, Func: Level, Aggregate: Max, By: pipelines}},
		}
	}
	return Row{"Queue depth", []Panel{
		waiting("Least that waited", "outrider_pipeline_queued_min", "pipeline-depth", "Fewest items that waited at any second of the last minute, which is above 0 while a queue does not get empty."),
		waiting("p95 of what waited", "outrider_pipeline_queued_p95", "", "Items that waited at most in 95 of 100 seconds of the last minute."),
		waiting("Most that waited", "outrider_pipeline_queued_max", "", "Most items that waited at any second of the last minute."),
		{
			Title: "Oldest", Description: "How long the oldest waiting item of each pipeline has waited.",
			Kind: Series, Unit: Seconds, Width: half, Rule: "pipeline-oldest",
			Queries: []Query{{Metric: "outrider_pipeline_oldest_age_seconds", Func: Level, Aggregate: Max, By: pipelines}},
		},
		{
			Title: "Work queues", Description: "Keys that wait in each work queue.",
			Kind: Series, Unit: Count, Width: half,
			Queries: []Query{{Metric: "outrider_workqueue_depth", Func: Level, Aggregate: Sum, By: queues}},
		},
		{
			Title: "Longest held key", Description: "How long a worker has held the key that it holds longest.",
			Kind: Series, Unit: Seconds, Width: half,
			Queries: []Query{{Metric: "outrider_workqueue_longest_running_seconds", Func: Level, Aggregate: Max, By: queues}},
		},
	}}
}

func retries() Row {
	return Row{"Retries", []Panel{
		{
			Title: "Retries of work queues", Description: "Keys a second that are put back into each work queue after a wait.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_workqueue_retries_total", Func: Rate, Aggregate: Sum, By: queues}},
		},
		{
			Title: "Adds to work queues", Description: "Keys a second that are added to each work queue, to hold its retries against.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_workqueue_adds_total", Func: Rate, Aggregate: Sum, By: queues}},
		},
		{
			Title: "Retries of pipelines", Description: "Items a second that are tried again, by cause.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_pipeline_retries_total", Func: Rate, Aggregate: Sum, By: []string{"service", "pipeline", "target", "cause"}}},
		},
		{
			Title: "Retries of what comes in", Description: "Share of what comes in that is tried again.",
			Kind: Series, Unit: Ratio, Width: half, Rule: "pipeline-retries",
			Queries: []Query{{Metric: "outrider_pipeline_retries_total", Func: Rate, Aggregate: Sum, By: pipelines, Per: "outrider_pipeline_in_total"}},
		},
		{
			Title: "Sinks that fail", Description: "For how long changes have waited while every try of a sink failed.",
			Kind: Series, Unit: Seconds, Width: half, Rule: "sink-failing",
			Queries: []Query{{Metric: "outrider_sink_failing_seconds", Func: Level, Aggregate: Max, By: sinks}},
		},
		{
			Title: "Open circuit breakers", Description: "1 while a sink is only tried now and then, because its receiver fails.",
			Kind: Series, Unit: Flag, Width: half, Rule: "sink-circuit-open",
			Queries: []Query{{Metric: "outrider_sink_circuit_open", Func: Level, Aggregate: Max, By: sinks}},
		},
	}}
}

func drops() Row {
	return Row{"Drops by reason", []Panel{
		{
			Title: "Unwanted drops", Description: "Items a second that each pipeline gives up, without what it was told to leave out.",
			Kind: Series, Unit: PerSecond, Width: half, Rule: "pipeline-drops",
			Queries: []Query{{Metric: "outrider_pipeline_drops_total", Func: Rate, Aggregate: Sum, By: pipelines, Except: wanted}},
		},
		{
			Title: "Drops by reason", Description: "Items a second that each pipeline gives up, for whatever reason.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_pipeline_drops_total", Func: Rate, Aggregate: Sum, By: []string{"service", "pipeline", "target", "reason"}}},
		},
		{
			Title: "Dead letters", Description: "Changes that a receiver refused for good and that are kept for it.",
			Kind: Series, Unit: Count, Width: half,
			Queries: []Query{{Metric: "outrider_sink_dead_letters", Func: Level, Aggregate: Sum, By: sinks}},
		},
		{
			Title: "Detached sinks", Description: "1 while a sink is given nothing, and nothing is kept for it.",
			Kind: Series, Unit: Flag, Width: half, Rule: "sink-detached",
			Queries: []Query{{Metric: "outrider_sink_detached", Func: Level, Aggregate: Max, By: sinks}},
		},
	}}
}

func balance() Row {
	return Row{"Balance", []Panel{
		{
			Title: "Balance", Description: "Carried and come in, less what came out, waits and was dropped: 0 when a pipeline has lost nothing.",
			Kind: Series, Unit: Count, Width: half,
			Queries: []Query{{Metric: "outrider_pipeline_balance", Func: Level, Aggregate: Sum, By: pipelines}},
		},
		{
			Title: "Off beyond what reads explain", Description: "How far books are off that were not read while items moved.",
			Kind: Series, Unit: Count, Width: half, Rule: "pipeline-balance",
			Queries: []Query{{Metric: "outrider_pipeline_balance_excess", Func: Level, Aggregate: Max, By: pipelines}},
		},
	}}
}
