package collectors

import (
	"bytes"
	"errors"
	"fmt"
)

// Lines of the files of version 2 (Documentation/admin-guide/cgroup-v2.rst).
// Read-only.
var (
	cpuStatPicks = map[string]pick{
		"usage_usec":     {"cpu_seconds_total", nil, 1e-6},
		"user_usec":      {"cpu_mode_seconds_total", []string{"user"}, 1e-6},
		"system_usec":    {"cpu_mode_seconds_total", []string{"system"}, 1e-6},
		"nr_periods":     {"cpu_periods_total", nil, 0},
		"nr_throttled":   {"cpu_throttled_periods_total", nil, 0},
		"throttled_usec": {"cpu_throttled_seconds_total", nil, 1e-6},
	}
	// Read-only.
	memoryStatPicks = map[string]pick{
		"anon":               {"memory_used_bytes", []string{"anonymous"}, 0},
		"file":               {"memory_used_bytes", []string{"file"}, 0},
		"kernel":             {"memory_used_bytes", []string{"kernel"}, 0},
		"kernel_stack":       {"memory_used_bytes", []string{"kernel_stack"}, 0},
		"pagetables":         {"memory_used_bytes", []string{"page_tables"}, 0},
		"percpu":             {"memory_used_bytes", []string{"percpu"}, 0},
		"sock":               {"memory_used_bytes", []string{"sockets"}, 0},
		"shmem":              {"memory_used_bytes", []string{"shared"}, 0},
		"file_mapped":        {"memory_used_bytes", []string{"mapped"}, 0},
		"file_dirty":         {"memory_used_bytes", []string{"dirty"}, 0},
		"file_writeback":     {"memory_used_bytes", []string{"writeback"}, 0},
		"inactive_file":      {"memory_used_bytes", []string{"inactive_file"}, 0},
		"active_file":        {"memory_used_bytes", []string{"active_file"}, 0},
		"slab_reclaimable":   {"memory_used_bytes", []string{"slab_reclaimable"}, 0},
		"slab_unreclaimable": {"memory_used_bytes", []string{"slab_unreclaimable"}, 0},
		"unevictable":        {"memory_used_bytes", []string{"unevictable"}, 0},
	}
	// Read-only.
	memoryEventPicks = map[string]pick{
		"low":            {"memory_events_total", []string{"low"}, 0},
		"high":           {"memory_events_total", []string{"high"}, 0},
		"max":            {"memory_events_total", []string{"max"}, 0},
		"oom":            {"memory_events_total", []string{"oom"}, 0},
		"oom_kill":       {"memory_events_total", []string{"oom_kill"}, 0},
		"oom_group_kill": {"memory_events_total", []string{"oom_group_kill"}, 0},
	}
	// Read-only.
	pidsEventPicks = map[string]pick{"max": {"tasks_limit_hits_total", nil, 0}}
)

func (c *cgroup) readV2(dir string) error {
	errs := []error{
		c.lines(dir+"/cpu.stat", cpuStatPicks),
		c.cpuLimit(dir + "/cpu.max"),
		c.memory(dir, "memory.current", memoryStatPicks, ""),
		c.value(dir+"/memory.max", "memory_limit_bytes"),
		c.value(dir+"/memory.high", "memory_high_bytes"),
		c.value(dir+"/memory.peak", "memory_peak_bytes"),
		c.value(dir+"/memory.swap.current", "swap_bytes"),
		c.value(dir+"/memory.swap.max", "swap_limit_bytes"),
		c.lines(dir+"/memory.events", memoryEventPicks),
		c.value(dir+"/pids.current", "tasks"),
		c.value(dir+"/pids.max", "tasks_limit"),
		c.lines(dir+"/pids.events", pidsEventPicks),
		c.io(dir + "/io.stat"),
	}
	for _, resource := range []string{"cpu", "io", "memory", "irq"} {
		path := dir + "/" + resource + ".pressure"
		data, err := c.files.read(path)
		if err == nil {
			var p pressure
			if p, err = parsePressure(data); err == nil {
				p.add(c.found, resource)
			}
		}
		errs = append(errs, unreadable(path, err))
	}
	return errors.Join(errs...)
}

// cpuLimit reads cpu.max: a quota or max, and a period, in microseconds.
func (c *cgroup) cpuLimit(path string) error {
	data, err := c.files.read(path)
	if err != nil {
		return unreadable(path, err)
	}
	cpus, limited, err := parseCPUMax(data)
	if err == nil && limited {
		c.found.add("cpu_limit", cpus)
	}
	return unreadable(path, err)
}

