package collectors

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// readCPU reads what /proc/stat counts. It is the one file that every kernel
// has: without it there is no proc at this place.
func (h *host) readCPU() error {
	path := h.path("stat")
	s, err := parsed(h.procfs.Stat)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(s.CPU) == 0 || s.BootTime == 0 {
		return fmt.Errorf("read %s: got no cpu0 or no btime, want the kernel's counters", path)
	}
	c := s.CPUTotal
	for _, m := range []struct {
		mode    string
		seconds float64
	}{
		{"user", c.User},
		{"nice", c.Nice},
		{"system", c.System},
		{"idle", c.Idle},
		{"iowait", c.Iowait},
		{"irq", c.IRQ},
		{"softirq", c.SoftIRQ},
		{"steal", c.Steal},
	} {
		h.found.add("cpu_seconds_total", m.seconds, m.mode)
	}
	h.found.add("cpu_guest_seconds_total", c.Guest, "user")
	h.found.add("cpu_guest_seconds_total", c.GuestNice, "nice")
	h.found.add("cpus", float64(len(s.CPU)))
	h.found.add("context_switches_total", float64(s.ContextSwitches))
	h.found.add("forks_total", float64(s.ProcessCreated))
	h.found.add("interrupts_total", float64(s.IRQTotal))
	h.found.add("tasks", float64(s.ProcessesRunning), "running")
	h.found.add("tasks", float64(s.ProcessesBlocked), "blocked")
	h.found.add("boot_time_seconds", float64(s.BootTime))
	if s.SoftIRQTotal == 0 {
		return nil
	}
	for _, m := range []struct {
		kind string
		n    uint64
	}{
		{"hi", s.SoftIRQ.Hi},
		{"timer", s.SoftIRQ.Timer},
		{"net_tx", s.SoftIRQ.NetTx},
		{"net_rx", s.SoftIRQ.NetRx},
		{"block", s.SoftIRQ.Block},
		{"irq_poll", s.SoftIRQ.BlockIoPoll},
		{"tasklet", s.SoftIRQ.Tasklet},
		{"sched", s.SoftIRQ.Sched},
		{"hrtimer", s.SoftIRQ.Hrtimer},
		{"rcu", s.SoftIRQ.Rcu},
	} {
		h.found.add("softirqs_total", float64(m.n), m.kind)
	}
	return nil
}

// readKernel reads the small figures: load, uptime, entropy, open files.
func (h *host) readKernel() error {
	var errs []error
	if load, err := parsed(h.procfs.LoadAvg); err != nil {
		errs = append(errs, unreadable(h.path("loadavg"), err))
	} else {
		h.found.add("load", load.Load1, "1m")
		h.found.add("load", load.Load5, "5m")
		h.found.add("load", load.Load15, "15m")
	}

	path := h.path("uptime")
	data, err := h.files.read(path)
	if err == nil {
		var up float64
		if up, err = parseUptime(data); err == nil {
			h.found.add("uptime_seconds", up)
		}
	}
	errs = append(errs, unreadable(path, err))

	// The library reads five files for this one, and on Linux only.
	if entropy, err := h.sysctl("kernel/random/entropy_avail", 1); err != nil {
		errs = append(errs, unreadable(h.path("sys/kernel/random/entropy_avail"), err))
	} else {
		h.found.add("entropy", float64(entropy[0]))
	}

	path = h.path("sys/fs/file-nr")
	if files, err := h.sysctl("fs/file-nr", 3); err != nil {
		errs = append(errs, unreadable(path, err))
	} else {
		h.found.add("file_handles", float64(files[0]))
		h.found.add("file_handles_limit", float64(files[2]))
	}
	return errors.Join(errs...)
}

// sysctl reads a file of so many numbers below /proc/sys.
func (h *host) sysctl(name string, count int) ([]int, error) {
	n, err := parsed(func() ([]int, error) { return h.procfs.SysctlInts(name) })
	if err == nil && len(n) != count {
		err = fmt.Errorf("got %d numbers, want %d", len(n), count)
	}
	return n, err
}

// parseUptime reads /proc/uptime: seconds since the start, and idle ones.
func parseUptime(data []byte) (float64, error) {
	field, _ := cutField(data)
	up, err := strconv.ParseFloat(string(field), 64)
	if err != nil || !(up >= 0 && up < 1e12) {
		return 0, malformed(1, bytes.TrimSpace(data), "the seconds since the start")
	}
	return up, nil
}

