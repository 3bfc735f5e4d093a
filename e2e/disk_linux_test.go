package e2e

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/rand"
)

// TestADiskThatIsFull fills the file system of the data directory: the digest
// says so, and what happens meanwhile is told once there is room.
func TestADiskThatIsFull(t *testing.T) {
	needCluster(t)
	s := newSession(t, "full")
	data := filepath.Join(s.dir, "outrider-data")
	mountSmall(t, data, "4m")
	a := s.start(t, configOf(s.ns))
	before := pods(t, s.ns, "before", 10, second)
	before.tell(s.want, podSucceeds)
	s.hook.tells(t, time.Minute, s.want)
	fill := filepath.Join(data, "fill")
	fillUp(t, fill)
	during := pods(t, s.ns, "during", 20, second)
	waitFor(t, 30*time.Second, "the digest to say that the ledger has no space", func() bool {
		status, message := check(t, "ledger")
		return status != "pass" && (strings.Contains(message, "full") || strings.Contains(message, "space"))
	})
	_, message := check(t, "ledger")
	t.Logf("the digest says: %s", message)
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	during.tell(s.want, podSucceeds)
	s.hook.tells(t, time.Minute, s.want)
	quiet(t, time.Minute)
	waitFor(t, 30*time.Second, "the digest to be well again", func() bool {
		status, _ := check(t, "ledger")
		return status == "pass"
	})
	a.stop()
	fromTheWatch(t, s.outcome(t))
}

// mountSmall makes dir a file system of its own.
func mountSmall(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700")
	if errors.Is(err, syscall.EPERM) && os.Getenv("CI") == "" {
		t.Skip("mounting a tmpfs needs root: run the test as root, or in a user namespace")
	}
	if err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fillUp writes a file until nothing more fits.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := io.Copy(f, strings.NewReader(strings.Repeat(rand.String(1024), 64*1024)))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %d bytes, %v; want no space left", n, err)
	}
}