func parseCPUMax(data []byte) (cpus float64, limited bool, err error) {
	quota, rest := cutField(data)
	periodText, _ := cutField(rest)
	period, ok := number(periodText)
	if string(quota) == "max" && ok {
		return 0, false, nil
	}
	n, isNumber := number(quota)
	if !ok || !isNumber || period <= 0 || n < 0 {
		return 0, false, malformed(1, bytes.TrimSpace(data), "a quota or max, and a period")
	}
	return n / period, true, nil
}

// memory reads what the group uses, of both versions: their file of the whole, and the
// prefix of the names in memory.stat, are others. What it works with is what cannot be
// dropped at once: Kubernetes evicts by the same figure.
func (c *cgroup) memory(dir, file string, picks map[string]pick, prefix string) error {
	path := dir + "/" + file
	data, err := c.files.read(path)
	if err != nil {
		return unreadable(path, err) // the root group has none
	}
	current, _, err := parseLimit(data)
	if err != nil {
		return unreadable(path, err)
	}
	c.found.add("memory_bytes", current)

	path = dir + "/memory.stat"
	data, err = c.files.read(path)
	if err != nil {
		return unreadable(path, err)
	}
	if err := addPicks(c.found, path, data, picks); err != nil {
		return err
	}
	c.workingSet(data, prefix+"inactive_file", current)
	return c.faults(data, prefix+"pgfault", prefix+"pgmajfault")
}

// workingSet adds the memory in use without files that nobody used lately.
func (c *cgroup) workingSet(stat []byte, inactive string, current float64) {
	_ = parsePairs(stat, func(name []byte, value float64) { // its errors are told already
		if string(name) == inactive {
			c.found.add("memory_working_set_bytes", max(0, current-value))
		}
	})
}

func (c *cgroup) faults(stat []byte, all, major string) error {
	n := map[string]float64{}
	err := parsePairs(stat, func(name []byte, value float64) {
		if s := string(name); s == all || s == major {
			n[s] = value
		}
	})
	if len(n) == 2 {
		c.found.add("page_faults_total", n[major], "major")
		c.found.add("page_faults_total", max(0, n[all]-n[major]), "minor")
	}
	return err
}

// io reads io.stat.
func (c *cgroup) io(path string) error {
	data, err := c.files.read(path)
	if err != nil {
		return unreadable(path, err)
	}
	devices := 0
	err = parseIOStat(data, func(device []byte, s ioStat) {
		if devices++; devices > maxHostItems {
			return
		}
		name := c.device(string(device))
		c.found.add("io_bytes_total", s.bytes[0], name, "read")
		c.found.add("io_bytes_total", s.bytes[1], name, "write")
		c.found.add("io_bytes_total", s.bytes[2], name, "discard")
		c.found.add("io_operations_total", s.operations[0], name, "read")
		c.found.add("io_operations_total", s.operations[1], name, "write")
		c.found.add("io_operations_total", s.operations[2], name, "discard")
	})
	if err == nil && devices > maxHostItems {
		return fmt.Errorf("read %s: got %d devices, want %d at most: the others are left out", path, devices, maxHostItems)
	}
	return unreadable(path, err)
}

// ioStat are the counters of a device: read, written, discarded.
type ioStat struct{ bytes, operations [3]float64 }

// parseIOStat reads io.stat: 254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6.
// A device without figures is left out.
func parseIOStat(data []byte, found func(device []byte, s ioStat)) error {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		device, rest := cutField(text)
		if bytes.IndexByte(device, ':') < 1 {
			return malformed(line, bytes.TrimSpace(text), "a device such as 254:0")
		}
		var s ioStat
		seen := false
		for {
			var field []byte
			if field, rest = cutField(rest); len(field) == 0 {
				break
			}
			name, value, _ := bytes.Cut(field, []byte("="))
			to := s.field(string(name))
			if to == nil {
				continue // io.cost and io.latency add their own
			}
			n, ok := number(value)
			if !ok {
				return malformed(line, bytes.TrimSpace(text), fmt.Sprintf("a whole number after %s=", name))
			}
			*to, seen = n, true
		}
		if seen {
			found(device, s)
		}
	}
	return nil
}

func (s *ioStat) field(name string) *float64 {
	switch name {
	case "rbytes":
		return &s.bytes[0]
	case "wbytes":
		return &s.bytes[1]
	case "dbytes":
		return &s.bytes[2]
	case "rios":
		return &s.operations[0]
	case "wios":
		return &s.operations[1]
	case "dios":
		return &s.operations[2]
	}
	return nil
}
