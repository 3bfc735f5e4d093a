//go:build failpoint && unix

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// failingChild runs the test again in a process of its own, which a variable of
// its environment tells what to do, with one failpoint: it is to be killed there
// if the action says so, else to end well.
func failingChild(t *testing.T, variable, point, action string) (out string, killed bool) {
	t.Helper()
	test, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), variable, "OUTRIDER_FAILPOINTS="+point+"="+action)
	var said, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &trouble
	err := cmd.Run()
	killed = strings.HasPrefix(action, "kill")
	if killed == (err == nil) || killed && !strings.Contains(trouble.String(), "failpoint "+point) {
		t.Fatalf("the child ended with %v\n%s%s", err, said.String(), trouble.String())
	}
	return said.String(), killed
}

// TestFailpoints makes every step of a commit the last one of a process, and
// every step fail, in a child; what it leaves is whole.
func TestFailpoints(t *testing.T) {
	const dirVariable = "OUTRIDER_TEST_FAILPOINTS_DIR"
	if dir := os.Getenv(dirVariable); dir != "" {
		passFailpoints(t, dir)
		return
	}
	t.Parallel()
	for _, point := range []string{"begin", "change", "commit", "committed", "settled", "prune"} {
		for _, action := range []string{"kill@1", "kill@3", "EIO@1", "EIO@3", "ENOSPC@2"} {
			t.Run(point+" "+action, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				out, killed := failingChild(t, dirVariable+"="+dir, "ledger/"+point, action)
				done := int64(strings.Count(out, "done\n"))
				if !killed && done != failpointEntries {
					t.Errorf("%d entries done, want %d", done, failpointEntries)
				}
				l := open(t, dir)
				head, _ := l.Head()
				if head%2 != 0 || head < 2*done {
					t.Errorf("head %d, want an even number of at least %d", head, 2*done)
				}
				if a, b := wholeFlushes(t, l, "a"), wholeFlushes(t, l, "b"); 2*a != head || b > a || b < done {
					t.Errorf("stream a at %d and b at %d with head %d and %d entries done", a, b, head, done)
				}
				if rows := load(t, l).Rows; head > 0 && (len(rows) != 1 || rows[0].Seq != head) {
					t.Errorf("rows %+v, want one with seq %d", rows, head)
				}
				got, err := readLog(t.Context(), l, 0, 1000)
				if err != nil {
					t.Fatal(err)
				}
				for i, c := range got {
					if want := head - int64(len(got)-1-i); c.Number != want || c.Seq != want || c.Previous != want-1 {
						t.Errorf("number %d, seq %d, previous %d, want %d without holes", c.Number, c.Seq, c.Previous, want)
					}
				}
				start(t, l)
				record(t, l, crashEntry(head/2+1))
				if now, _ := l.Head(); now != head+2 {
					t.Errorf("head %d after one entry more, want %d", now, head+2)
				}
			})
		}
	}
}

const failpointEntries = 12

// passFailpoints is the child: it records some entries, one after the other,
// and says which are done; nobody needs the changes, so they are deleted.
func passFailpoints(t *testing.T, dir string) {
	o := options(t, dir)
	o.Keep = time.Nanosecond
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, l)
	for i := range int64(failpointEntries) {
		record(t, l, crashEntry(i+1), crashFlush("b", i+1))
		if _, err := os.Stdout.WriteString("done\n"); err != nil {
			t.Fatal(err)
		}
		l.writing.Lock()
		l.retains = retention{} // it is due, whatever failed
		l.writing.Unlock()
		l.signal()
	}
	until(t, "nothing is left to delete", func() bool {
		l.writing.Lock()
		l.retains = retention{}
		l.writing.Unlock()
		l.signal()
		return len(readAllowed(l)) == 0
	})
	if err := errors.Join(stop(), l.Close()); err != nil {
		t.Fatal(fmt.Errorf("stop: %w", err))
	}
}

func readAllowed(l *Ledger) []string {
	got, err := readLog(context.Background(), l, 0, 100)
	if err != nil {
		return []string{err.Error()}
	}
	return ids(got)
}
