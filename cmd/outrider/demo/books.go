package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	sinkName    = "platform"
	scrapeLimit = 2 * time.Second
)

// books are what the agent's own metrics say of the way that changes take.
type books struct {
	Captured int64  // changes that became durable: the number of the ledger's last
	Waiting  int64  // in all its pipelines
	Retries  int64  // of deliveries
	Drops    int64  // in all its pipelines
	Balance  *int64 // what the pipelines' balances are off, added up; nil: one of them is not known
	Memory   int64  // bytes of the process; 0: not known
}

// readBooks reads the agent's /metrics.
func readBooks(ctx context.Context, client *http.Client, url string) (books, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return books{}, fmt.Errorf("read metrics: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return books{}, fmt.Errorf("read metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return books{}, fmt.Errorf("read metrics: status %d, want 200", resp.StatusCode)
	}
	return parseBooks(resp.Body)
}

// parseBooks adds up the pipelines that changes go through, of an exposition in
// Prometheus' text format, as far as it needs it.
func parseBooks(r io.Reader) (books, error) {
	var b books
	pipelines, balances, off := 0, 0, 0.0
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), " ")
		if at := strings.LastIndex(lines.Text(), "} "); at >= 0 {
			series, value, ok = lines.Text()[:at+1], lines.Text()[at+2:], true
		}
		if !ok || strings.HasPrefix(series, "#") {
			continue
		}
		name, tags, _ := strings.Cut(series, "{")
		term, isPipeline := strings.CutPrefix(name, "outrider_pipeline_")
		if isPipeline && isBeside(tags) {
			continue
		}
		if !isPipeline && name != "process_resident_memory_bytes" && name != "outrider_ledger_head" {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return books{}, fmt.Errorf("metrics: %.100q: %w", lines.Text(), err)
		}
		delivered := strings.Contains(tags, `pipeline="delivery"`) && strings.Contains(tags, `target="`+sinkName+`"`)
		switch {
		case name == "outrider_ledger_head":
			b.Captured = int64(n)
		case !isPipeline:
			b.Memory = int64(n)
		case term == "in_total":
			pipelines++
		case term == "queued":
			b.Waiting += int64(n)
		case term == "drops_total":
			b.Drops += int64(n)
		case term == "retries_total" && delivered:
			b.Retries += int64(n)
		case term == "balance":
			balances++
			off += math.Abs(n)
		}
	}
	if err := lines.Err(); err != nil {
		return books{}, fmt.Errorf("metrics: %w", err)
	}
	if pipelines > 0 && pipelines == balances {
		whole := int64(off)
		b.Balance = &whole
	}
	return b, nil
}

// isBeside reports whether a pipeline is none that changes go through: one of a
// neighbour, or of the points of an exporter.
func isBeside(tags string) bool {
	return strings.Contains(tags, `service="`) || strings.Contains(tags, `pipeline="export"`)
}
