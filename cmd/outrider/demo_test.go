package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/outrider-agent/outrider/cmd/outrider/demo"
)

// wrongUsage runs outrider, which must fail with exit code 2.
func wrongUsage(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: wrong args...")
	}
	err := ts.Exec("outrider", args...)
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 {
		ts.Fatalf("got %v, want exit code 2", err)
	}
}

// occupy listens on a port of its own, which it names in OCCUPIED.
func occupy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("OCCUPIED", l.Addr().String())
}

// emptyFolder fails when something is in a folder.
func emptyFolder(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s holds %s, want nothing", args[0], entries[0].Name())
	}
}

// waitBytes waits until a file that a pattern names holds so many bytes.
func waitBytes(ts *testscript.TestScript, _ bool, args []string) {
	least, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); ; {
		found, err := filepath.Glob(ts.MkAbs(args[0]))
		ts.Check(err)
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && info.Size() >= least {
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("fewer than %d bytes were in %s in 20s", least, args[0])
		}
		<-time.After(20 * time.Millisecond)
	}
}

// TestDemo runs everything in this process.
func TestDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out, said bytes.Buffer
	root := rootCommand()
	root.SetArgs([]string{"demo", "--for", "3s", "--rate", "100", "--workloads", "100", "--seed", "7", "--json"})
	root.SetOut(&out)
	root.SetErr(&said)
	began := time.Now()
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("it took %s, want 3s at least", took)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines of result, want 1: %s", n, out.String())
	}
	var r demo.Result
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("the result: %v", err)
	}
	for name, n := range map[string]*int64{"lost": r.Lost, "balance": r.Balance, "gaps": &r.Gaps, "undelivered": &r.Undelivered} {
		if n == nil || *n != 0 {
			t.Errorf("%s: %v, want 0", name, n)
		}
	}
	// 100 workloads have at least one state each, and 100 changes come a second.
	if r.Offered < 350 || r.Captured < r.Offered || r.Acknowledged < r.Offered || r.Seed != 7 {
		t.Errorf("offered %d, captured %d, acknowledged %d with seed %d", r.Offered, r.Captured, r.Acknowledged, r.Seed)
	}
	if r.P50 == nil || r.P99 == nil || *r.P50 <= 0 || *r.P99 < *r.P50 || r.Memory < 1<<20 || r.CPU <= 0 {
		t.Errorf("p50 %v, p99 %v, memory %d, processor time %v", r.P50, r.P99, r.Memory, r.CPU)
	}
	if r.OfferedRate < 80 || r.OfferedRate > 120 || r.AchievedRate < 50 {
		t.Errorf("offered %v a second and achieved %v, want about 100", r.OfferedRate, r.AchievedRate)
	}
}
