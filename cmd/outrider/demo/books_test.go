package demo

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/metrics"
)

// TestReadBooks reads what the agent's own exporter writes.
func TestReadBooks(t *testing.T) {
	reg := metrics.NewRegistry() // balances: some are off, to be read as such
	pipeline := func(name, target string, queued int64) *metrics.Pipeline {
		p, err := reg.Pipeline(metrics.PipelineOptions{
			Name: name, Target: target, Unit: "changes", Queue: func() metrics.Queue { return metrics.Queue{Len: queued} },
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	watch := pipeline("watch", `po"ds} 7`, 2)
	watch.In(3_000_000)
	watch.Out(2_999_998)
	d := pipeline("delivery", sinkName, 40)
	d.Carry(100)
	d.In(1000)
	d.Out(1050)
	d.Drop("dead_letter", 3)
	d.Retry("timeout", 4)
	d.Retry("status_5xx", 5)
	other := pipeline("delivery", "archive", 0)
	other.Retry("timeout", 70)
	other.In(1)
	other.Out(1)
	points := pipeline("export", "tsdb", 900) // nothing of it is on the changes' way
	points.In(7)
	points.Drop("queue_full", 50)

	err := reg.Func(metrics.Desc{
		Name: "outrider_ledger_head", Datadog: "outrider.ledger.head", Type: metrics.GaugeType,
		Help: "Number of the last change in the ledger.", Unit: "changes", Budget: 1,
	}, func(yield func(metrics.Point)) { yield(metrics.Point{Value: 1100}) })
	if err != nil {
		t.Fatal(err)
	}

	read := func() books {
		t.Helper()
		s := httptest.NewServer(exporters.PrometheusHandler(reg))
		defer s.Close()
		b, err := readBooks(t.Context(), s.Client(), s.URL)
		if err != nil {
			t.Fatal(err)
		}
		if b.Memory < 1<<20 {
			t.Errorf("memory %d, want what a process has", b.Memory)
		}
		b.Memory = 0
		return b
	}
	off := int64(7)
	if diff := cmp.Diff(books{Captured: 1100, Waiting: 42, Retries: 9, Drops: 3, Balance: &off}, read()); diff != "" {
		t.Error(diff)
	}
	watch.Out(7) // what one pipeline has too much does not make up for what another has not
	off = 14
	if got := read(); got.Balance == nil || *got.Balance != off {
		t.Errorf("balance %v, want %d", got.Balance, off)
	}
	if _, err := reg.Pipeline(metrics.PipelineOptions{Name: "blind", Unit: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := read(); got.Balance != nil {
		t.Errorf("balance %d of a pipeline that does not know its queue, want none", *got.Balance)
	}
}

// A neighbour's pipelines have a service, may be unknown in part, and are no changes
// of ours.
func TestReadBooksLeavesOutNeighbours(t *testing.T) {
	const ours, theirs = `{pipeline="delivery",target="platform",unit="changes"} `, `{pipeline="changes",service="platform",unit="changes"} `
	var text strings.Builder
	for term, n := range map[string]string{"in_total": "3", "queued": "2", "drops_total": "1", "balance": "0"} {
		text.WriteString("outrider_pipeline_" + term + ours + n + "\n")
		if term != "balance" {
			text.WriteString("outrider_pipeline_" + term + theirs + "40\n")
		}
	}
	got, err := parseBooks(strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(books{Waiting: 2, Drops: 1, Balance: new(int64)}, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadBooksSaysWhatItCannotRead(t *testing.T) {
	if _, err := parseBooks(strings.NewReader("outrider_pipeline_queued{a=\"b\"} many\n")); err == nil || !strings.Contains(err.Error(), "many") {
		t.Errorf("got %v, want an error that shows the line", err)
	}
	if b, err := parseBooks(strings.NewReader("")); err != nil || b.Balance != nil {
		t.Errorf("got %+v, %v, want no balance of no pipelines", b, err)
	}
}
