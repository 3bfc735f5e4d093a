package collectors

import "github.com/outrider-agent/outrider/agent/config"

// Kinds is the table of kinds: the key in the configuration, and its struct.
func Kinds() config.Kinds {
	return config.Kinds{
		"cgroup":      func() any { return &CgroupConfig{} },
		"dogstatsd":   func() any { return &DogStatsDConfig{} },
		"drops":       func() any { return &DropsConfig{} },
		"expvar":      func() any { return &ExpvarConfig{} },
		"host":        func() any { return &HostConfig{} },
		"process":     func() any { return &ProcessConfig{} },
		"prometheus":  func() any { return &PrometheusConfig{} },
		"queue_depth": func() any { return &QueueDepthConfig{} },
		"retries":     func() any { return &RetriesConfig{} },
		"runtime":     func() any { return &RuntimeConfig{} },
		"throughput":  func() any { return &ThroughputConfig{} },
	}
}

// foreign are the kinds that read a neighbour: what they find is its own, and not
// the agent's. Read-only.
var foreign = map[string]bool{"prometheus": true, "expvar": true}
