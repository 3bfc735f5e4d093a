package collectors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// ProcessConfig describes one process, or several that are measured as one. It
// takes exactly one of PID, PIDFile, Name and Unit. That none runs is no error:
// outrider_process_running is 0 then.
type ProcessConfig struct {
	PID     int         `yaml:"pid"`
	PIDFile config.Path `yaml:"pidfile"`
	// Name is the kernel's name of the process, as ps -o comm shows it. One of
	// more than 15 characters is compared with the program's file too.
	Name string `yaml:"name"`
	Unit string `yaml:"unit"` // systemd's; without a suffix, a service
	Proc string `yaml:"proc" default:"/proc"`
}

// Validate is asked when the configuration is read.
func (c *ProcessConfig) Validate() error {
	var given []string
	for _, f := range []struct {
		key string
		is  bool
	}{{"pid", c.PID != 0}, {"pidfile", c.PIDFile != ""}, {"name", c.Name != ""}, {"unit", c.Unit != ""}} {
		if f.is {
			given = append(given, f.key)
		}
	}
	switch {
	case len(given) != 1:
		got := strings.Join(given, " and ")
		if got == "" {
			got = "none of them"
		}
		return &config.FieldError{Got: got, Want: "exactly one of pid, pidfile, name, unit"}
	case c.PID < 0:
		return &config.FieldError{Key: "pid", Got: strconv.Itoa(c.PID), Want: "1 or more"}
	case strings.Contains(c.Name, "/"):
		return &config.FieldError{Key: "name", Got: c.Name, Want: "a name without its folder"}
	case strings.Contains(c.Unit, "/"):
		return &config.FieldError{Key: "unit", Got: c.Unit, Want: "a unit such as payments.service"}
	}
	return nil
}

// processDescs describes what the kind process gives. Read-only.
var processDescs = describe("process", []string{"process"}, []described{
	{"running", metrics.GaugeType, "processes", "Processes that were found.", 100, nil},
	{"starts_total", metrics.CounterType, "processes", "Processes that were found after the first look.", 100, nil},
	{"states", metrics.GaugeType, "processes", "Processes by their state.", 700, []string{"state"}},
	{"cpu_seconds_total", metrics.CounterType, "seconds", "Time that the processes spent on CPUs.", 200, []string{"mode"}},
	{"resident_memory_bytes", metrics.GaugeType, "bytes", "Memory of the processes, what they share counted for each.", 100, nil},
	{"virtual_memory_bytes", metrics.GaugeType, "bytes", "Addresses that the processes have mapped.", 100, nil},
	{"swapped_memory_bytes", metrics.GaugeType, "bytes", "Memory of the processes that is swapped out.", 100, nil},
	{"page_faults_total", metrics.CounterType, "faults", "Page faults, minor ones and those that waited for a disk.", 200, []string{"type"}},
	{"threads", metrics.GaugeType, "threads", "Threads of the processes.", 100, nil},
	{"open_files", metrics.GaugeType, "files", "File descriptors that the processes have open.", 100, nil},
	{"open_files_limit", metrics.GaugeType, "files", "File descriptors that one process may have open; of several, the lowest.", 100, nil},
	{"open_files_ratio", metrics.GaugeType, "ratio", "Part of its limit on file descriptors that a process uses; of several, the highest.", 100, nil},
	{"oldest_start_time_seconds", metrics.GaugeType, "seconds", "When the oldest of the processes began, in seconds since 1970.", 100, nil},
	{"newest_start_time_seconds", metrics.GaugeType, "seconds", "When the youngest of the processes began, in seconds since 1970.", 100, nil},
	{"io_bytes_total", metrics.CounterType, "bytes", "Bytes that the processes caused to be read from disks and written to them.", 200, []string{"direction"}},
	{"io_calls_total", metrics.CounterType, "calls", "System calls with which the processes read and wrote.", 200, []string{"direction"}},
	{"context_switches_total", metrics.CounterType, "switches", "Times that a process gave up its CPU, or was made to; only its first thread counts.", 200, []string{"type"}},
})

// Descs are the metrics that the kind can give.
func (c *ProcessConfig) Descs() []metrics.Desc { return processDescs.list() }

// Build implements [Builder].
func (c *ProcessConfig) Build(env Env) (Collector, error) {
	fs, err := procfs.NewFS(c.Proc)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's files: %w", err)
	}
	unit := c.Unit
	if unit != "" && !strings.Contains(unit, ".") {
		unit += ".service"
	}
	return &process{
		finder: processFinder{proc: strings.TrimRight(c.Proc, "/"), pid: c.PID, pidfile: string(c.PIDFile), name: c.Name, unit: unit},
		procfs: fs, log: env.Log, found: newFindings(processDescs, env.Name),
	}, nil
}

// Counters of a process, each of which only grows as long as it lives.
const (
	userTime = iota // seconds
	systemTime
	minorFaults
	majorFaults
	readBytes
	writtenBytes
	readCalls
	writeCalls
	voluntary
	involuntary
	processCounters // how many
)

