//go:build unix

package main

import (
	"bufio"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fifo is a command file, as Nagios makes one.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nagios.cmd")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reader has the other end open, as Nagios does.
func reader(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFanOut(t *testing.T) {
	t.Parallel()
	path := fifo(t)
	nagios := bufio.NewReader(reader(t, path))
	srv := httptest.NewServer(healthJSON(503, broken))
	defer srv.Close()
	out, code := runCheckCommand(t, "digest", srv.URL, "--category", "all", "--fan-out", path, "--fan-out-host", "app1", "--fan-out-prefix", "payments ")
	if code != 2 || !strings.HasPrefix(out, "FAIL payments: db (connection refused") {
		t.Errorf("got exit code %d and %q, want the digest's", code, out)
	}
	for _, want := range []string{
		";app1;payments db;2;[FAIL] db: connection refused, since 2026-11-23T12:01:00Z, category page, runbook https://r.example/db | db=0.5s\n",
		";app1;payments feed;3;[UNKNOWN] feed: because db fails, since 2026-11-23T12:01:02Z\n",
		";app1;payments cache;1;[WARN] cache: slow, since 2026-11-23T12:59:00Z, acknowledged by ann: known\n",
		";app1;payments api;0;[PASS] api: status 200, since 2026-11-20T00:00:00Z | api=120ms\n",
		";app1;payments disk;0;[PASS] disk | disk::/=12.5GB;20:;@0:10;0;100 'disk::/var lib'=U\n",
	} {
		line, err := nagios.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var ts int64
		if _, err := fmt.Sscanf(line, "[%d] PROCESS_SERVICE_CHECK_RESULT;", &ts); err != nil || time.Since(time.Unix(ts, 0)) > time.Minute || !strings.HasSuffix(line, "PROCESS_SERVICE_CHECK_RESULT"+want) {
			t.Errorf("got %q (%v), want a recent time and %q", line, err, want)
		}
	}
}

func TestFanOutThatFails(t *testing.T) {
	t.Parallel()
	pass, fail := httptest.NewServer(healthJSON(200, passing)), httptest.NewServer(healthJSON(503, broken))
	defer pass.Close()
	defer fail.Close()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := fifo(t)
	stuffed := reader(t, full)
	_ = stuffed.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := stuffed.Write(make([]byte, 1<<22)); err == nil {
		t.Fatal("the pipe took 4 MiB, want a full one")
	}
	for _, tt := range []struct {
		url, file string
		code      int
		want      string
	}{
		{pass.URL, fifo(t), 3, "nagios.cmd: no Nagios reads it; payments: 1 page checks pass"},
		{fail.URL, fifo(t), 2, "nagios.cmd: no Nagios reads it; payments: db (connection refused"},
		{pass.URL, plain, 3, "got a file that is no pipe"},
		{pass.URL, plain + "/none", 3, "not a directory"},
		{pass.URL, filepath.Join(t.TempDir(), "none"), 3, "no such file"},
		{pass.URL, full, 3, "0 of 1 results written: i/o timeout"},
	} {
		start := time.Now()
		out, code := runCheckCommand(t, "digest", tt.url, "--fan-out", tt.file, "--fan-out-host", "h", "-t", "1")
		if code != tt.code || !strings.Contains(out, tt.want) || time.Since(start) > 5*time.Second {
			t.Errorf("%s: got exit code %d and %q after %v, want %d and %q", tt.file, code, out, time.Since(start), tt.code, tt.want)
		}
	}
	if text, err := os.ReadFile(plain); err != nil || string(text) != "kept" {
		t.Errorf("the file that is no pipe: got %q (%v), want it as it was", text, err)
	}
}

// Another writes to the command file as well: no result is torn by it, none is
// lost, and names are made to fit.
func TestFanOutOfMany(t *testing.T) {
	t.Parallel()
	path := fifo(t)
	nagios := bufio.NewReader(reader(t, path))
	const many = 500
	var b strings.Builder
	for i := range many {
		fmt.Fprintf(&b, `,"c;%d\n|=":[{"status":"pass","output":"%s;"}]`, i, strings.Repeat("o", 512))
	}
	srv := httptest.NewServer(healthJSON(200, `{"status":"pass","checks":{`+b.String()[1:]+`}}`))
	defer srv.Close()
	const others = "[1] PROCESS_SERVICE_CHECK_RESULT;other;x;0;x\n"
	got := map[string]bool{}
	done, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		for len(got) < many {
			line, err := nagios.ReadString('\n')
			fields := strings.SplitN(line, ";", 5)
			switch {
			case err != nil:
			case line == others:
				continue
			case len(fields) != 5 || !strings.HasPrefix(fields[0], "[") || !strings.HasPrefix(fields[2], "c_") || !strings.HasSuffix(fields[2], "___") || fields[3] != "0" || len(line) < 500 || strings.Contains(fields[4], "[1]"):
				err = fmt.Errorf("got %q", line)
			default:
				got[fields[2]] = true
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	other := reader(t, path)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				_ = other.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = other.WriteString(others)
			}
		}
	})
	if out, code := runCheckCommand(t, "digest", srv.URL, "--fan-out", path, "--fan-out-host", "h"); code != 0 {
		t.Fatalf("got exit code %d and %q", code, out)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