func (h *host) readMemory() error {
	path := h.path("meminfo")
	m, err := parsed(h.procfs.Meminfo)
	if err != nil {
		return unreadable(path, err)
	}
	for _, f := range []struct {
		metric string
		value  *uint64
		tags   []string
	}{
		{"memory_total_bytes", m.MemTotalBytes, nil},
		{"memory_free_bytes", m.MemFreeBytes, nil},
		{"memory_available_bytes", m.MemAvailableBytes, nil},
		{"memory_used_bytes", m.BuffersBytes, []string{"buffers"}},
		{"memory_used_bytes", m.CachedBytes, []string{"cached"}},
		{"memory_used_bytes", m.AnonPagesBytes, []string{"anonymous"}},
		{"memory_used_bytes", m.MappedBytes, []string{"mapped"}},
		{"memory_used_bytes", m.ShmemBytes, []string{"shared"}},
		{"memory_used_bytes", m.DirtyBytes, []string{"dirty"}},
		{"memory_used_bytes", m.WritebackBytes, []string{"writeback"}},
		{"memory_used_bytes", m.SReclaimableBytes, []string{"slab_reclaimable"}},
		{"memory_used_bytes", m.SUnreclaimBytes, []string{"slab_unreclaimable"}},
		{"memory_used_bytes", m.KernelStackBytes, []string{"kernel_stack"}},
		{"memory_used_bytes", m.PageTablesBytes, []string{"page_tables"}},
		{"memory_used_bytes", m.PercpuBytes, []string{"percpu"}},
		{"memory_used_bytes", m.MlockedBytes, []string{"locked"}},
		{"memory_used_bytes", m.SwapCachedBytes, []string{"swap_cached"}},
		{"memory_used_bytes", m.AnonHugePagesBytes, []string{"anonymous_huge"}},
		{"memory_committed_bytes", m.CommittedASBytes, nil},
		{"memory_commit_limit_bytes", m.CommitLimitBytes, nil},
		{"swap_total_bytes", m.SwapTotalBytes, nil},
		{"swap_free_bytes", m.SwapFreeBytes, nil},
		{"huge_pages", m.HugePagesTotal, []string{"total"}},
		{"huge_pages", m.HugePagesFree, []string{"free"}},
	} {
		if f.value != nil {
			h.found.add(f.metric, float64(*f.value), f.tags...)
		}
	}
	if m.MemTotalBytes == nil {
		return fmt.Errorf("read %s: got no MemTotal, want the kernel's account of memory", path)
	}
	return nil
}

// readPaging reads /proc/vmstat.
func (h *host) readPaging() error {
	path := h.path("vmstat")
	data, err := h.files.read(path)
	if err != nil {
		return unreadable(path, err)
	}
	at := map[string]float64{}
	var stalls float64
	stalled := false
	err = parsePairs(data, func(name []byte, value float64) {
		if bytes.HasPrefix(name, []byte("allocstall")) { // one a zone, or one for all
			stalls, stalled = stalls+value, true
		} else if _, want := vmstatPicks[string(name)]; want || string(name) == "pgfault" || string(name) == "pgmajfault" {
			at[string(name)] = value
		}
	})
	if err != nil {
		return unreadable(path, err)
	}
	for name, value := range at {
		if p, ok := vmstatPicks[name]; ok {
			h.found.add(p.metric, p.of(value), p.tags...)
		}
	}
	all, told := at["pgfault"]
	if major, ok := at["pgmajfault"]; ok && told {
		h.found.add("page_faults_total", major, "major")
		h.found.add("page_faults_total", max(0, all-major), "minor")
	}
	if stalled {
		h.found.add("allocation_stalls_total", stalls)
	}
	return nil
}

// vmstatPicks are the lines of /proc/vmstat that are metrics as they are. The
// kernel counts what it pages in KiB, and what it swaps in pages. Read-only.
var vmstatPicks = map[string]pick{
	"pgpgin":         {"paged_bytes_total", []string{"in"}, 1024},
	"pgpgout":        {"paged_bytes_total", []string{"out"}, 1024},
	"pswpin":         {"swapped_bytes_total", []string{"in"}, float64(os.Getpagesize())},
	"pswpout":        {"swapped_bytes_total", []string{"out"}, float64(os.Getpagesize())},
	"pgscan_kswapd":  {"page_scans_total", []string{"kswapd"}, 0},
	"pgscan_direct":  {"page_scans_total", []string{"direct"}, 0},
	"pgsteal_kswapd": {"page_reclaims_total", []string{"kswapd"}, 0},
	"pgsteal_direct": {"page_reclaims_total", []string{"direct"}, 0},
	"oom_kill":       {"oom_kills_total", nil, 0},
}

// readPressure reads /proc/pressure, which a kernel may have switched off.
func (h *host) readPressure() error {
	var errs []error
	for _, resource := range []string{"cpu", "io", "memory", "irq"} {
		path := h.path("pressure/" + resource)
		data, err := h.files.read(path)
		if err == nil {
			var p pressure
			if p, err = parsePressure(data); err == nil {
				p.add(h.found, resource)
			}
		}
		errs = append(errs, unreadable(path, err))
	}
	return errors.Join(errs...)
}
