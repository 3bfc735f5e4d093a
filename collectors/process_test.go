package collectors

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

func TestProcessGivesTheSumOfAll(t *testing.T) {
	dir := copyTree(t, "testdata/process/proc")
	c := buildKind[ProcessConfig](t, fmt.Sprintf("{unit: web, proc: %s}", dir))
	fams, err := c.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkFamilies(t, fams, processDescs.list())
	for _, d := range processDescs {
		if !hasSeries(fams, d.Name) {
			t.Errorf("the fixture does not show %s", d.Name)
		}
	}
	compareGolden(t, "testdata/process/want.txt", fams)
}

func TestProcessesAreFound(t *testing.T) {
	dir := copyTree(t, "testdata/process/proc")
	writeIn(t, dir, "pid", " 200 \n")
	writeIn(t, dir, "empty", "\n")
	long := filepath.Join(dir, "300")
	if err := os.CopyFS(long, os.DirFS(filepath.Join(dir, "100"))); err != nil {
		t.Fatal(err)
	}
	writeIn(t, long, "cgroup", "0::/user.slice\n")
	writeIn(t, long, "comm", "a-program-with-\n")
	writeIn(t, long, "cmdline", "/usr/bin/a-program-with-a-long-name\x00-v\x00")
	for config, want := range map[string]float64{
		"name: web) S (x":                          2,
		"name: other":                              1,
		"name: nothing":                            0,
		"name: a-program-with-a-long-name":         1,
		"name: a-program-with-another-name":        0,
		"name: a-program-with-":                    1,
		"unit: web.service":                        2,
		"unit: other.service":                      1,
		"unit: other.socket":                       0,
		"pid: 101":                                 1,
		"pid: 4000":                                0,
		"pidfile: " + filepath.Join(dir, "pid"):    1,
		"pidfile: " + filepath.Join(dir, "empty"):  0,
		"pidfile: " + filepath.Join(dir, "nobody"): 0,
	} {
		fams, err := buildKind[ProcessConfig](t, fmt.Sprintf("{%s, proc: %s}", config, dir)).Collect(t.Context())
		if err != nil {
			t.Errorf("%s: %v", config, err)
			continue
		}
		if got := valueOf(t, fams, "outrider_process_running", "item"); got != want {
			t.Errorf("%s: found %v, want %v", config, got, want)
		}
	}
}

// TestProcessCountersOnlyGrow lets processes end and begin between reads.
func TestProcessCountersOnlyGrow(t *testing.T) {
	dir := copyTree(t, "testdata/process/proc")
	c := buildKind[ProcessConfig](t, fmt.Sprintf("{name: 'web) S (x', proc: %s}", dir))
	collect := func() []metrics.Family {
		t.Helper()
		fams, err := c.Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return fams
	}
	check := func(step string, count, starts, cpu, io float64) {
		t.Helper()
		fams := collect()
		for name, want := range map[string]float64{"running": count, "starts_total": starts} {
			if got := valueOf(t, fams, "outrider_process_"+name, "item"); got != want {
				t.Errorf("%s: %s is %v, want %v", step, name, got, want)
			}
		}
		if got := valueOf(t, fams, "outrider_process_cpu_seconds_total", "item", "user"); math.Abs(got-cpu) > 1e-9 {
			t.Errorf("%s: %v seconds of CPU, want %v", step, got, cpu)
		}
		if got := valueOf(t, fams, "outrider_process_io_bytes_total", "item", "read"); got != io {
			t.Errorf("%s: %v bytes read, want %v", step, got, io)
		}
	}
	check("at first", 2, 0, 12, 8192)
	if err := os.RemoveAll(filepath.Join(dir, "101")); err != nil { // it had 2 s and 4096 bytes
		t.Fatal(err)
	}
	check("one ended", 1, 0, 12, 8192)
	stat, err := os.ReadFile(filepath.Join(dir, "100/stat"))
	if err != nil {
		t.Fatal(err)
	}
	writeIn(t, dir, "100/stat", strings.Replace(string(stat), " 1000 500 ", " 1300 500 ", 1))
	check("one worked for 3 s", 1, 0, 15, 8192)
	writeIn(t, dir, "100/stat", strings.NewReplacer(" 1000 500 ", " 100 50 ", " 12000 ", " 90000 ").Replace(string(stat)))
	check("one began anew under its PID", 1, 1, 16, 12288)
	writeIn(t, dir, "100/stat", strings.NewReplacer(") S ", ") Z ", " 1000 500 ", " 200 50 ", " 12000 ", " 90000 ").Replace(string(stat)))
	check("it is a zombie", 1, 1, 17, 12288)
	if err := os.RemoveAll(filepath.Join(dir, "100")); err != nil {
		t.Fatal(err)
	}
	check("none is left", 0, 1, 17, 12288)
}

