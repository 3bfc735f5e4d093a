package neighbours

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"testing"
)

// A shop is a program with stock metrics that does as it is told.
type shop struct {
	orders io.Writer
	knows  *bufio.Scanner
}

func startShop(t *testing.T, port string) *shop {
	t.Helper()
	cmd := debian("python3", "testdata/shop.py", port)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w := io.Pipe()
	cmd.Stdout = w
	start(t, cmd)
	t.Cleanup(func() { out.Close() })
	return &shop{in, bufio.NewScanner(out)}
}

// does something a number of times, and returns what the shop knows then, as the
// terms of its pipeline.
func (s *shop) does(t *testing.T, what string, times int, why string) pipeline {
	t.Helper()
	if _, err := fmt.Fprintln(s.orders, what, times, why); err != nil {
		t.Fatal(err)
	}
	if !s.knows.Scan() {
		t.Fatalf("the shop says nothing any more: %v", s.knows.Err())
	}
	var told map[string]float64
	if err := json.Unmarshal(s.knows.Bytes(), &told); err != nil {
		t.Fatal(err)
	}
	terms := map[string]string{"receive": "in_total", "work": "out_total", "waits": "queued"}
	out := pipeline{"in_total": 0, "out_total": 0, "balance": told["lose"]}
	for what, n := range told {
		var reason string
		if term := terms[what]; term != "" {
			out[term] = n
		} else if _, err := fmt.Sscanf(what, "drop/%s", &reason); err == nil {
			out["drops_total/"+reason] = n
		} else if _, err := fmt.Sscanf(what, "retry/%s", &reason); err == nil {
			out["retries_total/"+reason] = n
		}
	}
	return out
}

func TestAPythonProgramWithStockMetrics(t *testing.T) {
	needsInstalled(t)
	t.Parallel()
	port := freePort(t)
	s := startShop(t, port)
	a := startAgent(t, `
neighbours:
  - {name: api, metrics: "http://127.0.0.1:`+port+`/metrics", every: 200ms}
pipelines:
  - name: orders
    neighbour: api
    in: {series: orders_received_total}
    out: {series: orders_done_total}
    drops: {series: orders_dropped_total, by: reason}
    retries: {series: orders_retried_total, by: cause}
    queued: {series: orders_depth}
`)
	for _, step := range []struct {
		what  string
		times int
		why   string
	}{
		{"receive", 0, "-"}, // the counters with labels show no series yet
		{"receive", 100, "-"},
		{"work", 40, "-"},
		{"drop", 3, "full"},
		{"drop", 2, "expired"},
		{"retry", 7, "busy"},
		{"work", 55, "-"},
		{"receive", 10, "-"},
		{"lose", 4, "-"}, // this is what the balance is for
	} {
		knows := s.does(t, step.what, step.times, step.why)
		a.wantShown(t, fmt.Sprintf("after %s %d %s", step.what, step.times, step.why), map[string]pipeline{"orders": knows})
	}
}
