package collectors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// CgroupConfig describes a control group: by default the agent's own, which in
// a container is the container. A limit that is not set has no series.
type CgroupConfig struct {
	// Path is another one: below the mount of the control groups, such as
	// /system.slice/payments.service, as systemd-cgls shows it.
	Path string `yaml:"path"`
	Proc string `yaml:"proc" default:"/proc"`
	Sys  string `yaml:"sys" default:"/sys"`
}

// Validate is asked when the configuration is read.
func (c *CgroupConfig) Validate() error {
	if c.Path != "" && !filepath.IsLocal(strings.TrimLeft(c.Path, "/")) && c.Path != "/" {
		return &config.FieldError{Key: "path", Got: c.Path, Want: "a path below the mount, without .."}
	}
	return nil
}

// cgroupDescs describes what the kind cgroup gives. Read-only.
var cgroupDescs = describe("cgroup", []string{"cgroup"}, []described{
	{"cpu_seconds_total", metrics.CounterType, "seconds", "Time that the group spent on CPUs.", 100, nil},
	{"cpu_mode_seconds_total", metrics.CounterType, "seconds", "Time that the group spent on CPUs, by mode.", 200, []string{"mode"}},
	{"cpu_limit", metrics.GaugeType, "cpus", "CPUs that the group may use at most.", 100, nil},
	{"cpu_periods_total", metrics.CounterType, "periods", "Periods in which the group wanted to run, where its CPUs are limited.", 100, nil},
	{"cpu_throttled_periods_total", metrics.CounterType, "periods", "Periods in which the group was stopped by its limit.", 100, nil},
	{"cpu_throttled_seconds_total", metrics.CounterType, "seconds", "Time in which the group was stopped by its limit.", 100, nil},
	{"memory_bytes", metrics.GaugeType, "bytes", "Memory that the group uses, its files' pages included.", 100, nil},
	{"memory_working_set_bytes", metrics.GaugeType, "bytes", "Memory that the group uses without pages of files that nobody used lately.", 100, nil},
	{"memory_limit_bytes", metrics.GaugeType, "bytes", "Memory at which processes of the group are killed.", 100, nil},
	{"memory_high_bytes", metrics.GaugeType, "bytes", "Memory at which the group is slowed down.", 100, nil},
	{"memory_peak_bytes", metrics.GaugeType, "bytes", "The most memory that the group used.", 100, nil},
	{"memory_used_bytes", metrics.GaugeType, "bytes", "Memory of the group by what it is used for; some uses overlap.", 2000, []string{"use"}},
	{"memory_events_total", metrics.CounterType, "events", "Times that the group's memory came to one of its bounds, and what that led to.", 800, []string{"event"}},
	{"page_faults_total", metrics.CounterType, "faults", "Page faults, minor ones and those that waited for a disk.", 200, []string{"type"}},
	{"swap_bytes", metrics.GaugeType, "bytes", "Swap space that the group uses.", 100, nil},
	{"swap_limit_bytes", metrics.GaugeType, "bytes", "Swap space that the group may use.", 100, nil},
	{"tasks", metrics.GaugeType, "tasks", "Processes and threads of the group.", 100, nil},
	{"tasks_limit", metrics.GaugeType, "tasks", "Processes and threads that the group may have.", 100, nil},
	{"tasks_limit_hits_total", metrics.CounterType, "tasks", "Processes and threads that could not be made because of the limit.", 100, nil},
	{"io_bytes_total", metrics.CounterType, "bytes", "Bytes that the group read, wrote and discarded.", 1000, []string{"device", "operation"}},
	{"io_operations_total", metrics.CounterType, "operations", "Operations of the group.", 1000, []string{"device", "operation"}},
	{"pressure_waiting_seconds_total", metrics.CounterType, "seconds", "Time in which some, or all, tasks of the group waited for a resource.", 800, []string{"resource", "share"}},
})

// Descs are the metrics that the kind can give.
func (c *CgroupConfig) Descs() []metrics.Desc { return cgroupDescs.list() }

