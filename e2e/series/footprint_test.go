package series

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The budgets of a sidecar.
const (
	mostMemory    = 40 << 20 // bytes, resident
	mostProcessor = 0.01     // of a core
	mostStart     = 100 * time.Millisecond
	mostEmbedding = 6e6 // bytes of a binary, over HTTP and client_golang
)

// noise is how many times a budget of time may be exceeded on a busy machine.
const noise = 10

const smallConfig = `service: small
data_dir: ""
listen: {public: "%s", debug: "off", status: "off"}
`

func TestStartToFirstAnswer(t *testing.T) {
	needAgent(t)
	best := time.Hour
	for range 5 {
		public, dir := freeAddress(t, "tcp"), t.TempDir()
		path := filepath.Join(dir, "outrider.yaml")
		if err := os.WriteFile(path, fmt.Appendf(nil, smallConfig, public), 0o600); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		p := start(t, dir, env.outrider, "run", "-c", path)
		for status := 0; status != http.StatusOK; {
			p.running()
			status, _ = get(t, "http://"+public+"/livez")
		}
		best = min(best, time.Since(began))
		p.stop()
	}
	t.Logf("first answer %s after the start, the best of five; the budget is %s", best.Round(time.Millisecond), mostStart)
	if best > noise*mostStart {
		t.Errorf("first answer after %s, want %s at most", best, noise*mostStart)
	}
}

// TestAReadOnlyRoot: a sidecar without a data directory writes nothing.
func TestAReadOnlyRoot(t *testing.T) {
	needAgent(t)
	public, dir := freeAddress(t, "tcp"), t.TempDir()
	path := filepath.Join(dir, "outrider.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, smallConfig, public), 0o600); err != nil {
		t.Fatal(err)
	}
	const readOnly = `mount --make-rprivate / && mount -o remount,bind,ro / && ! touch "$2.there" 2>/dev/null && exec "$1" run -c "$2"`
	p := start(t, "/", "unshare", "--map-root-user", "--mount", "sh", "-c", readOnly, "sh", env.outrider, path)
	waitFor(t, patience, "/metrics of an agent on a read-only root", func() bool {
		p.running()
		status, body := get(t, "http://"+public+"/metrics")
		return status == http.StatusOK && strings.Contains(body, "outrider_history_series")
	})
	p.stop()
}

// TestEmbeddingCosts builds a program with an agent inside and one without.
func TestEmbeddingCosts(t *testing.T) {
	size := func(pkg string) int64 {
		t.Helper()
		path := filepath.Join(t.TempDir(), "program")
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	bare, embedded := size("./testdata/bare"), size("../../examples/embedded")
	t.Logf("embedding costs %.1f MB: %.1f instead of %.1f", float64(embedded-bare)/1e6, float64(embedded)/1e6, float64(bare)/1e6)
	if embedded-bare > mostEmbedding {
		t.Errorf("embedding costs %d bytes, want %.0f at most", embedded-bare, float64(mostEmbedding))
	}
	if embedded <= bare {
		t.Error("the program with an agent is no larger than the one without")
	}
}

// TestTenThousandSeries has 1,000 series read every second and 9,000 every ten, at
// ten times that speed: so six minutes have the samples of an hour. Without
// OUTRIDER_LONG it takes twenty seconds, after which there is less to remember.
func TestTenThousandSeries(t *testing.T) {
	needAgent(t)
	const speed = 10
	lasts := 20 * time.Second
	if os.Getenv("OUTRIDER_LONG") != "" {
		lasts = 7 * time.Minute
	}
	public := freeAddress(t, "tcp")
	a := runAgent(t, public, fmt.Sprintf(smallConfig, public)+fmt.Sprintf(`
history: {keep: 6m}
neighbours:
  - {name: fast, metrics: "%s", every: 100ms}
  - {name: slow, metrics: "%s", every: 1s}
`, neighbourOf(t, 1000), neighbourOf(t, 9000)))
	warm := time.After(10 * time.Second) // the first read of all costs more, and the start
	<-warm
	before, began := a.processor(), time.Now()
	<-time.After(lasts)
	load := (a.processor() - before).Seconds() / time.Since(began).Seconds() / speed
	memory := a.memory()
	samples := a.series()["outrider_history_samples"]
	t.Logf("%.2f %% of a core, %.1f MiB resident, with %.0f samples of the 6,840,000 of an hour", 100*load, float64(memory)/(1<<20), samples)
	if load > noise*mostProcessor {
		t.Errorf("%.2f %% of a core, want %.0f %% at most", 100*load, 100*noise*mostProcessor)
	}
	if memory > mostMemory {
		t.Errorf("%.1f MiB resident, want %d at most", float64(memory)/(1<<20), mostMemory>>20)
	}
	if least := lasts.Seconds() * 1900 * speed / 2; samples < min(least, 6.5e6) {
		t.Errorf("%.0f samples are remembered, want %.0f at least", samples, least)
	}
}

// needAgent skips a test where nothing is installed, and so nothing was built.
func needAgent(t *testing.T) {
	t.Helper()
	if env.outrider == "" {
		t.Skip("nothing is installed: run e2e/series/install.sh, as make e2e does")
	}
}

// neighbourOf shows n series, half of them counters and half gauges, that change.
func neighbourOf(t *testing.T, n int) string {
	t.Helper()
	var reads atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		read := reads.Add(1)
		var b bytes.Buffer
		for m := range n / 50 {
			name, typ := fmt.Sprintf("app_things_%d_total", m), "counter"
			if m%2 == 1 {
				name, typ = fmt.Sprintf("app_level_%d", m), "gauge"
			}
			fmt.Fprintf(&b, "# HELP %s Something.\n# TYPE %s %s\n", name, name, typ)
			for i := range 50 {
				value := strconv.FormatInt(int64(i)*read+rand.Int64N(3), 10)
				if typ == "gauge" {
					value = strconv.FormatFloat(float64(rand.IntN(1000))/10, 'g', -1, 64)
				}
				fmt.Fprintf(&b, "%s{handler=\"/api/v1/things/%d\",code=\"200\",instance=\"a\"} %s\n", name, i, value)
			}
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(b.Bytes())
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// memory is how much of the process is resident: bytes.
func (p *process) memory() int64 {
	p.t.Helper()
	for line := range strings.Lines(p.proc("status")) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	p.t.Fatal("no VmRSS in the process's status")
	return 0
}

// processor is how much processor time the process has used.
func (p *process) processor() time.Duration {
	p.t.Helper()
	text := p.proc("stat")
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // from the third on
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ, which is 100 on every Linux
}

func (p *process) proc(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}
