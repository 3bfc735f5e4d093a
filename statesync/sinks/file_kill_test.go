//go:build unix

package sinks

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
)

const (
	killDir     = "OUTRIDER_TEST_FILE_KILL_DIR"
	killAt      = "OUTRIDER_TEST_FILE_KILL_AT"
	killChanges = 150
	killBytes   = 3000
)

// TestFileOfAKilledProcess kills a process that writes, by SIGKILL, at each of
// its steps and at any time, and starts it again with the position that was
// kept, while a reader follows the file.
func TestFileOfAKilledProcess(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		writeUntilKilled(t, dir)
		return
	}
	t.Parallel()
	want := linesOf(t, changes(killChanges))
	for _, step := range []string{"write", "sync", "rename", "sync_dir", "create", "delivered", "kept"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			reader := &tail{path: filepath.Join(dir, "changes.jsonl")}
			if err := appendTo(reader.path, ""); err != nil { // the reader is there from the start
				t.Fatal(err)
			}
			if err := reader.poll(); err != nil {
				t.Fatal(err)
			}
			stop, stopped := make(chan struct{}), make(chan error)
			go func() {
				for {
					select {
					case <-stop:
						stopped <- reader.poll()
						return
					default:
						if err := reader.poll(); err != nil {
							<-stop
							stopped <- err
							return
						}
					}
				}
			}()
			for _, at := range []string{"file/" + step + "@1", "file/" + step + "@3", "any", "file/" + step + "@2", ""} {
				runUntilKilled(t, dir, at)
			}
			close(stop)
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			got, files := filesOf(t, filepath.Join(dir, "changes.jsonl"), want)
			if got != want || len(files) < 10 {
				t.Errorf("%d files of %d bytes with %d lines, want more than 9 of %d with %d", len(files), len(got), strings.Count(got, "\n"), len(want), killChanges)
			}
			if reader.lines() != want {
				t.Errorf("a reader has seen %d lines, want %d once", strings.Count(reader.lines(), "\n"), killChanges)
			}
		})
	}
}

// runUntilKilled runs the child until it is killed, by itself at a step, by us
// at any time, or not at all.
func runUntilKilled(t *testing.T, dir, at string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileOfAKilledProcess$", "-test.count=1")
	cmd.Env = append(os.Environ(), killDir+"="+dir, killAt+"="+at)
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "kept") {
			if kept++; at == "any" && kept == 7 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	err = cmd.Wait()
	if killed := err != nil && strings.Contains(err.Error(), "killed"); killed != (at != "") {
		t.Fatalf("the child that was to be killed at %q ended with %v\n%s", at, err, trouble.String())
	}
}

// writeUntilKilled is the child. It keeps its position after every second
// batch, in a file, as the ledger does in its own.
func writeUntilKilled(t *testing.T, dir string) {
	opened, err := (&FileConfig{Path: config.Path(filepath.Join(dir, "changes.jsonl")), MaxBytes: killBytes}).Open("")
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*fileSink)
	place, count, _ := strings.Cut(os.Getenv(killAt), "@")
	passed := 0
	s.step = func(name string) error {
		if name == place {
			if passed++; fmt.Sprint(passed) == count {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until the signal has come
			}
		}
		return nil
	}
	done, position := 0, ""
	if kept, err := os.ReadFile(filepath.Join(dir, "kept")); err == nil {
		if _, err := fmt.Sscanf(string(kept), "%d %s", &done, &position); err != nil {
			t.Fatal(err)
		}
	}
	keeps := 0
	keep := func() {
		_ = s.step("file/kept")
		temporary := filepath.Join(dir, "kept.new")
		if err := os.WriteFile(temporary, fmt.Appendf(nil, "%d %s", done, s.Position()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temporary, filepath.Join(dir, "kept")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stdout.WriteString("kept\n"); err != nil {
			t.Fatal(err)
		}
		if keeps++; place == "any" && keeps == 12 {
			<-time.After(time.Minute) // to be killed at last
		}
	}
	if err := s.Resume(position); err != nil {
		t.Fatal(err)
	}
	keep()
	all := changes(killChanges)
	for i := 0; done < len(all); i++ {
		batch := all[done:min(len(all), done+1+(i+done)%6)]
		if err := s.Deliver(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if done += len(batch); i%2 == 1 {
			keep()
		}
	}
}
