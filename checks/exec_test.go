package checks

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// shell is a check that runs a script, with further keys.
func shell(t *testing.T, script, more string) *execCheck {
	t.Helper()
	c, err := configure[ExecConfig](t, `{command: [sh, -c, "`+strings.ReplaceAll(script, "$", "$$")+`"]`+more+`}`)
	if err != nil {
		t.Fatal(err)
	}
	made, err := c.Build(Env{Name: "shell"})
	if err != nil {
		t.Fatal(err)
	}
	return made.(*execCheck)
}

func TestExecAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script, more string
		status             verdict.Status
		message            string
	}{
		{"ok", "echo fine", "", verdict.Pass, "fine"},
		{"warning", "echo hm; exit 1", "", verdict.Warn, "hm"},
		{"critical", "echo bad; exit 2", "", verdict.Fail, "bad"},
		{"unknown", "echo what; exit 3", "", verdict.Unknown, "what"},
		{"no text", "exit 2", "", verdict.Fail, "exit code 2, and no text"},
		{"out of bounds", "echo x; exit 4", "", verdict.Fail, "exit code 4, want 0 to 3: x"},
		{"no exit code of a plugin", "exit 255", "", verdict.Fail, "exit code 255, want 0 to 3"},
		{"what it calls is not executable", "/dev/null", "", verdict.Fail, "exit code 126: what it calls is not executable: sh: 1: /dev/null: Permission denied"},
		{"what it calls is missing", "nosuchthing 2>&-", "", verdict.Fail, "exit code 127: what it calls was not found"},
		{"a signal", "echo x; kill -TERM $$", "", verdict.Fail, "killed by a signal: terminated: x"},
		{"killed, but not by us", "kill -KILL $$", "", verdict.Fail, "killed by a signal: killed"},
		{"standard error, as there is nothing else", "echo; echo oops >&2; echo more >&2; exit 3", "", verdict.Unknown, "oops"},
		{"standard error is not needed", "echo oops >&2; echo fine", "", verdict.Pass, "fine"},
		{"one line is shown", "echo fine; echo more", "", verdict.Pass, "fine"},
		{"what is not printable", `printf 'a\\033[31mb\\000 \\tc'`, "", verdict.Pass, "a [31mb c"},
		{"a password in an address", "echo cannot reach redis://me:secret@db:6379", "", verdict.Pass, "cannot reach redis://<redacted>@db:6379"},
		{"it reads nothing", "cat; echo fine", "", verdict.Pass, "fine"},
		{"it leaves a child", "sleep 60 & echo fine", "", verdict.Pass, "fine"},
		{
			"the environment", "echo $LANG $GREETING ${HOME-none} ${PATH:+path} $TOKEN", ", env: {GREETING: hi, TOKEN: s3cret-token}",
			verdict.Pass, "C hi none path <redacted>",
		},
		{"the folder", "pwd", "", verdict.Pass, "/"},
		{"another folder", "pwd", ", dir: /usr", verdict.Pass, "/usr"},
		{
			"too much", "head -c 100000 /dev/zero | tr '\\\\0' x; exit 1", ", max_output: 2KiB",
			verdict.Warn, strings.Repeat("x", 461) + "... (97952 bytes of output beyond 2KiB thrown away)",
		},
		{
			"bad performance data", "echo 'fine | a=1 b=x c=3'", "",
			verdict.Pass, `fine (1 errors in performance data: performance data of "b": value "x", want a number with a unit, or U)`,
		},

		{"within limits", "echo 'fine | a=5 b=50'", `, warn: "10", crit: "20"`, verdict.Pass, "fine"},
		{"beyond the limit for warn", "echo 'fine | a=15s b=50'", `, warn: "10", crit: "20"`, verdict.Warn, "fine (a is 15s, want 10)"},
		{"beyond the limit for crit", "echo 'fine | a=25 b=50'", `, warn: "10", crit: "20"`, verdict.Fail, "fine (a is 25, want 20)"},
		{"limits of another figure", "echo 'fine | a=5 b=50'", `, label: b, crit: "20"`, verdict.Fail, "fine (b is 50, want 20)"},
		{"limits make nothing better", "echo 'bad | a=5'; exit 2", `, crit: "20"`, verdict.Fail, "bad"},
		{"limits of nothing", "echo fine", `, crit: "20"`, verdict.Unknown, "fine (no figure at all in the performance data for warn and crit)"},
		{"limits of what is not there", "echo 'fine | a=5'", `, label: c, crit: "20"`, verdict.Unknown, "fine (no figure c in the performance data for warn and crit)"},
		{"limits of what is not known", "echo 'fine | a=U'", `, crit: "20"`, verdict.Unknown, "fine (no figure at all in the performance data for warn and crit)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			got := shell(t, tt.script, tt.more).Check(ctx)
			if got.Status != tt.status || verdict.Clean(got.Message) != tt.message {
				t.Errorf("got  %v %q\nwant %v %q", got.Status, got.Message, tt.status, tt.message)
			}
		})
	}
}

