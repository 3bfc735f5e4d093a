package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// mostUnnoticed is how long a connection that is half open may go unnoticed.
const mostUnnoticed = 60 * time.Second

// metricsURL is where a demo says that the agent's metrics are, and readEvents a
// line of these: how many events a stream has read. Read-only.
var metricsURL, readEvents = regexp.MustCompile(`http://\S+/metrics`), regexp.MustCompile(`^outrider_pipeline_in_total\{pipeline="watch",target="([^"]*)"[^}]*\} (\S+)$`)

// A demoResult is what outrider demo --json prints, as far as tests concern it.
type demoResult struct {
	Lost       *int64           `json:"lost"`
	Balance    *int64           `json:"balance"`
	Unexpected int64            `json:"unexpected"`
	Contradict int64            `json:"contradictions"`
	Offered    int64            `json:"offered"`
	Unseen     int64            `json:"unseen"`
	Duplicates int64            `json:"duplicates"`
	Gaps       int64            `json:"gaps"`
	GapsDue    int64            `json:"gaps_due"`
	P99        float64          `json:"p99_ms"`
	Longest    float64          `json:"longest_ms"`
	Memory     int64            `json:"agent_rss_bytes"`
	Answers    map[string]int64 `json:"answers"`

	pause time.Duration // the longest that one stream said nothing; not printed
}

// A faultScript is one run of the demo in which the cluster fails in one way.
type faultScript struct {
	name   string
	script string
	lasts  time.Duration
	gaps   bool // the history is taken away: what came and went meanwhile nobody can tell
	struck func(t *testing.T, r demoResult)
}

// faultScripts are those of the acceptance, the longest first. Each says how it
// is known that the fault has struck.
func faultScripts() []faultScript {
	return []faultScript{
		{
			name: "429 on everything for a minute", lasts: 75 * time.Second,
			script: "5s cut\n5s..65s too-many\n",
			struck: func(t *testing.T, r demoResult) {
				r.answered(t, 10, "watch 429", "list 429")
				if r.Longest < 50_000 {
					t.Errorf("the longest latency is %.0f ms, want about the minute in which nothing could be read", r.Longest)
				}
			},
		},
		{
			name: "half-open connections", lasts: 65 * time.Second,
			script: "5s half-open\n",
			struck: func(t *testing.T, r demoResult) {
				t.Logf("half-open connections went unnoticed for %s", r.pause)
				if r.pause < 5*time.Second || r.pause > mostUnnoticed {
					t.Errorf("some stream said nothing for %s, want 5s at least, for the fault, and %s at most", r.pause, mostUnnoticed)
				}
			},
		},
		{
			name: "permission withdrawn and given back", lasts: 45 * time.Second,
			script: "10s..25s forbid pods\n",
			struck: func(t *testing.T, r demoResult) { r.answered(t, 1, "watch 403", "list 403") },
		},
		{
			name: "definition deleted and recreated", lasts: 40 * time.Second, gaps: true,
			script: "10s..18s remove trainings.sim.outrider.dev\n",
			struck: func(t *testing.T, r demoResult) {
				r.answered(t, 1, "watch 404", "list 404")
				if r.Gaps != 1 {
					t.Errorf("%d gaps, want 1, of the trainings", r.Gaps)
				}
			},
		},
		{
			name: "410 storm", lasts: 35 * time.Second, gaps: true,
			script: "5s..25s compact every=1s\n5s..25s end-watch every=1s\n",
			struck: func(t *testing.T, r demoResult) {
				if r.Unseen == 0 {
					t.Error("nothing came and went unseen, want some of what the history said")
				}
			},
		},
		{
			name: "watches ended every second", lasts: 35 * time.Second,
			script: "5s..30s end-watch every=1s\n",
			struck: func(t *testing.T, r demoResult) { r.answered(t, 50, "watch 200") },
		},
		{name: "clock an hour on", lasts: 30 * time.Second, script: "10s clock by=1h\n"},
		{name: "clock an hour back", lasts: 30 * time.Second, script: "10s clock by=-1h\n"},
	}
}

// answered wants that many answers at least of the kinds given.
func (r demoResult) answered(t *testing.T, least int64, kinds ...string) {
	t.Helper()
	var n int64
	for _, kind := range kinds {
		n += r.Answers[kind]
	}
	if n < least {
		t.Errorf("the cluster answered %v, want %s %d times at least", r.Answers, strings.Join(kinds, " or "), least)
	}
}

