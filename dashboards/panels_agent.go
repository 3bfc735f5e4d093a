package dashboards

func freshness() Row {
	return Row{"Freshness", []Panel{
		{
			Title: "Since the last word", Description: "Since each stream's last event or bookmark, of which the API server sends one about once a minute.",
			Kind: Series, Unit: Seconds, Width: half, Rule: "stream-stale",
			Queries: []Query{{Metric: "outrider_stream_seen_age_seconds", Func: Level, Aggregate: Max, By: streams}},
		},
		{
			Title: "Objects", Description: "Objects that each stream holds.",
			Kind: Series, Unit: Count, Width: half,
			Queries: []Query{{Metric: "outrider_stream_objects", Func: Level, Aggregate: Sum, By: streams}},
		},
		{
			Title: "Held back", Description: "1 while a stream waits because too much of it is pending, or it is ahead of others.",
			Kind: Series, Unit: Flag, Width: half, Rule: "stream-held",
			Queries: []Query{{Metric: "outrider_stream_held", Func: Level, Aggregate: Max, By: streams}},
		},
		{
			Title: "Calls that failed", Description: "Lists and watches a second that the API server refuses or does not answer.",
			Kind: Series, Unit: PerSecond, Width: half, Rule: "stream-calls",
			Queries: []Query{{Metric: "outrider_stream_call_failures_total", Func: Rate, Aggregate: Sum, By: streams}},
		},
		{
			Title: "Gaps", Description: "Intervals, a second, of which nobody can say what happened.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_stream_gaps_total", Func: Rate, Aggregate: Sum, By: streams}},
		},
		{
			Title: "Found by the audit", Description: "Objects a second that the API server never told the watch about.",
			Kind: Series, Unit: PerSecond, Width: half, Rule: "audit-corrections",
			Queries: []Query{{Metric: "outrider_audit_corrections_total", Func: Rate, Aggregate: Sum, By: streams}},
		},
	}}
}

func ledger() Row {
	commit := func(name string, q float64) Query {
		return Query{Name: name, Metric: "outrider_ledger_commit_seconds", Func: Quantile, Q: q}
	}
	return Row{"Ledger", []Panel{
		{
			Title: "In use", Description: "Size of the ledger by its bound, from which on nothing more is recorded.",
			Kind: Series, Unit: Ratio, Width: half, Rule: "ledger-space",
			Queries: []Query{{Metric: "outrider_ledger_used_ratio", Func: Level, Aggregate: Max}},
		},
		{
			Title: "Size", Description: "Size of the ledger, of its write-ahead log alone, and its bound.",
			Kind: Series, Unit: Bytes, Width: half,
			Queries: []Query{
				{Name: "in use", Metric: "outrider_ledger_size_bytes", Func: Level, Aggregate: Max},
				{Name: "write-ahead log", Metric: "outrider_ledger_wal_bytes", Func: Level, Aggregate: Max},
				{Name: "bound", Metric: "outrider_ledger_bound_bytes", Func: Level, Aggregate: Max},
			},
		},
		{
			Title: "Commits", Description: "How long a group of entries takes to become durable.",
			Kind: Series, Unit: Seconds, Width: third,
			Queries: []Query{commit("p50", 0.5), commit("p95", 0.95), commit("p99", 0.99)},
		},
		{
			Title: "Pruned", Description: "Rows a second that retention deletes, by table.",
			Kind: Series, Unit: PerSecond, Width: third,
			Queries: []Query{{Metric: "outrider_ledger_pruned_total", Func: Rate, Aggregate: Sum, By: []string{"table"}}},
		},
		{
			Title: "Upkeep that failed", Description: "Checkpoints and deletions a second that fail and are tried again.",
			Kind: Series, Unit: PerSecond, Width: third, Rule: "ledger-upkeep",
			Queries: []Query{{Metric: "outrider_ledger_upkeep_failures_total", Func: Rate, Aggregate: Sum, By: []string{"step"}}},
		},
	}}
}

func checks() Row {
	return Row{"Checks", []Panel{
		{
			Title: "Checks", Description: "The verdict on each check, and how its runs are.",
			Kind: Table, Width: whole,
			Queries: []Query{
				{Name: "verdict", Unit: Status, Metric: "outrider_check_status", Func: Level, Aggregate: Max, By: verdicts},
				{Name: "took", Unit: Seconds, Metric: "outrider_check_duration_seconds", Func: Level, Aggregate: Max, By: verdicts},
				{Name: "stale", Unit: Flag, Metric: "outrider_check_stale", Func: Level, Aggregate: Max, By: verdicts},
				{Name: "flapping", Unit: Flag, Metric: "outrider_check_flapping", Func: Level, Aggregate: Max, By: verdicts},
			},
		},
		{
			Title: "Verdicts", Description: "The verdict on each check over time.",
			Kind: Series, Unit: Status, Width: half,
			Queries: []Query{{Metric: "outrider_check_status", Func: Level, Aggregate: Max, By: verdicts}},
		},
		{
			Title: "Duration", Description: "How long the last run of each check took.",
			Kind: Series, Unit: Seconds, Width: half,
			Queries: []Query{{Metric: "outrider_check_duration_seconds", Func: Level, Aggregate: Max, By: verdicts}},
		},
		{
			Title: "Changes of verdicts", Description: "How often a second the verdict on each check changes.",
			Kind: Series, Unit: PerSecond, Width: third,
			Queries: []Query{{Metric: "outrider_check_changes_total", Func: Rate, Aggregate: Sum, By: verdicts}},
		},
		{
			Title: "Late verdicts", Description: "1 while the last result of a check is too old, or its run does not end.",
			Kind: Series, Unit: Flag, Width: third, Rule: "checks-late",
			Queries: []Query{{Metric: "outrider_check_stale", Func: Level, Aggregate: Max, By: verdicts}},
		},
		{
			Title: "Stuck checks", Description: "Checks past their deadline that have not returned.",
			Kind: Series, Unit: Count, Width: third, Rule: "checks-stuck",
			Queries: []Query{{Metric: "outrider_checks_stuck", Func: Level, Aggregate: Max}},
		},
	}}
}

func neighbours() Row {
	return Row{"Neighbours and exporters", []Panel{
		{
			Title: "Neighbours that answer", Description: "1 while a neighbour's series can be read.",
			Kind: Series, Unit: Flag, Width: third, Rule: "neighbour-down",
			Queries: []Query{{Metric: "outrider_neighbour_up", Func: Level, Aggregate: Min, By: []string{"neighbour"}}},
		},
		{
			Title: "Since an exporter gave away points", Description: "How long ago each exporter last gave points away, or had none to give.",
			Kind: Series, Unit: Seconds, Width: third, Rule: "exporter-failing",
			Queries: []Query{{Metric: "outrider_exporter_last_success_age_seconds", Func: Level, Aggregate: Max, By: []string{"exporter"}}},
		},
		{
			Title: "Last reload", Description: "1 when the configuration was last read without a mistake.",
			Kind: Series, Unit: Flag, Width: third, Rule: "reload-failed",
			Queries: []Query{{Metric: "outrider_config_reload_successful", Func: Level, Aggregate: Min}},
		},
		{
			Title: "Errors of exporters", Description: "Series, or whole exports, a second that an exporter cannot give away.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_exporter_errors_total", Func: Rate, Aggregate: Sum, By: []string{"exporter"}}},
		},
		{
			Title: "Errors of collectors", Description: "Reads a second that fail, or of which a part does.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_collector_errors_total", Func: Rate, Aggregate: Sum, By: []string{"collector"}}},
		},
	}}
}
