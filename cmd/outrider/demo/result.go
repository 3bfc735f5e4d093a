package demo

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// A Result is what a run has shown. Nil: it is not known.
type Result struct {
	Captured     int64    `json:"captured"`     // changes that the agent made durable
	Acknowledged int64    `json:"acknowledged"` // changes that the receiver took, each once
	Lost         *int64   `json:"lost"`         // changes that had to be told and were not
	Duplicates   int64    `json:"duplicates"`   // told again
	Gaps         int64    `json:"gaps"`         // that the agent told of
	P50          *float64 `json:"p50_ms"`       // from the write to the receiver's answer
	P99          *float64 `json:"p99_ms"`
	Longest      *float64 `json:"longest_ms"`
	Memory       int64    `json:"agent_rss_bytes"` // at most
	CPU          float64  `json:"agent_cpu_seconds"`
	Balance      *int64   `json:"balance"`
	OfferedRate  float64  `json:"offered_rate"`  // changes a second that the cluster made, while it did
	AchievedRate float64  `json:"achieved_rate"` // changes a second that the receiver took, up to the last

	Offered     int64  `json:"offered"`     // changes that had to be told
	Unseen      int64  `json:"unseen"`      // of them, those that nobody who watches could know of: they came and went while the history was gone
	GapsDue     int64  `json:"gaps_due"`    // that had to be told: the history was gone
	Undelivered int64  `json:"undelivered"` // of them, on their way when the run was stopped
	Unexpected  int64  `json:"unexpected"`  // changes that were told and must not be
	Seed        uint64 `json:"seed"`

	Contradictions int64 `json:"contradictions"` // of the events' own numbers

	Answers map[string]int64 `json:"answers"` // of the cluster: how many requests were answered how, by verb and code

	interrupted bool
	problem     string   // the first thing that is missing
	different   []string // workloads of which something is, or too much
}

// setLatencies enters what was measured.
func (r *Result) setLatencies(m measured) {
	read := func(q float64) *float64 {
		ms := math.Round(m.Quantile(q)*10_000) / 10
		if math.IsNaN(ms) || math.IsInf(ms, 0) {
			return nil
		}
		return &ms
	}
	r.P50, r.P99 = read(0.5), read(0.99)
	r.Unseen, r.GapsDue, r.Answers = m.unseen, m.due, m.answers
	if m.Count > 0 {
		longest := float64(m.longest.Round(100*time.Microsecond)) / float64(time.Millisecond)
		r.Longest = &longest
	}
}

// verdict is nil when everything was told and nothing else, and the books
// balance.
func (r *Result) verdict() error {
	var wrong []string
	switch {
	case r.interrupted && r.Undelivered > 0:
		wrong = append(wrong, fmt.Sprintf("stopped before all was delivered: %s still on the way", count(r.Undelivered, "change")))
	case r.Lost == nil:
		wrong = append(wrong, "it is not known what was lost")
	case *r.Lost > 0:
		what := fmt.Sprintf("%s lost", count(*r.Lost, "change"))
		if r.problem != "" {
			what += ", the first: " + r.problem
		}
		wrong = append(wrong, what)
	}
	if r.Unexpected > 0 {
		wrong = append(wrong, fmt.Sprintf("%s told that must not be", count(r.Unexpected, "change")))
	}
	if r.Contradictions > 0 {
		wrong = append(wrong, fmt.Sprintf("the events contradict one another: %s", count(r.Contradictions, "time")))
	}
	if r.Gaps < r.GapsDue && !r.interrupted {
		wrong = append(wrong, fmt.Sprintf("%s told, want %d", count(r.Gaps, "gap"), r.GapsDue))
	}
	switch {
	case r.Balance == nil:
		wrong = append(wrong, "the balance is not known")
	case *r.Balance != 0:
		wrong = append(wrong, fmt.Sprintf("the pipelines' books are off by %d, want 0", *r.Balance))
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}

// write writes the result for people.
func (r *Result) write(w io.Writer, took time.Duration) {
	show := func(n *int64) string {
		if n == nil {
			return "not known"
		}
		return fmt.Sprint(*n)
	}
	ms := func(v *float64) string {
		if v == nil {
			return "not known"
		}
		return fmt.Sprintf("%.1f ms", *v)
	}
	fmt.Fprintf(w, "\nafter %s, seed %d:\n", took.Round(100*time.Millisecond), r.Seed)
	fmt.Fprintf(w, "  offered       %d changes, %.0f/s\n", r.Offered, r.OfferedRate)
	fmt.Fprintf(w, "  captured      %d in the ledger\n", r.Captured)
	fmt.Fprintf(w, "  acknowledged  %d by the receiver, %.0f/s; %s, %s\n", r.Acknowledged, r.AchievedRate, count(r.Duplicates, "repeat"), count(r.Gaps, "gap"))
	fmt.Fprintf(w, "  lost          %s; balance %s\n", show(r.Lost), show(r.Balance))
	if r.GapsDue > 0 {
		fmt.Fprintf(w, "  unseen        %d came and went while the cluster's history was gone; %s due\n", r.Unseen, count(r.GapsDue, "gap"))
	}
	if r.Unexpected > 0 {
		fmt.Fprintf(w, "  unexpected    %d told that must not be\n", r.Unexpected)
	}
	fmt.Fprintf(w, "  latency       p50 %s, p99 %s, longest %s\n", ms(r.P50), ms(r.P99), ms(r.Longest))
	fmt.Fprintf(w, "                from the write to the receiver's answer\n")
	fmt.Fprintf(w, "  agent         %s of memory at most, %.1f s of processor time\n", size(r.Memory), r.CPU)
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
