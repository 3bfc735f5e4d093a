package checks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// ProcessConfig describes processes that must run. It takes exactly one of PIDFile,
// Name and Unit. A process that ended and that nobody waited for does not count.
type ProcessConfig struct {
	PIDFile config.Path `yaml:"pidfile"`
	// Name is the kernel's name of the process, as ps -o comm shows it. One of
	// more than 15 characters is compared with the program's file.
	Name string `yaml:"name"`
	Unit string `yaml:"unit"` // systemd's; without a suffix, a service
	Proc string `yaml:"proc" default:"/proc"`

	Limits // of how many run; default crit "1:"

	// Age limits how long each has run, in seconds: crit "60:" fails while one is
	// younger than a minute.
	Age Limits `yaml:"age"`
}

// Validate is asked when the configuration is read.
func (c *ProcessConfig) Validate() error {
	var given []string
	for _, f := range []struct {
		key string
		is  bool
	}{{"pidfile", c.PIDFile != ""}, {"name", c.Name != ""}, {"unit", c.Unit != ""}} {
		if f.is {
			given = append(given, f.key)
		}
	}
	switch {
	case len(given) != 1:
		return &config.FieldError{Got: cmp.Or(strings.Join(given, " and "), "none of them"), Want: "exactly one of pidfile, name, unit"}
	case strings.Contains(c.Name, "/"):
		return &config.FieldError{Key: "name", Got: snippet(c.Name, 100), Want: "a name without its folder"}
	case strings.Contains(c.Unit, "/"):
		return &config.FieldError{Key: "unit", Got: snippet(c.Unit, 100), Want: "a unit such as payments.service"}
	}
	return nil
}

// Build implements [Builder].
func (c *ProcessConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &processCheck{ProcessConfig: c, count: c.Limits, now: env.Now, what: "process " + c.Name}
	if !p.count.given() {
		var err error
		if p.count, err = parseLimits("", "1:"); err != nil {
			return nil, err
		}
	}
	switch {
	case c.PIDFile != "":
		p.what = "process of " + string(c.PIDFile)
	case c.Unit != "":
		p.unit = c.Unit
		if !strings.Contains(p.unit, ".") {
			p.unit += ".service"
		}
		p.what = "process of " + p.unit
	}
	return p, nil
}

// A processCheck looks for processes.
type processCheck struct {
	*ProcessConfig
	what, unit string
	count      Limits
	now        func() time.Time
}

// Check implements [Checker].
func (p *processCheck) Check(ctx context.Context) verdict.Result {
	proc, err := procfs.NewFS(p.Proc)
	if err != nil {
		return verdict.Result{Status: verdict.Unknown, Message: "read " + p.Proc + ": " + err.Error()}
	}
	ages, err := p.find(ctx, proc)
	if err != nil {
		return verdict.Result{Status: verdict.Unknown, Message: p.what + ": " + err.Error()}
	}
	n := float64(len(ages))
	r := verdict.Result{
		Message: fmt.Sprintf("%s: %d running", p.what, len(ages)), Value: &n, Unit: "processes",
		Measures: []verdict.Measure{p.count.measure("processes", n, "")},
	}
	var want string
	if r.Status, want = p.count.judge(n); want != "" {
		r.Message += ", want " + want
	}
	slices.Sort(ages)
	for i, age := range ages {
		if i == 0 {
			r.Measures = append(r.Measures, p.Age.measure("age", math.Floor(age.Seconds()), "s"))
			r.Message += ", the youngest for " + showTime(age)
		}
		if status, want := p.Age.judge(age.Seconds()); verdict.Compare(status, r.Status) > 0 {
			r.Status = status
			r.Message = fmt.Sprintf("%s: %d running, one for %s, want %s s", p.what, len(ages), showTime(age), want)
		}
	}
	return r
}

// find returns how long each process that is meant has run.
func (p *processCheck) find(ctx context.Context, proc procfs.FS) ([]time.Duration, error) {
	procs, err := p.candidates(proc)
	if err != nil {
		return nil, err
	}
	boot, err := proc.Stat()
	if err != nil {
		return nil, err
	}
	const ticks = 100 // USER_HZ, on every platform that Go runs on
	var ages []time.Duration
	for i, one := range procs {
		if i%64 == 0 && ctx.Err() != nil {
			return nil, fmt.Errorf("look at processes: %w", ctx.Err())
		}
		meant, err := p.meant(one)
		if gone(err) || err == nil && !meant {
			continue
		}
		if err != nil {
			return nil, err
		}
		stat, err := one.Stat()
		switch {
		case gone(err) || err == nil && (stat.State == "Z" || stat.State == "X"):
			continue
		case err != nil:
			return nil, err
		}
		begun := float64(boot.BootTime) + float64(stat.Starttime)/ticks
		ages = append(ages, max(0, time.Duration((float64(p.now().UnixMilli())/1e3-begun)*float64(time.Second))))
	}
	return ages, nil
}

// candidates are all processes, or the one that a daemon wrote down. Without the
// file it does not run.
func (p *processCheck) candidates(proc procfs.FS) (procfs.Procs, error) {
	if p.PIDFile == "" {
		return proc.AllProcs()
	}
	text, err := readSmallFile(p.PIDFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	first, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	if len(first) == 0 {
		return nil, nil // as there is for a moment when a daemon begins
	}
	pid, err := strconv.ParseUint(string(bytes.TrimSpace(first)), 10, 31)
	if err != nil || pid == 0 {
		return nil, fmt.Errorf("got %q in its first line, want a PID", snippet(string(first), 40))
	}
	one, err := proc.Proc(int(pid))
	if gone(err) {
		return nil, nil
	}
	return procfs.Procs{one}, err
}

// meant reports whether a process is one that is looked for.
func (p *processCheck) meant(one procfs.Proc) (bool, error) {
	if p.PIDFile != "" {
		return true, nil
	}
	if p.unit != "" {
		groups, err := one.Cgroups()
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(groups, func(g procfs.Cgroup) bool {
			return slices.Contains(strings.Split(g.Path, "/"), p.unit)
		}), nil
	}
	const commLength = 15 // what the kernel keeps of a name: TASK_COMM_LEN, without the zero
	comm, err := one.Comm()
	if err != nil || len(p.Name) <= commLength || comm != p.Name[:commLength] {
		return comm == p.Name, err
	}
	args, err := one.CmdLine()
	return err == nil && len(args) > 0 && filepath.Base(args[0]) == p.Name, err
}

// gone tells whether a process ended while it was looked at, or is hidden by the
// mount option hidepid.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, fs.ErrPermission)
}
