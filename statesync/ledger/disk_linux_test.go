//go:build linux

package ledger

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"zombiezen.com/go/sqlite"
)

// A disk is a folder behind a FUSE file system that fails on command, and can
// lose what was written and not synced. It is served by a process of its own:
// the ledger maps a file into memory, and a thread that waits for a page of it
// cannot be stopped, so the Go runtime that served it could wait for itself.
type disk struct {
	t       testing.TB
	dir     string // where the ledger is
	backing string
	in      *os.File
	out     *bufio.Scanner
}

const diskVariable = "OUTRIDER_TEST_DISK"

// newDisk mounts a disk until the test ends.
func newDisk(t testing.TB) *disk {
	t.Helper()
	needRoot(t, "to mount a FUSE file system")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		skipOrFail(t, fmt.Sprintf("no FUSE in this kernel (modprobe fuse): %v", err))
	}
	d := &disk{t: t, dir: t.TempDir(), backing: t.TempDir()}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServeDisk$", "-test.count=1", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), diskVariable+"="+d.backing+":"+d.dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, give, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	d.in, d.out = give, bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = give.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("disk: %v", err)
		}
	})
	d.answer("mounted")
	return d
}

// tell has the disk do what command says.
func (d *disk) tell(command string) {
	d.t.Helper()
	if _, err := fmt.Fprintln(d.in, command); err != nil {
		d.t.Fatal(err)
	}
	d.answer("done " + command)
}

func (d *disk) answer(want string) {
	d.t.Helper()
	if !d.out.Scan() || d.out.Text() != want {
		d.t.Fatalf("the disk says %q, %v, want %q", d.out.Text(), d.out.Err(), want)
	}
}

func TestAFailingDisk(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]string{
		"a sync fails once":       "fail syncs 1",
		"syncs fail for a while":  "fail syncs -1",
		"a write fails once":      "fail writes 1",
		"writes fail for a while": "fail writes -1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDisk(t)
			l, err := Open(options(t, d.dir))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			stop := start(t, l)
			record(t, l, crashEntry(1))
			d.tell(faults)
			done := late(t, l, 2, 60)
			until(t, "a commit or a checkpoint has failed", func() bool { return books(t, l).Retries["commit"]+upkeepFailures(l) > 0 })
			if strings.Contains(faults, "-1") {
				until(t, "the failure is seen", failed(l, sqlite.ResultIOErr))
				if n := done.Load(); n != 1 {
					t.Errorf("%d entries done while the disk fails", n)
				}
				d.tell(strings.ReplaceAll(faults, "-1", "0"))
			}
			until(t, "all is done", func() bool { return done.Load() == 60 })
			wholeEntries(t, l, 60)
			if at, report := l.Rescued(); !at.IsZero() {
				t.Errorf("rescued: %s", report)
			}
			d.tell("power off")
			_ = stop()
			_ = l.Close() // it cannot write any more
			wholeEntries(t, open(t, d.backing), 60)
		})
	}
}

func upkeepFailures(l *Ledger) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range l.upkeep {
		n += u.failures
	}
	return n
}

// TestThePowerFails: what was done is there, whole, and is not taken for
// damaged, whatever of the rest the drive has written.
func TestThePowerFails(t *testing.T) {
	t.Parallel()
	r := dice(t)
	for range 4 {
		seed, after := r.Int32(), int64(20+r.IntN(100))
		t.Run(fmt.Sprintf("after %d, seed %d", after, seed), func(t *testing.T) {
			t.Parallel()
			d := newDisk(t)
			l, err := Open(options(t, d.dir))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			stop := start(t, l)
			record(t, l, crashEntry(1))
			done := late(t, l, 2, 600)
			until(t, "some are done", func() bool { return done.Load() >= after })
			d.tell(fmt.Sprintf("power off, seed %d", seed))
			was := done.Load()
			_ = stop()
			_ = l.Close()
			l = open(t, d.backing)
			wholeEntries(t, l, was)
			if at, report := l.Rescued(); !at.IsZero() {
				t.Errorf("rescued after %d entries: %s", was, report)
			}
			start(t, l)
			head, _ := l.Head()
			record(t, l, crashEntry(head/2+1))
			wholeEntries(t, l, head/2+1)
		})
	}
}

// TestServeDisk is no test but the process of a disk.
func TestServeDisk(t *testing.T) {
	backing, mount, ok := strings.Cut(os.Getenv(diskVariable), ":")
	if !ok {
		t.Skip("it serves a disk to other tests")
	}
	b := &blocks{root: backing}
	data := &fs.LoopbackRoot{Path: backing}
	root := &diskNode{LoopbackNode: &fs.LoopbackNode{RootData: data}, blocks: b}
	data.RootNode = root
	server, err := fs.Mount(mount, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "faulty", Name: "faulty"},
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("mounted")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := b.command(lines.Text()); err != nil {
			t.Error(err)
			break
		}
		fmt.Println("done " + lines.Text())
	}
	for range 100 {
		if err = server.Unmount(); err == nil {
			return
		}
		<-time.After(10 * time.Millisecond) // the ledger's files are being closed
	}
	t.Error(err)
}

