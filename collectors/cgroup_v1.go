package collectors

import (
	"errors"
	"os"
)

// Lines of the files of version 1. Times in cpu.stat are nanoseconds. Read-only.
var (
	cpuStatPicksV1 = map[string]pick{
		"nr_periods":     {"cpu_periods_total", nil, 0},
		"nr_throttled":   {"cpu_throttled_periods_total", nil, 0},
		"throttled_time": {"cpu_throttled_seconds_total", nil, 1e-9},
	}
	// Of the group with those below it. Read-only.
	memoryStatPicksV1 = map[string]pick{
		"total_rss":           {"memory_used_bytes", []string{"anonymous"}, 0},
		"total_cache":         {"memory_used_bytes", []string{"file"}, 0},
		"total_shmem":         {"memory_used_bytes", []string{"shared"}, 0},
		"total_mapped_file":   {"memory_used_bytes", []string{"mapped"}, 0},
		"total_dirty":         {"memory_used_bytes", []string{"dirty"}, 0},
		"total_writeback":     {"memory_used_bytes", []string{"writeback"}, 0},
		"total_inactive_file": {"memory_used_bytes", []string{"inactive_file"}, 0},
		"total_active_file":   {"memory_used_bytes", []string{"active_file"}, 0},
		"total_unevictable":   {"memory_used_bytes", []string{"unevictable"}, 0},
		"total_swap":          {"swap_bytes", nil, 0},
	}
	// Read-only.
	oomPicksV1 = map[string]pick{"oom_kill": {"memory_events_total", []string{"oom_kill"}, 0}}
)

// readV1 reads the files of version 1, where each controller has a tree of its
// own.
func (c *cgroup) readV1(mount string, paths map[string]string) error {
	var errs []error
	dir := func(controller string) (string, bool) {
		at := mount + "/" + controller
		if _, err := os.Stat(at); err != nil {
			return "", false
		}
		place, err := c.place(at, paths[controller])
		return place, err == nil // the group need not be in every tree
	}
	if d, ok := dir("cpu"); ok {
		errs = append(errs, c.lines(d+"/cpu.stat", cpuStatPicksV1), c.quotaV1(d))
	}
	if d, ok := dir("cpuacct"); ok {
		errs = append(errs, c.nanoseconds(d+"/cpuacct.usage", "cpu_seconds_total"),
			c.nanoseconds(d+"/cpuacct.usage_user", "cpu_mode_seconds_total", "user"),
			c.nanoseconds(d+"/cpuacct.usage_sys", "cpu_mode_seconds_total", "system"))
	}
	if d, ok := dir("memory"); ok {
		errs = append(errs, c.memory(d, "memory.usage_in_bytes", memoryStatPicksV1, "total_"),
			c.value(d+"/memory.limit_in_bytes", "memory_limit_bytes"),
			c.value(d+"/memory.max_usage_in_bytes", "memory_peak_bytes"),
			c.lines(d+"/memory.oom_control", oomPicksV1))
	}
	if d, ok := dir("pids"); ok {
		errs = append(errs, c.value(d+"/pids.current", "tasks"), c.value(d+"/pids.max", "tasks_limit"),
			c.lines(d+"/pids.events", pidsEventPicks))
	}
	return errors.Join(errs...)
}

func (c *cgroup) nanoseconds(path, metric string, tags ...string) error {
	data, err := c.files.read(path)
	if err != nil {
		return unreadable(path, err)
	}
	n, _, err := parseLimit(data)
	if err == nil {
		c.found.add(metric, n/1e9, tags...)
	}
	return unreadable(path, err)
}

// quotaV1 reads the limit of CPUs; a quota of -1 is none.
func (c *cgroup) quotaV1(dir string) error {
	var n [2]float64
	for i, file := range []string{"/cpu.cfs_quota_us", "/cpu.cfs_period_us"} {
		data, err := c.files.read(dir + file)
		if err == nil {
			n[i], _, err = parseLimit(data)
		}
		if err != nil {
			return unreadable(dir+file, err)
		}
	}
	if n[0] >= 0 && n[1] > 0 {
		c.found.add("cpu_limit", n[0]/n[1])
	}
	return nil
}
