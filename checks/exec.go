package checks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// ExecConfig describes a program that answers as a Nagios plugin does: with its exit
// code, a line of text, and performance data.
type ExecConfig struct {
	// Command is the program and its arguments; no shell reads them. A program
	// without a folder is looked for in PATH, then where Debian and Fedora put
	// Nagios' plugins.
	Command []string `yaml:"command" required:"true"`

	// Env is the program's environment, beside PATH and LANG=C: it gets no other
	// variable of the agent's.
	Env map[string]config.Secret `yaml:"env"`

	Dir       config.Path  `yaml:"dir" default:"/"`            // the folder in which it runs
	MaxOutput config.Bytes `yaml:"max_output" default:"64KiB"` // what is kept of what it prints

	// Limits are of the figure in its performance data that is called Label; of
	// the first, if there is no Label. They can only make the verdict worse.
	Limits
	Label string `yaml:"label"`
}

const (
	minExecOutput = 1 << 10
	maxExecOutput = 16 << 20
)

// Validate is asked when the configuration is read.
func (c *ExecConfig) Validate() error {
	_, err := c.build()
	return err
}

// Build implements [Builder].
func (c *ExecConfig) Build(Env) (Checker, error) { return c.build() }

func (c *ExecConfig) build() (*execCheck, error) {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	e := &execCheck{ExecConfig: c, kill: killGroup}
	if len(c.Command) == 0 {
		wrong("command", "an empty list", "a program and its arguments")
	} else if path, why := findProgram(c.Command[0], filepath.SplitList(os.Getenv("PATH"))); why != "" {
		wrong("command[0]", snippet(c.Command[0], 200)+", which "+why, "a program that can be run")
	} else {
		e.path = path
	}
	for i, arg := range c.Command {
		if strings.Contains(arg, "\x00") {
			wrong(fmt.Sprintf("command[%d]", i), "a text with a zero byte", "one without")
		}
	}
	e.env = []string{"PATH=" + cmp.Or(os.Getenv("PATH"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), "LANG=C"}
	var hidden []string
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		value := c.Env[name].Text()
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			wrong("env", snippet(name, 100), "names without an equals sign, values without a zero byte")
		}
		e.env = append(e.env, name+"="+value)
		// Shorter ones are words such as "yes" that turn up everywhere.
		if len(value) >= 6 {
			hidden = append(hidden, value, config.Redacted)
		}
	}
	e.hide = strings.NewReplacer(hidden...)
	if info, err := os.Stat(cmp.Or(string(c.Dir), "/")); err != nil {
		wrong("dir", err.Error(), "a folder")
	} else if !info.IsDir() {
		wrong("dir", string(c.Dir)+", which is a file", "a folder")
	}
	if c.MaxOutput != 0 && (c.MaxOutput < minExecOutput || c.MaxOutput > maxExecOutput) {
		wrong("max_output", c.MaxOutput.String(), "1KiB to 16MiB")
	}
	if c.Label != "" && !c.given() {
		wrong("label", snippet(c.Label, 100)+" without warn and crit", "warn or crit too: it says what they are of")
	}
	return e, errors.Join(errs...)
}

// An execCheck runs a program.
type execCheck struct {
	*ExecConfig
	path string
	env  []string
	hide *strings.Replacer // of the environment's values
	kill func(group int)

	// left was killed and has not ended: it waits for a disk in the kernel, say. As
	// long as it is there no other is started, so there is one at most.
	left *running
}

// Check implements [Checker].
func (e *execCheck) Check(ctx context.Context) verdict.Result {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if e.left != nil && !closed(e.left.gone) {
		return verdict.Result{
			Status:  verdict.Fail,
			Message: fmt.Sprintf("%s: process %d of an earlier run, or a child of it, was killed and has not ended", e.path, e.left.pid),
		}
	}
	p, err := e.start()
	if err != nil {
		return e.notStarted(err)
	}
	killed := p.wait(ctx)
	if e.left = nil; !closed(p.gone) {
		e.left = p
	}
	_, said := p.output()
	switch {
	case killed && errors.Is(ctx.Err(), context.Canceled):
		// The agent stops: that says nothing about what the program would have said.
		return verdict.Result{Status: verdict.Unknown, Message: e.path + ": stopped"}
	case !closed(p.ended):
		what := fmt.Sprintf("%s: no end by the deadline, and process %d has not ended though it was killed", e.path, p.pid)
		return verdict.Result{Status: verdict.Fail, Message: e.message(what, said, "")}
	case killed:
		return verdict.Result{Status: verdict.Fail, Message: e.message(e.path+": no end by the deadline, killed", said, "")}
	case p.err != nil:
		return verdict.Result{Status: verdict.Unknown, Message: e.path + ": " + p.err.Error()}
	}
	return e.result(p)
}

