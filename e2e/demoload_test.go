package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// mostMemory is what the agent may have at most, whatever waits: bytes.
const mostMemory = 300 << 20

// waitingColumn is the live line's: time, offered, in, delivered, waiting. Read-only.
var waitingColumn = regexp.MustCompile(`(?m)^ +[0-9:]+ +[0-9.kM]+ +[0-9.kM]+ +[0-9.kM]+ +([0-9.]+)([kM]?) `)

// TestDemoUnderLoad puts on loads that no real API server on two cores can. With
// OUTRIDER_BUDGETS the loads are those of the budgets and held to these; without,
// they are smaller, and times are held to ten times as much: those of the best of three
// runs, since what else the machine does only adds to them.
func TestDemoUnderLoad(t *testing.T) {
	needCluster(t)
	whole := os.Getenv("OUTRIDER_BUDGETS") != ""
	t.Run("steady", func(t *testing.T) {
		lasts, most, tries := "10s", 2500.0, 3
		if whole {
			lasts, most, tries = "30s", 250, 1
		}
		best := math.Inf(1)
		for range tries {
			r, _ := loadDemo(t, "--rate", "2000", "--for", lasts)
			if best = min(best, r.P99); best <= most {
				return
			}
		}
		t.Errorf("p99 %.0f ms, want %.0f at most", best, most)
	})
	t.Run("spike", func(t *testing.T) {
		load, least := []string{"--rate", "200", "--spike", "4000/4s@2s", "--receiver-rate", "800", "--for", "8s"}, 5000.0
		if whole {
			load, least = []string{"--rate", "500", "--spike", "10000/10s@5s", "--receiver-rate", "1500", "--for", "20s"}, 50_000
		}
		_, waited := loadDemo(t, load...)
		if waited < least {
			t.Errorf("at most %.0f changes waited by the live line, want %.0f at least: it did not bend", waited, least)
		}
	})
}

// loadDemo runs the demo as three processes until all is delivered, and wants
// nothing lost, and no more memory than the bound. It returns the most changes
// that waited, by the live line, too.
func loadDemo(t *testing.T, load ...string) (r demoResult, waited float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, env.outrider, append([]string{"demo", "--separate", "--json", "--seed", "7", "--drain", "5m"}, load...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	t.Logf("%v: %s", load, bytes.TrimSpace(out.Bytes()))
	if failed := json.Unmarshal(out.Bytes(), &r); err != nil || failed != nil {
		t.Fatalf("outrider demo: %v; its result: %v\n%s", err, failed, said.Bytes())
	}
	r.isWhole(t)
	if r.Gaps != 0 || r.Duplicates != 0 {
		t.Errorf("%d gaps, %d told again, want none\n%s", r.Gaps, r.Duplicates, said.Bytes())
	}
	if r.Memory > mostMemory {
		t.Errorf("the agent had %d MiB, want %d at most", r.Memory>>20, mostMemory>>20)
	}
	for _, m := range waitingColumn.FindAllStringSubmatch(said.String(), -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		waited = max(waited, n*map[string]float64{"": 1, "k": 1e3, "M": 1e6}[m[2]])
	}
	return r, waited
}