// Build implements [Builder].
func (c *CgroupConfig) Build(env Env) (Collector, error) {
	return &cgroup{
		want: c.Path, proc: strings.TrimRight(c.Proc, "/"), sys: strings.TrimRight(c.Sys, "/"),
		found: newFindings(cgroupDescs, env.Name), devices: map[string]string{},
	}, nil
}

type cgroup struct {
	want, proc, sys string
	files           files
	found           *findings
	devices         map[string]string // name by major:minor
}

// Collect implements [Collector].
func (c *cgroup) Collect(ctx context.Context) ([]metrics.Family, error) {
	paths, err := c.paths()
	if err != nil {
		return nil, err
	}
	mount := c.sys + "/fs/cgroup"
	if _, err := os.Stat(mount + "/cgroup.controllers"); err == nil {
		dir, err := c.place(mount, paths[""])
		if err != nil {
			return nil, err
		}
		err = c.readV2(dir)
		return c.found.take(), errors.Join(err, context.Cause(ctx))
	}
	err = c.readV1(mount, paths)
	fams := c.found.take()
	if err == nil && len(fams) == 0 {
		err = fmt.Errorf("read %s: got no control group %s, want one of version 2 or 1", mount, c.want)
	}
	return fams, errors.Join(err, context.Cause(ctx))
}

// paths returns the group's path by controller; that of version 2 has the name "".
func (c *cgroup) paths() (map[string]string, error) {
	if c.want != "" {
		return nil, nil
	}
	path := c.proc + "/self/cgroup"
	data, err := c.files.read(path)
	if err != nil {
		return nil, fmt.Errorf("read the agent's control group: %w", err)
	}
	paths, err := parseCgroups(data)
	return paths, unreadable(path, err)
}

// place is the folder of a group below a mount. In a container that sees only
// its own part of the tree, the path is the host's, and the group the mount's.
func (c *cgroup) place(mount, path string) (string, error) {
	if c.want != "" {
		path = c.want
	}
	dir := filepath.Join(mount, filepath.Clean("/"+path))
	if _, err := os.Stat(dir); err != nil {
		if c.want != "" {
			return "", fmt.Errorf("look for control group %s: %w", c.want, err)
		}
		return mount, nil
	}
	return dir, nil
}

// parseCgroups reads /proc/PID/cgroup: number:controllers:path.
func parseCgroups(data []byte) (map[string]string, error) {
	paths := map[string]string{}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		parts := strings.SplitN(strings.TrimRight(string(text), "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			return nil, malformed(line, bytes.TrimSpace(text), "a number, controllers and a path")
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			paths[controller] = parts[2]
		}
	}
	return paths, nil
}

// value adds what a file with one number says. One that says max has no limit.
func (c *cgroup) value(path, metric string) error {
	data, err := c.files.read(path)
	if err != nil {
		return unreadable(path, err)
	}
	n, limited, err := parseLimit(data)
	if err == nil && limited {
		c.found.add(metric, n)
	}
	return unreadable(path, err)
}

// noLimit is where version 1 has no limit: the largest number of whole pages.
const noLimit = 1 << 62

// parseLimit reads a number, or max for none.
func parseLimit(data []byte) (n float64, limited bool, err error) {
	text := bytes.TrimSpace(data)
	if string(text) == "max" {
		return 0, false, nil
	}
	n, ok := number(text)
	if !ok {
		return 0, false, malformed(1, text, "a whole number or max")
	}
	return n, n < noLimit, nil
}

// lines adds the lines of a file that picks names.
func (c *cgroup) lines(path string, picks map[string]pick) error {
	data, err := c.files.read(path)
	if err != nil {
		return unreadable(path, err)
	}
	return addPicks(c.found, path, data, picks)
}

// device returns the name of a block device, as far as it is known.
func (c *cgroup) device(number string) string {
	if name, ok := c.devices[number]; ok {
		return name
	}
	name := number
	if target, err := os.Readlink(c.sys + "/dev/block/" + number); err == nil {
		name = filepath.Base(target)
	}
	if len(c.devices) >= maxHostItems {
		clear(c.devices)
	}
	c.devices[strings.Clone(number)] = name
	return name
}
