package checks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// fakeProc is a folder such as /proc, of a machine that was started at 1,000,000.
func fakeProc(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("stat", "cpu  1 2 3 4 5 6 7 8 9 10\nbtime 1000000\n")
	for _, p := range []struct {
		pid               int
		comm, args, state string
		begun             int // seconds after the start
		cgroup            string
	}{
		{1, "init", "/sbin/init", "S", 0, "/init.scope"},
		{20, "worker", "/usr/bin/worker\x00-n", "S", 100, "/system.slice/pay.service"},
		{21, "worker", "/usr/bin/worker\x00-n", "R", 900, "/system.slice/pay.service/sub"},
		{22, "worker", "/usr/bin/worker\x00-n", "Z", 900, "/system.slice/pay.service"},
		{30, "a-very-long-nam", "/opt/a-very-long-name-of-one", "S", 5, "/system.slice/other.service"},
		{31, "a-very-long-nam", "/opt/a-very-long-name-of-two", "S", 5, "/system.slice/pay.service.d"},
		{32, "other", "/opt/a-very-long-name-of-one", "S", 5, "/system.slice/x.service"},
	} {
		at := fmt.Sprintf("%d/", p.pid)
		write(at+"comm", p.comm+"\n")
		write(at+"cmdline", p.args+"\x00")
		write(at+"cgroup", "0::"+p.cgroup+"\n")
		write(at+"stat", fmt.Sprintf("%d (%s) %s 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 %d 1000 10 18446744073709551615"+strings.Repeat(" 0", 27)+"\n", p.pid, p.comm, p.state, 100*p.begun))
	}
	write("run/good.pid", " 21\nmore\n")
	write("run/zombie.pid", "22")
	write("run/gone.pid", "99\n")
	write("run/empty.pid", "")
	write("run/bad.pid", "twenty\n")
	return dir
}

func TestProcess(t *testing.T) {
	t.Parallel()
	proc := fakeProc(t)
	now := func() time.Time { return time.Unix(1_001_000, 0) }
	const pass, warn, fail, unknown = verdict.Pass, verdict.Warn, verdict.Fail, verdict.Unknown
	tests := []struct {
		name, config string
		status       verdict.Status
		message      string
	}{
		{"those that run pass, without the zombie", `name: worker`, pass, "process worker: 2 running, the youngest for 1m40s"},
		{"none fails", `name: absent`, fail, "process absent: 0 running, want 1:"},
		{"a limit is the user's", `name: worker, warn: "3:", crit: "1:"`, warn, "2 running, want 3:"},
		{"too many fail", `name: worker, crit: "1:1"`, fail, "2 running, want 1:1"},
		{"none may be wanted", `name: absent, crit: "0:0"`, pass, "process absent: 0 running"},
		{"a long name is compared with the program", `name: a-very-long-name-of-one`, pass, "1 running"},
		{"a unit is found with its groups", `unit: pay`, pass, "process of pay.service: 2 running"},
		{"a unit that is not there fails", `unit: pay.timer`, fail, "process of pay.timer: 0 running"},
		{"the process of a pidfile passes", `pidfile: PROC/run/good.pid`, pass, "good.pid: 1 running"},
		{"a zombie of a pidfile fails", `pidfile: PROC/run/zombie.pid`, fail, "0 running, want 1:"},
		{"one that is gone fails", `pidfile: PROC/run/gone.pid`, fail, "0 running, want 1:"},
		{"an empty pidfile fails", `pidfile: PROC/run/empty.pid`, fail, "0 running"},
		{"no pidfile fails", `pidfile: PROC/run/none.pid`, fail, "0 running"},
		{"a pidfile of something else is unknown", `pidfile: PROC/run/bad.pid`, unknown, `bad.pid: got "twenty" in its first line, want a PID`},
		{"a young one fails", `name: worker, age: {warn: "1000:", crit: "300:"}`, fail, "2 running, one for 1m40s, want 300: s"},
		{"an old one warns", `name: worker, age: {warn: "0:800"}`, warn, "2 running, one for 15m0s, want 800 s"},
		{"no proc is unknown", `name: worker, proc: /nowhere`, unknown, "read /nowhere: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "{" + strings.ReplaceAll(tt.config, "PROC", proc)
			if !strings.Contains(text, "proc:") {
				text += ", proc: " + proc
			}
			wantResult(t, ask(t, checker[ProcessConfig](t, text+"}", now)), tt.status, tt.message)
		})
	}
}

func TestProcessOfThisMachine(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip(err)
	}
	pidfile := filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(pidfile, fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	wantResult(t, ask(t, checker[ProcessConfig](t, "{pidfile: "+pidfile+`, age: {crit: "0:86400"}}`, nil)), verdict.Pass, "1 running, the youngest for ")
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	wantResult(t, ask(t, checker[ProcessConfig](t, "{name: '"+strings.TrimSpace(string(name))+"'}", nil)), verdict.Pass, " running")
}

func TestProcessConfigIsStrict(t *testing.T) {
	t.Parallel()
	wantMistakes[ProcessConfig](t, map[string]string{
		`{}`:                 "check: got none of them, want exactly one of pidfile, name, unit",
		`{name: a, unit: b}`: "check: got name and unit, want exactly one",
		`{name: /bin/a}`:     "check.name: got /bin/a, want a name without its folder",
		`{unit: a/b}`:        "check.unit: got a/b",
	})
}
