package collectors

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/agent/config"
)

func TestCgroupOfVersion2(t *testing.T) {
	dir := copyTree(t, "testdata/cgroup/v2")
	if err := os.MkdirAll(filepath.Join(dir, "sys/dev/block"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../devices/pci0/virtio1/block/vda", filepath.Join(dir, "sys/dev/block/254:0")); err != nil {
		t.Fatal(err)
	}
	fams, err := buildKind[CgroupConfig](t, fmt.Sprintf("{proc: %s/proc, sys: %s/sys}", dir, dir)).Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkFamilies(t, fams, cgroupDescs.list())
	for _, name := range []string{"outrider_cgroup_memory_high_bytes", "outrider_cgroup_swap_limit_bytes"} {
		if hasSeries(fams, name) {
			t.Errorf("%s is shown, though it is max", name)
		}
	}
	for _, d := range cgroupDescs {
		if limit := strings.Contains(d.Name, "high") || strings.Contains(d.Name, "swap_limit"); !limit && !hasSeries(fams, d.Name) {
			t.Errorf("the fixture does not show %s", d.Name)
		}
	}
	compareGolden(t, "testdata/cgroup/want_v2.txt", fams)
}

func TestCgroupOfVersion1(t *testing.T) {
	const at = "{proc: testdata/cgroup/v1/proc, sys: testdata/cgroup/v1/sys}"
	fams, err := buildKind[CgroupConfig](t, at).Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkFamilies(t, fams, cgroupDescs.list())
	compareGolden(t, "testdata/cgroup/want_v1.txt", fams)
}

func TestCgroupIsFound(t *testing.T) {
	const v2, v1 = "sys: testdata/cgroup/v2/sys, proc: testdata/cgroup/v2/proc", "sys: testdata/cgroup/v1/sys, proc: testdata/cgroup/v1/proc"
	for _, tt := range []struct{ text, want string }{
		{"{path: /app.slice/app.service, " + v2 + "}", ""},
		{"{path: app.slice/app.service, " + v2 + "}", ""},
		{"{path: /app.slice/other.service, " + v2 + "}", "look for control group /app.slice/other.service: stat testdata/cgroup/v2/sys/fs/cgroup/app.slice/other.service: no such file"},
		{"{path: /docker/abc, " + v1 + "}", ""},
		{"{path: /docker/def, " + v1 + "}", "read testdata/cgroup/v1/sys/fs/cgroup: got no control group /docker/def, want one of version 2 or 1"},
		{"{sys: testdata/host, proc: testdata/cgroup/v1/proc}", "read testdata/host/fs/cgroup: got no control group , want one of version 2 or 1"},
		{"{sys: testdata/host, proc: testdata/host/proc}", "read the agent's control group: open testdata/host/proc/self/cgroup: no such file"},
	} {
		fams, err := buildKind[CgroupConfig](t, tt.text).Collect(t.Context())
		if tt.want == "" && (err != nil || valueOf(t, fams, "outrider_cgroup_memory_bytes", "item") != 100<<20) || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.text, err, tt.want)
		}
	}
	_, err := config.Parse("f.yaml", []byte("kind: {path: ../x}"), ".", config.Options{Sections: map[string]any{"kind": new(CgroupConfig)}})
	if !strings.Contains(fmt.Sprint(err), "kind.path: got ../x, want a path below the mount, without ..") {
		t.Errorf("got %v", err)
	}
}

// TestCgroupInAContainer is one that sees its own part of the tree only, while
// its path is the host's.
func TestCgroupInAContainer(t *testing.T) {
	dir := t.TempDir()
	mount := filepath.Join(dir, "sys/fs/cgroup")
	if err := os.CopyFS(mount, os.DirFS("testdata/cgroup/v2/sys/fs/cgroup/app.slice/app.service")); err != nil {
		t.Fatal(err)
	}
	writeIn(t, mount, "cgroup.controllers", "cpu\n")
	fams, err := buildKind[CgroupConfig](t, fmt.Sprintf("{proc: testdata/cgroup/v2/proc, sys: %s/sys}", dir)).Collect(t.Context())
	if err != nil || valueOf(t, fams, "outrider_cgroup_memory_bytes", "item") != 100<<20 {
		t.Errorf("got %v and %v", fams, err)
	}
}

func TestCgroupErrorsNameTheFile(t *testing.T) {
	for _, file := range []string{
		"cpu.stat", "cpu.max", "memory.current", "memory.stat", "memory.max", "memory.high", "memory.events",
		"memory.swap.current", "pids.current", "pids.max", "pids.events", "io.stat", "io.pressure",
	} {
		dir := copyTree(t, "testdata/cgroup/v2")
		group := filepath.Join(dir, "sys/fs/cgroup/app.slice/app.service")
		writeIn(t, group, file, "8:0 rbytes=x\nfull\n")
		fams, err := buildKind[CgroupConfig](t, fmt.Sprintf("{proc: %s/proc, sys: %s/sys}", dir, dir)).Collect(t.Context())
		if want := "read " + filepath.Join(group, file) + ": line 1: got "; !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got error %v, want %s", err, want)
		}
		if len(fams) < 10 {
			t.Errorf("%s: got %d families besides", file, len(fams))
		}
	}
}

func TestCgroupOnThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no control groups")
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
		t.Skip(err)
	}
	fams, err := buildKind[CgroupConfig](t, "{}").Collect(t.Context())
	switch {
	case err != nil && strings.Contains(err.Error(), "got no control group"):
		t.Skip(err) // a container that does not mount them
	case err != nil:
		t.Fatal(err)
	}
	checkFamilies(t, fams, cgroupDescs.list())
	if !hasSeries(fams, "outrider_cgroup_cpu_seconds_total") {
		t.Errorf("no CPU time:\n%s", textOf(fams))
	}
}
