package dashboards

// host is what the collector of the kind host finds.
func host() Row {
	return Row{"Host", []Panel{
		{
			Title: "Busy CPUs", Description: "How many CPUs are busy, by what they do.",
			Kind: Series, Unit: CPUs, Width: third,
			Queries: []Query{{Metric: "outrider_host_cpu_seconds_total", Func: Rate, Aggregate: Sum, By: []string{"mode"}, Except: map[string][]string{"mode": {"idle"}}}},
		},
		{
			Title: "Load", Description: "Tasks that run or wait for a disk, averaged over windows, and the CPUs that there are for them.",
			Kind: Series, Unit: Count, Width: third,
			Queries: []Query{
				{Name: "load", Metric: "outrider_host_load", Func: Level, Aggregate: Sum, By: []string{"window"}},
				{Name: "CPUs", Metric: "outrider_host_cpus", Func: Level, Aggregate: Sum},
			},
		},
		{
			Title: "Memory", Description: "Memory that there is, and that could be had without swapping.",
			Kind: Series, Unit: Bytes, Width: third,
			Queries: []Query{
				{Name: "total", Metric: "outrider_host_memory_total_bytes", Func: Level, Aggregate: Sum},
				{Name: "available", Metric: "outrider_host_memory_available_bytes", Func: Level, Aggregate: Sum},
			},
		},
		{
			Title: "Pressure", Description: "Share of the time in which tasks wait for a resource.",
			Kind: Series, Unit: Ratio, Width: third,
			Queries: []Query{{Metric: "outrider_host_pressure_waiting_seconds_total", Func: Rate, Aggregate: Max, By: []string{"resource", "share"}}},
		},
		{
			Title: "Disks", Description: "Bytes a second that disks read and write.",
			Kind: Series, Unit: BytesPerSecond, Width: third,
			Queries: []Query{{Metric: "outrider_host_disk_bytes_total", Func: Rate, Aggregate: Sum, By: []string{"device", "operation"}}},
		},
		{
			Title: "File systems", Description: "Space of each file system that is free for everyone.",
			Kind: Series, Unit: Bytes, Width: third,
			Queries: []Query{{Metric: "outrider_host_filesystem_available_bytes", Func: Level, Aggregate: Min, By: []string{"mount"}}},
		},
		{
			Title: "Network", Description: "Bytes a second through each interface.",
			Kind: Series, Unit: BytesPerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_host_network_bytes_total", Func: Rate, Aggregate: Sum, By: []string{"interface", "direction"}}},
		},
		{
			Title: "Network drops", Description: "Packets a second that each interface drops.",
			Kind: Series, Unit: PerSecond, Width: half,
			Queries: []Query{{Metric: "outrider_host_network_drops_total", Func: Rate, Aggregate: Sum, By: []string{"interface", "direction"}}},
		},
	}}
}

// runtime is what the collector of the kind runtime finds, of the agent itself.
func runtime() Row {
	return Row{"Go runtime", []Panel{
		{
			Title: "Goroutines", Description: "Goroutines that the agent has.",
			Kind: Series, Unit: Count, Width: third,
			Queries: []Query{{Metric: "outrider_runtime_goroutines", Func: Level, Aggregate: Max}},
		},
		{
			Title: "Heap", Description: "Memory that the last collection found in use, and at which the next one ends.",
			Kind: Series, Unit: Bytes, Width: third,
			Queries: []Query{
				{Name: "live", Metric: "outrider_runtime_heap_live_bytes", Func: Level, Aggregate: Max},
				{Name: "goal", Metric: "outrider_runtime_heap_goal_bytes", Func: Level, Aggregate: Max},
			},
		},
		{
			Title: "Memory of the agent", Description: "Memory that the runtime has of the system, by what it is for.",
			Kind: Series, Unit: Bytes, Width: third,
			Queries: []Query{{Metric: "outrider_runtime_memory_bytes", Func: Level, Aggregate: Max, By: []string{"class"}}},
		},
		{
			Title: "CPUs of the agent", Description: "How many CPUs the agent's own code and its collections of garbage keep busy.",
			Kind: Series, Unit: CPUs, Width: third,
			Queries: []Query{
				{Name: "code", Metric: "outrider_runtime_cpu_seconds_total", Func: Rate, Aggregate: Sum},
				{Name: "collections", Metric: "outrider_runtime_gc_cpu_seconds_total", Func: Rate, Aggregate: Sum},
			},
		},
		{
			Title: "Pauses", Description: "For how long 99 of 100 collections stop the agent at most.",
			Kind: Series, Unit: Seconds, Width: third,
			Queries: []Query{{Metric: "outrider_runtime_gc_pause_seconds", Func: Quantile, Q: 0.99}},
		},
		{
			Title: "Scheduling", Description: "How long 99 of 100 goroutines that could run wait at most for a thread.",
			Kind: Series, Unit: Seconds, Width: third,
			Queries: []Query{{Metric: "outrider_runtime_scheduling_latency_seconds", Func: Quantile, Q: 0.99}},
		},
	}}
}