// blocks is what a disk has been given and told.
type blocks struct {
	root string

	mu       sync.Mutex
	unsynced []blockWrite
	syncs    int  // of the next ones, this many fail; -1: all
	writes   int  // the same of writes
	off      bool // the power is off
}

type blockWrite struct {
	path   string
	at     int64
	data   []byte
	before []byte // what was there
	size   int64  // of the file before
}

func (b *blocks) command(line string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n int
	switch {
	case line == "power off":
		b.off = true
		return b.lose("", nil)
	case scan(line, "fail syncs %d", &n):
		b.syncs = n
	case scan(line, "fail writes %d", &n):
		b.writes = n
	case scan(line, "power off, seed %d", &n):
		b.off = true
		return b.lose("", rand.New(rand.NewPCG(uint64(n), 2)))
	default:
		return fmt.Errorf("unknown command %q", line)
	}
	return nil
}

func scan(line, format string, n *int) bool {
	got, err := fmt.Sscanf(line, format, n)
	return got == 1 && err == nil && fmt.Sprintf(format, *n) == line
}

// lose takes back what was not synced of a file, or of all; with dice only
// some of it, as a drive does that writes in an order of its own.
func (b *blocks) lose(path string, dice *rand.Rand) error {
	lost := slices.Clone(b.unsynced)
	lost = slices.DeleteFunc(lost, func(w blockWrite) bool { return path != "" && w.path != path })
	for _, w := range slices.Backward(lost) {
		if err := w.undo(); err != nil {
			return err
		}
	}
	for _, w := range lost {
		if dice != nil && dice.IntN(2) == 0 {
			if err := onFile(w.path, func(f *os.File) error { _, err := f.WriteAt(w.data, w.at); return err }); err != nil {
				return err
			}
		}
	}
	b.forget(path)
	return nil
}

func (b *blocks) forget(path string) {
	b.unsynced = slices.DeleteFunc(b.unsynced, func(w blockWrite) bool { return path == "" || w.path == path })
}

func (w blockWrite) undo() error {
	return onFile(w.path, func(f *os.File) error {
		if _, err := f.WriteAt(w.before, w.at); err != nil {
			return err
		}
		return f.Truncate(w.size)
	})
}

func onFile(path string, do func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return nil // it was removed since
	}
	if err != nil {
		return err
	}
	if err := do(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func (b *blocks) write(path string, f *fs.LoopbackFile, data []byte, at int64) (uint32, syscall.Errno) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.off || b.writes != 0 {
		b.writes = max(b.writes-1, -1)
		return 0, syscall.EIO
	}
	w := blockWrite{path: path, at: at, data: slices.Clone(data), before: make([]byte, len(data))}
	if err := onFile(path, func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		w.size = info.Size()
		n, _ := f.ReadAt(w.before, at)
		w.before = w.before[:n]
		return nil
	}); err != nil {
		return 0, syscall.EIO
	}
	b.unsynced = append(b.unsynced, w)
	return f.Write(context.Background(), data, at)
}

// sync that fails loses what it should have made durable: the kernel counts
// the pages as clean after it.
func (b *blocks) sync(path string) syscall.Errno {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.off {
		return syscall.EIO
	}
	if b.syncs != 0 {
		b.syncs = max(b.syncs-1, -1)
		if err := b.lose(path, nil); err != nil {
			return syscall.ENOTRECOVERABLE
		}
		return syscall.EIO
	}
	b.forget(path)
	return 0
}

type diskNode struct {
	*fs.LoopbackNode
	blocks *blocks
}

// WrapChild implements [fs.NodeWrapChilder].
func (n *diskNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &diskNode{LoopbackNode: ops.(*fs.LoopbackNode), blocks: n.blocks}
}

func (n *diskNode) path() string { return filepath.Join(n.blocks.root, n.Path(n.Root())) }

func (n *diskNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &diskFile{f.(*fs.LoopbackFile), n.path(), n.blocks}, fuseFlags, 0
}

func (n *diskNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, f, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return child, &diskFile{f.(*fs.LoopbackFile), filepath.Join(n.path(), name), n.blocks}, fuseFlags, 0
}

// A diskFile has only the methods that the disk looks at: all that a
// LoopbackFile can do would let the kernel pass it by.
type diskFile struct {
	file   *fs.LoopbackFile
	path   string
	blocks *blocks
}

func (f *diskFile) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return f.file.Read(ctx, buf, off)
}

func (f *diskFile) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	return f.blocks.write(f.path, f.file, data, off)
}
func (f *diskFile) Fsync(context.Context, uint32) syscall.Errno { return f.blocks.sync(f.path) }
func (f *diskFile) Flush(ctx context.Context) syscall.Errno     { return f.file.Flush(ctx) }
func (f *diskFile) Release(ctx context.Context) syscall.Errno   { return f.file.Release(ctx) }