func TestExecMeasures(t *testing.T) {
	t.Parallel()
	got := shell(t, "echo 'fine | time=250ms;~:1;@2:3;0 load=U'; echo 'more | used=5B'", "").Check(t.Context())
	quarter, zero := 0.25, 0.0
	want := []verdict.Measure{
		{Label: "time", Value: 250, Unit: "ms", Warn: "~:1", Crit: "@2:3", Min: &zero},
		{Label: "load"},
		{Label: "used", Value: 5, Unit: "B"},
	}
	if len(got.Measures) == 3 && got.Measures[1].Value != got.Measures[1].Value {
		got.Measures[1].Value = 0
	} else {
		t.Errorf("load is not NaN: %+v", got.Measures)
	}
	if diff := cmp.Diff(want, got.Measures); diff != "" {
		t.Errorf("measures (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&quarter, got.Value); diff != "" || got.Unit != "seconds" {
		t.Errorf("unit %q, value (-want +got):\n%s", got.Unit, diff)
	}
}

// fifo is a pipe with a name, and channels that close when somebody has it open for
// writing, and when nobody has any more.
func fifo(t *testing.T) (path string, opened, gone chan struct{}) {
	t.Helper()
	path, opened, gone = filepath.Join(t.TempDir(), "fifo"), make(chan struct{}), make(chan struct{})
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(gone)
		f, err := os.Open(path)
		close(opened)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := io.Copy(io.Discard, f); err != nil {
			t.Error(err)
		}
	}()
	return path, opened, gone
}

func await(t *testing.T, c chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal(what)
	}
}

func TestExecKillsAtTheDeadlineWithAllChildren(t *testing.T) {
	t.Parallel()
	path, _, gone := fifo(t)
	e := shell(t, "trap '' TERM INT HUP; exec 3>"+path+"; sleep 60 & (sleep 60 & sleep 60) & echo busy; sleep 60", "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begun := time.Now()
	got := e.Check(ctx)
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("took %v with a deadline of 1s", took)
	}
	if want := e.path + ": no end by the deadline, killed: busy"; got.Status != verdict.Fail || got.Message != want {
		t.Errorf("got  %v %q\nwant %v %q", got.Status, got.Message, verdict.Fail, want)
	}
	await(t, gone, "a child outlived the deadline")
}

func TestExecEndsTheChildrenOfWhatEnded(t *testing.T) {
	t.Parallel()
	path, _, gone := fifo(t)
	got := shell(t, "exec 3>"+path+"; sleep 60 & echo fine", "").Check(t.Context())
	if got.Status != verdict.Pass || got.Message != "fine" {
		t.Errorf("got %v %q, want pass fine", got.Status, got.Message)
	}
	await(t, gone, "a child outlived its parent")
}

func TestExecStops(t *testing.T) {
	t.Parallel()
	path, opened, gone := fifo(t)
	e := shell(t, "exec 3>"+path+"; exec sleep 60", "")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-opened
		cancel()
	}()
	got := e.Check(ctx)
	if want := e.path + ": stopped"; got.Status != verdict.Unknown || got.Message != want {
		t.Errorf("got %v %q, want unknown %q", got.Status, got.Message, want)
	}
	await(t, gone, "the program outlived the agent")
}

