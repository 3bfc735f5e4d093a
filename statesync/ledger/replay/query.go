package replay

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// A Query says what a sink is to be given again. What is not set selects
// nothing out; but something must be.
type Query struct {
	Sink    string
	Letters bool    // its dead letters; else changes of the log
	IDs     []int64 // these dead letters alone

	From, To     int64     // numbers of changes, both included
	Since, Until time.Time // when changes were recorded, and dead letters last refused; Until is not included
	Workload     *statesync.Key
	UID          string
	State        statesync.State // that the workload went to

	Rate   int // a second; 0: as fast as the ledger can
	DryRun bool
}

// Check returns what is wrong with the query, in the words of the command's
// flags: nobody else asks.
func (q *Query) Check() error {
	lives := []statesync.State{
		"", statesync.Queued, statesync.Running, statesync.Succeeded, statesync.Failed,
		statesync.Cancelled, statesync.Deleted, statesync.Untracked,
	}
	narrowed := q.From > 0 || q.To > 0 || !q.Since.IsZero() || !q.Until.IsZero() || q.Workload != nil || q.UID != "" || q.State != ""
	switch {
	case q.Sink == "":
		return errors.New("--sink: got none, want the one to replay to")
	case q.Letters && (q.From > 0 || q.To > 0):
		return errors.New("--from, --to: got them with --dead-letters, want --id: they select changes by number")
	case !q.Letters && len(q.IDs) > 0:
		return errors.New("--id: got it without --dead-letters, want both")
	case !q.Letters && !narrowed:
		return errors.New("got nothing that says what to replay, want --dead-letters, --from, --to, --since, --until, --workload, --uid or --state; all of the log: --from 1")
	case q.From < 0 || q.To < 0 || q.To > 0 && q.To < q.From:
		return fmt.Errorf("--from, --to: got %d to %d, want numbers from 1, the lower one first", q.From, q.To)
	case !q.Until.IsZero() && !q.Since.Before(q.Until):
		return fmt.Errorf("--since, --until: got %s to %s, want the earlier one first", q.Since.Format(time.RFC3339), q.Until.Format(time.RFC3339))
	case !slices.Contains(lives, q.State):
		return fmt.Errorf("--state: got %q, want Queued, Running, Succeeded, Failed, Cancelled, Deleted or Untracked", q.State)
	case q.Rate < 0:
		return fmt.Errorf("--rate: got %d, want a number from 0", q.Rate)
	}
	return nil
}

// Values are the query as a request carries it.
func (q *Query) Values() url.Values {
	v := url.Values{"sink": {q.Sink}, "rate": {strconv.Itoa(q.Rate)}}
	set := func(key, value string, is bool) {
		if is {
			v.Set(key, value)
		}
	}
	var ids []string
	for _, id := range q.IDs {
		ids = append(ids, strconv.FormatInt(id, 10))
	}
	set("dead_letters", "true", q.Letters)
	set("id", strings.Join(ids, ","), ids != nil)
	set("from", strconv.FormatInt(q.From, 10), q.From != 0)
	set("to", strconv.FormatInt(q.To, 10), q.To != 0)
	set("since", q.Since.Format(time.RFC3339Nano), !q.Since.IsZero())
	set("until", q.Until.Format(time.RFC3339Nano), !q.Until.IsZero())
	if q.Workload != nil {
		v.Set("workload", q.Workload.String())
	}
	set("uid", q.UID, q.UID != "")
	set("state", string(q.State), q.State != "")
	set("dry_run", "true", q.DryRun)
	return v
}

// Parse reads a query as Values writes it.
func Parse(v url.Values) (q Query, err error) {
	q = Query{
		Sink: v.Get("sink"), Letters: v.Get("dead_letters") == "true", UID: v.Get("uid"),
		State: statesync.State(v.Get("state")), DryRun: v.Get("dry_run") == "true",
	}
	var rate int64
	for key, to := range map[string]*int64{"from": &q.From, "to": &q.To, "rate": &rate} {
		if *to, err = number(key, v.Get(key)); err != nil {
			return q, err
		}
	}
	q.Rate = int(min(rate, 1<<30))
	for key, to := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if s := v.Get(key); s != "" {
			if *to, err = time.Parse(time.RFC3339Nano, s); err != nil {
				return q, fmt.Errorf("%s: got %q, want a time such as 2026-11-22T15:04:05Z", key, clip(s))
			}
		}
	}
	if s := v.Get("id"); s != "" {
		for part := range strings.SplitSeq(s, ",") {
			id, err := number("id", part)
			if err != nil {
				return q, err
			}
			q.IDs = append(q.IDs, id)
		}
	}
	if s := v.Get("workload"); s != "" {
		parts := strings.Split(s, "/")
		if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
			return q, fmt.Errorf("workload: got %q, want NAMESPACE/KIND/NAME", clip(s))
		}
		q.Workload = &statesync.Key{Namespace: parts[0], Kind: parts[1], Name: parts[2]}
	}
	return q, q.Check()
}

// number reads a number from 0; what is not there is 0.
func number(key, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: got %q, want a number from 0", key, clip(s))
	}
	return n, nil
}

// clip keeps what somebody sent from filling an error.
func clip(s string) string { return s[:min(len(s), 100)] }
