package collectors

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

var updateHost = flag.Bool("update-host", false, "write what host, process and cgroup give of their fixtures")

// configured reads the configuration of a kind, as the agent does.
func configured[T any](t testing.TB, text string) *T {
	t.Helper()
	c := new(T)
	_, err := config.Parse("test.yaml", []byte("kind: "+text+"\n"), ".", config.Options{Sections: map[string]any{"kind": c}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func buildKind[T any](t testing.TB, text string) Collector {
	t.Helper()
	b := any(configured[T](t, text)).(Builder)
	c, err := b.Build(Env{Name: "item", Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// textOf renders families, a line a series.
func textOf(fams []metrics.Family) string {
	var b strings.Builder
	for _, f := range fams {
		for _, p := range f.Points {
			b.WriteString(f.Desc.Name)
			for i, tag := range f.Desc.Tags {
				fmt.Fprintf(&b, "%c%s=%q", "{,"[min(i, 1)], tag, p.Tags[i])
			}
			if len(f.Desc.Tags) > 0 {
				b.WriteByte('}')
			}
			b.WriteString(" " + strconv.FormatFloat(p.Value, 'f', -1, 64) + "\n")
		}
	}
	return b.String()
}

func compareGolden(t *testing.T, path string, fams []metrics.Family) {
	t.Helper()
	if os.Getpagesize() != 4096 {
		t.Skip("the figures are those of pages of 4096 bytes")
	}
	got := textOf(fams)
	if *updateHost {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

// checkFamilies holds what every collector promises.
func checkFamilies(t *testing.T, fams []metrics.Family, descs []metrics.Desc) {
	t.Helper()
	for i, f := range fams {
		if i > 0 && fams[i-1].Desc.Name >= f.Desc.Name {
			t.Errorf("%s comes after %s", f.Desc.Name, fams[i-1].Desc.Name)
		}
		if !slices.ContainsFunc(descs, func(d metrics.Desc) bool { return d.Name == f.Desc.Name }) {
			t.Errorf("%s is not among the kind's descriptors", f.Desc.Name)
		}
		if len(f.Points) == 0 || len(f.Points) > f.Desc.Budget {
			t.Errorf("%s has %d series, want 1 to %d", f.Desc.Name, len(f.Points), f.Desc.Budget)
		}
		for j, p := range f.Points {
			if j > 0 && slices.Compare(f.Points[j-1].Tags, p.Tags) >= 0 {
				t.Errorf("%s: %v comes after %v", f.Desc.Name, p.Tags, f.Points[j-1].Tags)
			}
			if len(p.Tags) != len(f.Desc.Tags) {
				t.Errorf("%s: %v, want values of %v", f.Desc.Name, p.Tags, f.Desc.Tags)
			}
		}
	}
}

// valueOf returns one series' value.
func valueOf(t *testing.T, fams []metrics.Family, name string, tags ...string) float64 {
	t.Helper()
	for _, f := range fams {
		for _, p := range f.Points {
			if f.Desc.Name == name && slices.Equal(p.Tags, tags) {
				return p.Value
			}
		}
	}
	t.Fatalf("no %s %v", name, tags)
	return 0
}

func hasSeries(fams []metrics.Family, name string) bool {
	return slices.ContainsFunc(fams, func(f metrics.Family) bool { return f.Desc.Name == name })
}

func TestDescriptorsOfHostKinds(t *testing.T) {
	datadog := map[string]string{}
	for _, descs := range [][]metrics.Desc{
		(&HostConfig{}).Descs(), (&ProcessConfig{}).Descs(), (&CgroupConfig{}).Descs(), (&RuntimeConfig{}).Descs(),
	} {
		for _, d := range descs {
			if other := datadog[d.Datadog]; other != "" {
				t.Errorf("%s and %s are both %s in Datadog", other, d.Name, d.Datadog)
			}
			datadog[d.Datadog] = d.Name
			if total := strings.HasSuffix(d.Name, "_total"); total != (d.Type == metrics.CounterType) {
				t.Errorf("%s is a %s", d.Name, d.Type)
			}
			base := strings.TrimSuffix(d.Name, "_total")
			for _, unit := range []string{"seconds", "bytes", "ratio"} {
				if (d.Unit == unit) != strings.HasSuffix(base, "_"+unit) {
					t.Errorf("%s has the unit %s", d.Name, d.Unit)
				}
			}
			if d.Help == "" || !strings.HasSuffix(d.Help, ".") || d.Budget < 1 || d.Unit == "" || len(d.Tags) > maxTags {
				t.Errorf("%s is not described well: %+v", d.Name, d)
			}
		}
	}
}

// fixtureStatfs answers as the fixture's file systems should.
func fixtureStatfs(hang <-chan struct{}) func(string) (usage, error) {
	return func(path string) (usage, error) {
		switch path {
		case "/":
			return usage{size: 1e9, free: 4e8, available: 3e8, inodes: 1000, inodesFree: 900}, nil
		case "/mnt/share one":
			return usage{size: 2e9, free: 1e9, available: 1e9}, nil
		case "/mnt/gone":
			return usage{}, errors.New("stale file handle")
		case "/mnt/hangs":
			<-hang
			return usage{size: 1}, nil
		case "/mnt/unmounted":
			return usage{}, os.ErrNotExist
		}
		return usage{}, nil
	}
}

func TestHostGivesWhatTheKernelCounts(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	h := buildKind[HostConfig](t, "{proc: testdata/host/proc}").(*host)
	h.mounts.statfs = fixtureStatfs(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	fams, err := h.Collect(ctx)
	want := "ask file system /mnt/gone (nfs4): stale file handle\nask file system /mnt/hangs (nfs4): no answer yet"
	if got := fmt.Sprint(err); got != want {
		t.Errorf("got error %q, want %q", got, want)
	}
	checkFamilies(t, fams, hostDescs.list())
	for _, d := range hostDescs {
		if !hasSeries(fams, d.Name) {
			t.Errorf("the fixture does not show %s", d.Name)
		}
	}
	compareGolden(t, "testdata/host/want.txt", fams)
}

func TestHostKeepsItsTags(t *testing.T) {
	h := buildKind[HostConfig](t, "{proc: testdata/host/proc, groups: [cpu, disk]}")
	first, err := h.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	was := textOf(first)
	second, err := h.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if textOf(first) != was || textOf(second) != was {
		t.Error("the second read differs from the first, or changed it")
	}
	for i, f := range second {
		for j, p := range f.Points {
			if before := first[i].Points[j].Tags; len(p.Tags) > 0 && &before[0] != &p.Tags[0] {
				t.Fatalf("%s %v has new slices of tags", f.Desc.Name, p.Tags)
			}
		}
	}
	if hasSeries(first, "outrider_host_load") {
		t.Error("load was read, which is in none of the groups")
	}
}

// TestAHungFileSystemHoldsNothingUp reads again and again while one mount
// hangs: it is asked once, and the reads after the first do not wait for it.
func TestAHungFileSystemHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var asked atomic.Int32
		h := buildKind[HostConfig](t, "{proc: testdata/host/proc, groups: [filesystem]}").(*host)
		answer := fixtureStatfs(hang)
		h.mounts.statfs = func(path string) (usage, error) {
			if path == "/mnt/hangs" {
				asked.Add(1)
			}
			return answer(path)
		}
		collect := func() ([]metrics.Family, time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			start := time.Now()
			fams, err := h.Collect(ctx)
			if hung := strings.Contains(fmt.Sprint(err), "/mnt/hangs"); hung != (valueOf(t, fams, "outrider_host_filesystem_failed", "/mnt/hangs", "nfs4") == 1) {
				t.Errorf("the metric and the error do not agree: %v", err)
			}
			return fams, time.Since(start)
		}
		fams, took := collect()
		if took != patience {
			t.Errorf("took %v, want %v", took, patience)
		}
		if valueOf(t, fams, "outrider_host_filesystem_size_bytes", "/", "ext4") != 1e9 {
			t.Error("the hung file system took others with it")
		}
		for range 5 {
			if _, took := collect(); took != 0 {
				t.Errorf("a later read took %v, want none", took)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times while it hung, want once", n)
		}
		close(hang)
		synctest.Wait()
		if collect(); asked.Load() != 2 {
			t.Error("it was not asked again after it had answered")
		}
	})
}

func TestManyHungFileSystemsAreBounded(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	var asked atomic.Int32
	p := newMountProber(func(string) (usage, error) { asked.Add(1); <-hang; return usage{}, nil })
	for i := range 10 * maxAsking {
		p.ask([]mount{{point: "/" + strconv.Itoa(i)}}, "/")
	}
	if n := len(p.asking); n != maxAsking {
		t.Errorf("%d hang, want %d", n, maxAsking)
	}
}

// copyTree copies a fixture, so that a test can break it.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func writeIn(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestABrokenFileTakesNothingWithIt breaks each file in turn.
func TestABrokenFileTakesNothingWithIt(t *testing.T) {
	const noise = "\x00\xff(:\x01 not what\nthe kernel\nwrites 1 2 : 3\n"
	for _, name := range []string{
		"stat", "loadavg", "uptime", "sys/kernel/random/entropy_avail", "sys/fs/file-nr", "meminfo", "vmstat",
		"pressure/io", "diskstats", "self/mountinfo", "net/dev", "net/softnet_stat", "net/snmp", "net/netstat", "net/snmp6",
		"net/sockstat", "net/tcp", "net/tcp6", "net/stat/nf_conntrack", "sys/net/netfilter/nf_conntrack_count", "net/rpc/nfs", "net/rpc/nfsd",
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyTree(t, "testdata/host/proc")
			writeIn(t, dir, name, noise)
			h := buildKind[HostConfig](t, fmt.Sprintf("{proc: %s}", dir)).(*host)
			h.mounts.statfs = func(string) (usage, error) { return usage{size: 1}, nil }
			fams, err := h.Collect(t.Context())
			at := filepath.Join(dir, name)
			if !strings.Contains(fmt.Sprint(err), "read "+at) {
				t.Errorf("got error %v, want one that names %s", err, at)
			}
			if len(fams) < 30 {
				t.Errorf("got %d families besides", len(fams))
			}
			checkFamilies(t, fams, hostDescs.list())
		})
	}
}

func TestWhatTheKernelDoesNotHaveIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	stat, err := os.ReadFile("testdata/host/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	writeIn(t, dir, "stat", string(stat))
	fams, err := buildKind[HostConfig](t, fmt.Sprintf("{proc: %s}", dir)).Collect(t.Context())
	if err != nil || !hasSeries(fams, "outrider_host_cpus") {
		t.Errorf("got %v and error %v, want the CPUs and none", fams, err)
	}
	if err := os.Remove(filepath.Join(dir, "stat")); err != nil {
		t.Fatal(err)
	}
	if _, err = buildKind[HostConfig](t, fmt.Sprintf("{proc: %s}", dir)).Collect(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v for a place that is no proc, want one", err)
	}
}

func TestTooManyDevicesAreNamed(t *testing.T) {
	dir := copyTree(t, "testdata/host/proc")
	var b strings.Builder
	for i := range maxHostItems + 10 {
		fmt.Fprintf(&b, " 253 %d dm-%d 1 1 1 1 1 1 1 1 1 1 1\n", i, i)
	}
	writeIn(t, dir, "diskstats", b.String())
	fams, err := buildKind[HostConfig](t, fmt.Sprintf("{proc: %s, groups: [disk]}", dir)).Collect(t.Context())
	if !strings.Contains(fmt.Sprint(err), "got 260, want 250 at most: the others are left out; choose with exclude_devices") {
		t.Errorf("got error %v", err)
	}
	checkFamilies(t, fams, hostDescs.list())
}

func TestHostConfigSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"{exclude_mounts: '('}":   "kind.exclude_mounts: got error parsing regexp: missing closing ): `(`, want a regular expression (RE2)",
		"{groups: [cpu, cheese]}": "kind.groups[1]: got cheese, want one of conntrack, cpu, disk",
	} {
		_, err := config.Parse("f.yaml", []byte("kind: "+text), ".", config.Options{Sections: map[string]any{"kind": new(HostConfig)}})
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestDefaultsLeaveOutWhatIsNoDisk(t *testing.T) {
	c := configured[HostConfig](t, "{}")
	for _, tt := range []struct {
		pattern, out, in string
	}{
		{c.ExcludeDevices, "loop0 ram1 zram0 sda1 vdb12 nvme0n1p2 mmcblk0p1", "sda sdaa nvme0n1 mmcblk0 dm-0 md127"},
		{c.ExcludeMounts, "/dev /dev/shm /proc /sys/fs/cgroup /run/user/1000/doc /var/lib/docker/overlay2/x /var/lib/kubelet/pods/y", "/ /run /home /var/lib /devices /etc/hosts"},
		{c.ExcludeInterfaces, "veth1a2b cali12 lxc9 ifb0 dummy0", "lo eth0 ens5 bond0 docker0 wg0"},
	} {
		re, err := wholeName(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.FieldsSeq(tt.out) {
			if !leaveOut(re, name) {
				t.Errorf("%s is not left out", name)
			}
		}
		for name := range strings.FieldsSeq(tt.in) {
			if leaveOut(re, name) {
				t.Errorf("%s is left out", name)
			}
		}
	}
}

func TestHostOnThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	h := buildKind[HostConfig](t, "{exclude_mounts: '/(dev|proc|sys|tmp)(/.*)?'}")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	fams, err := h.Collect(ctx)
	if err != nil {
		t.Log(err) // a machine may have mounts that fail
	}
	checkFamilies(t, fams, hostDescs.list())
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(info), "MemTotal:")
	kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if got := valueOf(t, fams, "outrider_host_memory_total_bytes"); got != kib*1024 {
		t.Errorf("got %v bytes of memory, want %v", got, kib*1024)
	}
	up := valueOf(t, fams, "outrider_host_uptime_seconds")
	boot := valueOf(t, fams, "outrider_host_boot_time_seconds")
	if now := float64(time.Now().Unix()); up < 1 || boot < 1e9 || boot > now {
		t.Errorf("up for %v since %v, now it is %v", up, boot, now)
	}
	if idle := valueOf(t, fams, "outrider_host_cpu_seconds_total", "idle"); idle <= 0 {
		t.Errorf("idle for %v", idle)
	}
}

func TestTCPSocketsAreListedSeldom(t *testing.T) {
	dir := copyTree(t, "testdata/host/proc")
	h := buildKind[HostConfig](t, fmt.Sprintf("{proc: %s, groups: [sockets]}", dir)).(*host)
	now := time.Unix(1e9, 0)
	h.now = func() time.Time { return now }
	listening := func() float64 {
		fams, err := h.Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return valueOf(t, fams, "outrider_host_tcp_sockets", "listen")
	}
	if n := listening(); n != 2 {
		t.Errorf("got %v, want 2", n)
	}
	writeIn(t, dir, "net/tcp", "names\n")
	now = now.Add(listEvery - time.Second)
	if n := listening(); n != 2 {
		t.Errorf("got %v too early, want 2", n)
	}
	now = now.Add(time.Second)
	if n := listening(); n != 1 {
		t.Errorf("got %v, want 1", n)
	}
	writeIn(t, dir, "net/sockstat", "TCP: inuse 60000 orphan 0 tw 0 alloc 0 mem 0\n")
	fams, err := h.Collect(t.Context())
	if err != nil || hasSeries(fams, "outrider_host_tcp_sockets") {
		t.Errorf("60000 sockets were listed, or %v", err)
	}
}

func BenchmarkHostCollect(b *testing.B) {
	h := buildKind[HostConfig](b, "{exclude_mounts: '/(dev|proc|sys|tmp)(/.*)?'}")
	b.ReportAllocs()
	for b.Loop() {
		fams, _ := h.Collect(b.Context())
		if len(fams) == 0 {
			b.Fatal("no families")
		}
	}
}