type processCounts [processCounters]float64

// A processID is one process for ever: the kernel uses a PID again.
type processID struct {
	pid     int
	started uint64 // ticks since boot
}

// process measures what its finder finds.
//
// Its counters are sums over processes that come and go, and yet only grow: what
// a process counted stays when it is gone, and of a new one all is added, since
// it did all of that while it was one of them.
type process struct {
	finder processFinder
	procfs procfs.FS
	log    *slog.Logger
	found  *findings

	boot   float64 // when the host was started, in seconds since 1970; 0: not known yet
	looked bool    // once at least
	total  processCounts
	starts float64
	last   map[processID]processCounts
	told   bool // that the kernel does not let us see everything
}

// Collect implements [Collector].
func (p *process) Collect(ctx context.Context) ([]metrics.Family, error) {
	pids, err := p.finder.find(ctx)
	if err != nil && len(pids) == 0 {
		return nil, err
	}
	errs := []error{err}
	if p.boot == 0 {
		if s, err := parsed(p.procfs.Stat); err == nil {
			p.boot = float64(s.BootTime)
		}
	}
	sum := newProcessSum()
	now := make(map[processID]processCounts, len(pids))
	for _, pid := range pids {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("read process %d, one of %d: %w", pid, len(pids), err) // a part of them is no sum
		}
		one, err := p.read(pid)
		switch {
		case vanished(err):
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		}
		before, known := p.last[one.id]
		if !known && p.looked {
			p.starts++
		}
		if !one.seenIO { // as if unchanged
			copy(one.counts[readBytes:], before[readBytes:writeCalls+1])
		}
		for i := range one.counts {
			p.total[i] += max(0, one.counts[i]-before[i])
		}
		now[one.id] = one.counts
		sum.add(one)
	}
	p.last, p.looked = now, true
	p.addAll(sum)
	return p.found.take(), errors.Join(errs...)
}

func (p *process) addAll(sum *processSum) {
	f, t := p.found, p.total
	f.add("running", float64(sum.count))
	f.add("starts_total", p.starts)
	f.add("cpu_seconds_total", t[userTime], "user")
	f.add("cpu_seconds_total", t[systemTime], "system")
	f.add("page_faults_total", t[minorFaults], "minor")
	f.add("page_faults_total", t[majorFaults], "major")
	f.add("context_switches_total", t[voluntary], "voluntary")
	f.add("context_switches_total", t[involuntary], "involuntary")
	if !sum.hidden[hiddenIO] {
		f.add("io_bytes_total", t[readBytes], "read")
		f.add("io_bytes_total", t[writtenBytes], "write")
		f.add("io_calls_total", t[readCalls], "read")
		f.add("io_calls_total", t[writeCalls], "write")
	}
	for i, name := range processStateNames {
		f.add("states", float64(sum.states[i]), name)
	}
	f.add("resident_memory_bytes", sum.resident)
	f.add("virtual_memory_bytes", sum.virtual)
	f.add("swapped_memory_bytes", sum.swapped)
	f.add("threads", float64(sum.threads))
	if sum.count == 0 {
		return
	}
	if !sum.hidden[hiddenFiles] {
		f.add("open_files", float64(sum.files))
		if !math.IsInf(sum.limit, 1) {
			f.add("open_files_limit", sum.limit)
			f.add("open_files_ratio", sum.ratio)
		}
	}
	if p.boot > 0 {
		f.add("oldest_start_time_seconds", p.boot+float64(sum.oldest)/userHz)
		f.add("newest_start_time_seconds", p.boot+float64(sum.newest)/userHz)
	}
	if sum.hidden != (hiddenThings{}) && !p.told {
		p.told = true
		p.log.Warn("the kernel hides part of the process: its metrics are left out; run as the same user, or as root",
			"io", sum.hidden[hiddenIO], "open_files", sum.hidden[hiddenFiles])
	}
}

// processSum is what the processes have now, added up.
type processSum struct {
	count, threads, files      int
	states                     [len(processStateNames)]int
	resident, virtual, swapped float64
	limit, ratio               float64
	oldest, newest             uint64
	hidden                     hiddenThings
}

func newProcessSum() *processSum {
	return &processSum{limit: math.Inf(1), oldest: math.MaxUint64}
}

func (s *processSum) add(one oneProcess) {
	s.count++
	s.threads += one.threads
	s.files += one.files
	s.states[one.state]++
	s.resident += one.resident
	s.virtual += one.virtual
	s.swapped += one.swapped
	s.limit = min(s.limit, one.limit)
	s.ratio = max(s.ratio, float64(one.files)/one.limit)
	s.oldest, s.newest = min(s.oldest, one.id.started), max(s.newest, one.id.started)
	for i, h := range one.hidden {
		s.hidden[i] = s.hidden[i] || h
	}
}

// forbidden reports whether an error says that the kernel hides something of a
// process that is not ours.
func forbidden(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}