// TestDemoUnderFaults has the whole demo, as a user runs it, under each of the
// faults, and believes what its oracle finds.
func TestDemoUnderFaults(t *testing.T) {
	if env == nil && os.Getenv("OUTRIDER_FAULTS") == "" {
		t.Skip("DEVCLUSTER is not set: run make e2e, or set OUTRIDER_FAULTS=1, since this test needs no real API server")
	}
	binary := outriderBinary(t)
	var starting sync.Mutex // two agents that choose their ports at once choose the same
	var wg sync.WaitGroup
	for i, f := range faultScripts() { // all at once, where t.Parallel would be as many as there are cores
		wg.Go(func() {
			t.Run(f.name, func(t *testing.T) {
				r := f.run(t, binary, 5+i, &starting)
				f.judge(t, r)
			})
		})
	}
	wg.Wait()
}

func (f faultScript) judge(t *testing.T, r demoResult) {
	t.Helper()
	r.isWhole(t)
	switch {
	case !f.gaps && (r.Gaps != 0 || r.GapsDue != 0 || r.Unseen != 0):
		t.Errorf("%d gaps, %d due, %d unseen, want none: the history was held", r.Gaps, r.GapsDue, r.Unseen)
	case f.gaps && (r.Gaps != r.GapsDue || r.GapsDue == 0):
		t.Errorf("%d gaps, want those %d that the cluster has made, and at least 1", r.Gaps, r.GapsDue)
	}
	if least := int64(40 * f.lasts.Seconds() / 2); r.Offered < least {
		t.Errorf("%d changes were offered, want %d at least", r.Offered, least)
	}
	if f.struck != nil {
		f.struck(t, r)
	}
}

// isWhole wants nothing lost, nothing told that must not be, and books that balance.
func (r demoResult) isWhole(t *testing.T) {
	t.Helper()
	if r.Lost == nil || *r.Lost != 0 || r.Balance == nil || *r.Balance != 0 || r.Unexpected != 0 || r.Contradict != 0 {
		t.Errorf("lost %s, balance %s, unexpected %d, contradictions %d, want none", orUnknown(r.Lost), orUnknown(r.Balance), r.Unexpected, r.Contradict)
	}
}

func orUnknown(n *int64) string {
	if n == nil {
		return "not known"
	}
	return fmt.Sprint(*n)
}

// run runs the demo to its end.
func (f faultScript) run(t *testing.T, binary string, seed int, starting *sync.Mutex) (r demoResult) {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "faults")
	if err := os.WriteFile(script, []byte(f.script), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), f.lasts+3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "demo", "--json", "--rate", "40", "--workloads", "300",
		"--for", f.lasts.String(), "--drain", "30s", "--seed", fmt.Sprint(seed), "--faults", script)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var out bytes.Buffer
	cmd.Stdout = &out
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	starting.Lock()
	begun := sync.OnceFunc(starting.Unlock)
	defer begun()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	watched, metrics := make(chan time.Duration, 1), ""
	for lines := bufio.NewScanner(said); lines.Scan(); {
		line := lines.Text()
		fmt.Fprintln(&text, line)
		if url := metricsURL.FindString(line); url != "" && metrics == "" {
			metrics = url
			go func() { watched <- longestPause(ctx, metrics, begun) }()
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("outrider demo: %v", err)
	}
	cancel()
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("the result: %v\n%s\n%s", err, out.Bytes(), text.Bytes())
	}
	if metrics == "" {
		t.Fatalf("it does not say where the metrics are:\n%s", text.Bytes())
	}
	r.pause = <-watched
	t.Logf("%s", bytes.TrimSpace(out.Bytes()))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", text.Bytes())
		}
	})
	return r
}

// longestPause reads an agent's metrics until ctx ends or nobody answers any
// more, and returns the longest time for which one of the streams that always
// have something to say said nothing. It calls begun once the agent answers.
func longestPause(ctx context.Context, url string, begun func()) (longest time.Duration) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	type said struct {
		events float64
		last   time.Time
	}
	streams := map[string]*said{"jobs": {}, "pods": {}, "trainings.sim.outrider.dev": {}}
	answered, refused := false, 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for refused < 20 {
		select {
		case <-ctx.Done():
			return longest
		case <-tick.C:
		}
		events, err := eventsRead(ctx, client, url)
		if err != nil {
			if answered {
				refused++
			}
			continue
		}
		answered, refused = true, 0
		begun()
		for name, s := range streams {
			if n := events[name]; n > s.events {
				now := time.Now()
				if !s.last.IsZero() {
					longest = max(longest, now.Sub(s.last))
				}
				s.events, s.last = n, now
			}
		}
	}
	return longest
}

// eventsRead is how many events each stream has read.
func eventsRead(ctx context.Context, client *http.Client, url string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if m := readEvents.FindStringSubmatch(lines.Text()); m != nil {
			if out[m[1]], err = strconv.ParseFloat(m[2], 64); err != nil {
				return nil, err
			}
		}
	}
	return out, lines.Err()
}