// TestWhatIsHiddenCountsOnce takes a file away for a while.
func TestWhatIsHiddenCountsOnce(t *testing.T) {
	dir := copyTree(t, "testdata/process/proc")
	c := buildKind[ProcessConfig](t, fmt.Sprintf("{pid: 100, proc: %s}", dir))
	file := filepath.Join(dir, "100/io")
	for _, step := range []string{"before", "hidden", "after"} {
		var err error
		switch step {
		case "hidden":
			err = os.Rename(file, file+".away")
		case "after":
			err = os.Rename(file+".away", file)
		}
		if err != nil {
			t.Fatal(err)
		}
		fams, err := c.Collect(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if seen := hasSeries(fams, "outrider_process_io_bytes_total"); seen != (step != "hidden") {
			t.Errorf("%s: shown is %t", step, seen)
		} else if seen && valueOf(t, fams, "outrider_process_io_bytes_total", "item", "read") != 4096 {
			t.Errorf("%s: %s", step, textOf(fams))
		}
	}
}

func TestAProcessThatBecomesAnotherProgramIsFound(t *testing.T) {
	dir := copyTree(t, "testdata/process/proc")
	f := processFinder{proc: dir, name: "late"}
	young := processFinder{proc: dir, name: "late"}
	if pids, err := young.find(t.Context()); err != nil || len(pids) != 0 {
		t.Fatal(pids, err)
	}
	find := func() int {
		t.Helper()
		pids, err := f.find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(pids)
	}
	for range firstLooks {
		if find() != 0 {
			t.Fatal("found what is not there")
		}
	}
	writeIn(t, dir, "200/comm", "late\n")
	if pids, err := young.find(t.Context()); err != nil || len(pids) != 1 {
		t.Errorf("got %v and %v of a young process, want it at once", pids, err)
	}
	looks := 1
	for ; find() == 0 && looks <= seldom; looks++ {
	}
	if looks > seldom {
		t.Errorf("not found within %d looks", seldom)
	}
	if find() != 1 {
		t.Error("lost again")
	}
	writeIn(t, dir, "200/comm", "other\n")
	if find() != 0 {
		t.Error("still found under its old name")
	}
}

func TestProcessErrorsNameTheFile(t *testing.T) {
	for _, file := range []string{"stat", "status", "io", "limits"} {
		dir := copyTree(t, "testdata/process/proc")
		writeIn(t, dir, "100/"+file, "100 (web\nvoluntary_ctxt_switches: x\nrchar: y\n")
		fams, err := buildKind[ProcessConfig](t, fmt.Sprintf("{name: 'web) S (x', proc: %s}", dir)).Collect(t.Context())
		if want := filepath.Join(dir, "100", file) + ": "; !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got error %v, want one of %s", err, want)
		}
		if got := valueOf(t, fams, "outrider_process_running", "item"); got != 1 {
			t.Errorf("%v processes besides, want 1", got)
		}
	}
	dir := copyTree(t, "testdata/process/proc")
	writeIn(t, dir, "pid", "about 100\n")
	fams, err := buildKind[ProcessConfig](t, fmt.Sprintf("{pidfile: %s/pid, proc: %s}", dir, dir)).Collect(t.Context())
	if want := fmt.Sprintf(`read %s/pid: line 1: got "about 100", want a PID`, dir); fmt.Sprint(err) != want || fams != nil {
		t.Errorf("got %v and %v, want %s", fams, err, want)
	}
}

func TestProcessConfigTakesExactlyOne(t *testing.T) {
	for text, want := range map[string]string{
		"{}":                "got none of them, want exactly one of pid, pidfile, name, unit",
		"{pid: 1, name: a}": "got pid and name, want exactly one of pid, pidfile, name, unit",
		"{pid: -1}":         "kind.pid: got -1, want 1 or more",
		"{name: /bin/a}":    "kind.name: got /bin/a, want a name without its folder",
		"{unit: a/b}":       "kind.unit: got a/b, want a unit such as payments.service",
	} {
		_, err := config.Parse("f.yaml", []byte("kind: "+text), ".", config.Options{Sections: map[string]any{"kind": new(ProcessConfig)}})
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestProcessOnThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	began := time.Now()
	c := buildKind[ProcessConfig](t, "{pid: "+strconv.Itoa(os.Getpid())+"}")
	fams, err := c.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.ParseFloat(strings.Fields(string(statm))[1], 64)
	want, got := pages*float64(os.Getpagesize()), valueOf(t, fams, "outrider_process_resident_memory_bytes", "item")
	if got < want*0.8 || got > want*1.25 {
		t.Errorf("%v bytes resident, want about %v", got, want)
	}
	if start := valueOf(t, fams, "outrider_process_oldest_start_time_seconds", "item"); math.Abs(float64(began.Unix())-start) > 600 {
		t.Errorf("began at %v, which is not near %v", start, began.Unix())
	}
	for _, name := range []string{"threads", "open_files", "open_files_limit", "virtual_memory_bytes"} {
		if v := valueOf(t, fams, "outrider_process_"+name, "item"); v < 1 {
			t.Errorf("%s is %v", name, v)
		}
	}
}

// BenchmarkFindProcess walks through a proc of 300 processes.
func BenchmarkFindProcess(b *testing.B) {
	dir := b.TempDir()
	for pid := range 300 {
		p := filepath.Join(dir, strconv.Itoa(1000+pid))
		if err := os.Mkdir(p, 0o755); err != nil {
			b.Fatal(err)
		}
		for name, text := range map[string]string{"comm": "something\n", "cgroup": "0::/system.slice/other.service\n"} {
			if err := os.WriteFile(filepath.Join(p, name), []byte(text), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	for name, f := range map[string]*processFinder{ // most looks are those after the first ones
		"name": {proc: dir, name: "web"}, "unit": {proc: dir, unit: "web.service"}, "name-live": {proc: "/proc", name: "web"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if pids, err := f.find(b.Context()); err != nil || len(pids) > 0 {
					b.Fatal(pids, err)
				}
			}
		})
	}
}

func BenchmarkProcessCollect(b *testing.B) {
	c := buildKind[ProcessConfig](b, "{pid: "+strconv.Itoa(os.Getpid())+"}")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Collect(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