// A program that waits in the kernel does not end when it is killed: here nobody
// kills it.
func TestExecLeavesWhatCannotBeKilled(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "flag")
	e := shell(t, "if [ -e "+flag+" ]; then echo fine; else echo hangs; exec sleep 60; fi", "")
	e.kill = func(int) {}
	check := func() verdict.Result {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		begun := time.Now()
		defer func() {
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("took %v with a deadline of 500ms", took)
			}
		}()
		return e.Check(ctx)
	}
	if got := check(); got.Status != verdict.Fail || !strings.HasSuffix(got.Message, "has not ended though it was killed: hangs") {
		t.Errorf("got %v %q, want fail", got.Status, got.Message)
	}
	left := e.left
	if left == nil {
		t.Fatal("the program is forgotten")
	}
	if got := check(); got.Status != verdict.Fail || !strings.HasSuffix(got.Message, "of an earlier run, or a child of it, was killed and has not ended") {
		t.Errorf("got %v %q, want fail", got.Status, got.Message)
	}
	if e.left != left {
		t.Fatal("another was started")
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	killGroup(left.pid)
	await(t, left.gone, "the program is still there")
	if got := check(); got.Status != verdict.Pass || got.Message != "fine" {
		t.Errorf("got %v %q, want pass fine", got.Status, got.Message)
	}
}

func TestExecCannotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tests := []struct {
		name, text string
		mode       os.FileMode
		change     func(path string) error
		want       string
	}{
		{"removed", "#!/bin/sh\n", 0o755, os.Remove, "is not there"},
		{"mode", "#!/bin/sh\n", 0o755, func(path string) error { return os.Chmod(path, 0o644) }, "is not executable"},
		{"interpreter", "#!/no/such/thing\n", 0o755, nil, "cannot be run: the program in its first line, or the folder to run in, is not there"},
		{"text", "echo fine\n", 0o755, nil, "is neither a program nor a script that begins with #!"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(dir, tt.name)
			if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
				t.Fatal(err)
			}
			c, err := configure[ExecConfig](t, "{command: ["+path+"]}")
			if err != nil {
				t.Fatal(err)
			}
			e, err := c.Build(Env{})
			if err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				if err := tt.change(path); err != nil {
					t.Fatal(err)
				}
			}
			if got := e.Check(t.Context()); got.Status != verdict.Fail || got.Message != path+" "+tt.want {
				t.Errorf("got  %v %q\nwant fail %q", got.Status, got.Message, path+" "+tt.want)
			}
		})
	}
}

func TestExecConfigErrors(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const program = ", want a program that can be run"
	tests := []struct{ text, want string }{
		{"{}", "check.command: got nothing, want a list"},
		{"{command: []}", "check.command: got an empty list, want a program and its arguments"},
		{
			"{command: [check_nosuch]}",
			"check.command[0]: got check_nosuch, which is neither in PATH nor in /usr/lib/nagios/plugins or /usr/lib64/nagios/plugins" + program,
		},
		{"{command: [./check]}", "check.command[0]: got ./check, which is relative to a folder that is not known" + program},
		{"{command: [/no/such]}", "check.command[0]: got /no/such, which is not there" + program},
		{"{command: [" + file + "]}", "check.command[0]: got " + file + ", which is not executable" + program},
		{"{command: [/usr]}", "check.command[0]: got /usr, which cannot be run: is a directory" + program},
		{`{command: [sh, "a\0b"]}`, "check.command[1]: got a text with a zero byte, want one without"},
		{"{command: [sh], dir: /no/such}", "check.dir: got stat /no/such: no such file or directory, want a folder"},
		{"{command: [sh], dir: " + file + "}", "check.dir: got " + file + ", which is a file, want a folder"},
		{"{command: [sh], max_output: 1GiB}", "check.max_output: got 1GiB, want 1KiB to 16MiB"},
		{"{command: [sh], env: {A=B: x}}", "check.env: got A=B, want names without an equals sign, values without a zero byte"},
		{"{command: [sh], label: a}", "check.label: got a without warn and crit, want warn or crit too: it says what they are of"},
		{`{command: [sh], crit: "2:1"}`, `check.crit: got 2:1, want a start that is not above the end`},
	}
	for _, tt := range tests {
		_, err := configure[ExecConfig](t, tt.text)
		if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%s: got  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestFindProgram(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	for path, mode := range map[string]os.FileMode{one + "/a": 0o644, two + "/a": 0o755, one + "/b": 0o644} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	path := []string{"", one, two}
	if full, why := findProgram("a", path); full != two+"/a" || why != "" {
		t.Errorf("a: %q, %s; want the one that can be run, %s", full, why, two+"/a")
	}
	if _, why := findProgram("b", path); why != "is "+one+"/b, which is not executable" {
		t.Errorf("b %s", why)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(here, two)
	if err != nil {
		t.Fatal(err)
	}
	if full, why := findProgram("a", []string{relative}); full != "" {
		t.Errorf("a in %s: %q, %q; want none, as it depends on the folder of the agent", relative, full, why)
	}
}