// notStarted is a failure where another try would not help, as Nagios has it for
// 126 and 127; else unknown: no memory for another process says nothing about what
// the program would have said.
func (e *execCheck) notStarted(err error) verdict.Result {
	r := verdict.Result{Status: verdict.Fail, Message: e.path + ": " + err.Error()}
	switch why := notRunnable(e.path); {
	case why != "":
		r.Message = e.path + " " + why
	case errors.Is(err, fs.ErrNotExist):
		r.Message = e.path + " cannot be run: the program in its first line, or the folder to run in, is not there"
	case errors.Is(err, syscall.ENOEXEC):
		r.Message = e.path + " is neither a program nor a script that begins with #!"
	case !errors.Is(err, fs.ErrPermission):
		r.Status = verdict.Unknown
	}
	return r
}

// result reads what a program left that ended by itself.
func (e *execCheck) result(p *running) verdict.Result {
	o, said := p.output()
	r := verdict.Result{Measures: o.Perf}
	code, what := p.state.ExitCode(), ""
	var inBounds bool
	switch r.Status, inBounds = nagios.FromExitCode(code); {
	case p.signal() != "":
		what = "killed by a signal: " + p.signal()
	case code == 126:
		what = "exit code 126: what it calls is not executable"
	case code == 127:
		what = "exit code 127: what it calls was not found"
	case !inBounds:
		what = fmt.Sprintf("exit code %d, want 0 to 3", code)
	case said == "":
		what = fmt.Sprintf("exit code %d, and no text", code)
	}
	var notes []string
	if note := e.judge(&r); note != "" {
		notes = append(notes, note)
	}
	if o.BadCount > 0 {
		notes = append(notes, fmt.Sprintf("%d errors in performance data: %s", o.BadCount, snippet(e.hide.Replace(o.Bad[0].Error()), 150)))
	}
	if p.out.err != nil {
		notes = append(notes, "output not read to its end: "+p.out.err.Error())
	}
	if p.out.dropped > 0 {
		notes = append(notes, fmt.Sprintf("%d bytes of output beyond %s thrown away", p.out.dropped, e.maxOutput()))
	}
	r.Message = e.message(what, said, strings.Join(notes, "; "))
	return r
}

// judge holds a figure to the limits, and makes it the result's value.
func (e *execCheck) judge(r *verdict.Result) (note string) {
	i := slices.IndexFunc(r.Measures, func(m verdict.Measure) bool { return e.Label == "" || m.Label == e.Label })
	if i >= 0 && !math.IsNaN(r.Measures[i].Value) {
		m := r.Measures[i]
		value := m.Value
		r.Value, r.Unit = inBaseUnit(value, m.Unit)
		status, want := e.Limits.judge(value)
		r.Status = verdict.Worse(r.Status, status)
		if want != "" {
			note = fmt.Sprintf("%s is %s%s, want %s", snippet(m.Label, 60), figure(value), m.Unit, want)
		}
		return note
	}
	if !e.given() {
		return ""
	}
	r.Status = verdict.Worse(r.Status, verdict.Unknown)
	return "no figure " + snippet(cmp.Or(e.Label, "at all"), 60) + " in the performance data for warn and crit"
}

// inBaseUnit is a figure in the unit that other checks have too. Plugins do not
// agree on what a KB is.
func inBaseUnit(v float64, unit string) (*float64, string) {
	switch unit {
	case "s":
		unit = "seconds"
	case "ms":
		v, unit = v/1e3, "seconds"
	case "us":
		v, unit = v/1e6, "seconds"
	case "B":
		unit = "bytes"
	}
	return &v, unit
}

// message puts together what happened, what the program said and what is to be
// said about that; of these the program's text is cut.
func (e *execCheck) message(what, said, note string) string {
	if note != "" {
		note = " (" + note + ")"
	}
	if what != "" && said != "" {
		what += ": "
	}
	room := max(40, verdict.MaxMessage-len(what)-len(note))
	return what + snippet(e.hide.Replace(said), room) + note
}

func (e *execCheck) maxOutput() config.Bytes { return cmp.Or(e.MaxOutput, 64<<10) }
