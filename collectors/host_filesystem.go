package collectors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/procfs"
)

// A mount is one file system that holds data.
type mount struct {
	dev      string // major:minor
	point    string
	typ      string
	readonly bool
}

// usage is how full a file system is.
type usage struct{ size, free, available, inodes, inodesFree float64 }

// dataless are the types of file system that hold nothing that could run out.
// Read-only.
var dataless = strings.Fields(`autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs
	erofs fuse.lxcfs fusectl hugetlbfs iso9660 mqueue nsfs proc procfs pstore ramfs rpc_pipefs securityfs
	selinuxfs squashfs sysfs tracefs`)

// askFilesystems asks every file system how full it is, and returns a function
// that waits for the answers and adds them.
func (h *host) askFilesystems() (wait func(context.Context) error, err error) {
	path := h.path("self/mountinfo")
	if filepath.Clean(h.root) != "/" {
		path = h.path("1/mountinfo") // ours are the container's
	}
	all, err := h.mountinfo(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	mounts := selectMounts(all, func(point string) bool { return leaveOut(h.noMount, point) })
	mounts, tooMany := bounded(path, "exclude_mounts", mounts)
	answers := h.mounts.ask(mounts, h.root)
	return func(ctx context.Context) error {
		return errors.Join(tooMany, h.addFilesystems(ctx, mounts, answers))
	}, nil
}

func (h *host) mountinfo(path string) ([]*procfs.MountInfo, error) {
	if strings.HasSuffix(path, "/self/mountinfo") {
		return parsed(h.procfs.GetMounts)
	}
	return parsed(func() ([]*procfs.MountInfo, error) { return h.procfs.GetProcMounts(1) })
}

// selectMounts chooses what to ask: each device once, at the shortest of its
// places, which is not the one of a bind mount.
func selectMounts(all []*procfs.MountInfo, leaveOut func(point string) bool) []mount {
	best := map[string]mount{}
	for _, m := range all {
		point := unescape(m.MountPoint)
		if slices.Contains(dataless, m.FSType) || leaveOut(point) {
			continue
		}
		_, ro := m.Options["ro"]
		_, roSuper := m.SuperOptions["ro"]
		now := mount{m.MajorMinorVer, point, m.FSType, ro || roSuper}
		if old, ok := best[now.dev]; !ok || cmp.Or(cmp.Compare(len(now.point), len(old.point)), cmp.Compare(now.point, old.point)) <= 0 {
			best[now.dev] = now
		}
	}
	out := make([]mount, 0, len(best))
	for _, m := range best {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b mount) int { return cmp.Or(cmp.Compare(a.point, b.point), cmp.Compare(a.dev, b.dev)) })
	return slices.CompactFunc(out, func(a, b mount) bool { return a.point == b.point }) // one hides the other
}

// unescape undoes the kernel's \040 for a space, and its like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (h *host) addFilesystems(ctx context.Context, mounts []mount, answers <-chan mountAnswer) error {
	wait := patience
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	got := make(map[string]mountAnswer, len(mounts))
collect:
	for len(got) < len(mounts) {
		select {
		case a := <-answers:
			got[a.point] = a
		case <-timer.C:
			break collect
		case <-ctx.Done():
			break collect
		}
	}
	var errs []error
	for _, m := range mounts {
		a, answered := got[m.point]
		switch {
		case !answered:
			a.err = fmt.Errorf("ask file system %s (%s): no answer yet", m.point, m.typ)
		case errors.Is(a.err, os.ErrNotExist):
			continue // unmounted meanwhile
		case a.err != nil:
			a.err = fmt.Errorf("ask file system %s (%s): %w", m.point, m.typ, a.err)
		}
		if a.err != nil {
			errs = append(errs, a.err)
			h.found.add("filesystem_failed", 1, m.point, m.typ)
			continue
		}
		if a.size == 0 {
			continue // it holds no data
		}
		h.found.add("filesystem_failed", 0, m.point, m.typ)
		h.found.add("filesystem_size_bytes", a.size, m.point, m.typ)
		h.found.add("filesystem_free_bytes", a.free, m.point, m.typ)
		h.found.add("filesystem_available_bytes", a.available, m.point, m.typ)
		if a.inodes > 0 { // some file systems make them as they need them
			h.found.add("filesystem_inodes", a.inodes, m.point, m.typ)
			h.found.add("filesystem_inodes_free", a.inodesFree, m.point, m.typ)
		}
		readonly := 0.0
		if m.readonly {
			readonly = 1
		}
		h.found.add("filesystem_readonly", readonly, m.point, m.typ)
	}
	return errors.Join(errs...)
}

// maxAsking bounds the file systems that may hang at once: each holds a thread.
const maxAsking = 64

// A mountProber asks file systems how full they are. One that hangs, as a
// network file system does whose server is gone, holds one goroutine, which
// nothing can end, and is not asked again before it has answered.
type mountProber struct {
	statfs func(path string) (usage, error)

	mu     sync.Mutex
	asking map[string]bool
}

type mountAnswer struct {
	usage
	point string
	err   error
}

func newMountProber(statfs func(string) (usage, error)) *mountProber {
	return &mountProber{statfs: statfs, asking: map[string]bool{}}
}

var errHangs = errors.New("it has not answered since an earlier time")

// ask asks every mount once. The channel has room for all answers.
func (p *mountProber) ask(mounts []mount, root string) <-chan mountAnswer {
	answers := make(chan mountAnswer, len(mounts))
	p.mu.Lock()
	defer p.mu.Unlock()
	hanging := len(p.asking)
	for _, m := range mounts {
		if p.asking[m.point] || hanging >= maxAsking {
			answers <- mountAnswer{point: m.point, err: errHangs}
			continue
		}
		p.asking[m.point] = true
		go func() {
			u, err := p.statfs(filepath.Join(root, m.point))
			p.mu.Lock()
			delete(p.asking, m.point)
			p.mu.Unlock()
			answers <- mountAnswer{u, m.point, err}
		}()
	}
	return answers
}
