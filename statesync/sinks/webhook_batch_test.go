package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/sinks/sinktest"
)

// idsOf returns the IDs of the events in a request that holds a batch.
func idsOf(t testing.TB, r request) []string {
	t.Helper()
	var events []json.RawMessage
	if err := json.Unmarshal(r.body, &events); err != nil || r.header.Get("Content-Type") != "application/cloudevents-batch+json; charset=utf-8" {
		t.Errorf("%s %.200q: %v, want a batch of events", r.header.Get("Content-Type"), r.body, err)
	}
	ids := []string{}
	for _, e := range events {
		ids = append(ids, eventID(t, e))
	}
	return ids
}

// results are the causes of a Deliver's error, by delivery.
func results(t testing.TB, err error, n int) []string {
	t.Helper()
	out := make([]string, n)
	errs := make([]error, n)
	var b *statesync.BatchError
	switch {
	case errors.As(err, &b):
		if len(b.Errs) != n {
			t.Fatalf("%d errors, want %d", len(b.Errs), n)
		}
		errs = b.Errs
	case err != nil:
		for i := range errs {
			errs[i] = err
		}
	}
	for i, err := range errs {
		if err == nil {
			continue
		}
		var e *statesync.SinkError
		if !errors.As(err, &e) {
			t.Fatalf("error %v, want a SinkError", err)
		}
		out[i] = e.Cause
		if e.Rejected {
			out[i] = "rejected"
		}
	}
	return out
}

func several(ids ...string) []statesync.Delivery {
	var ds []statesync.Delivery
	for i, id := range ids {
		d := delivery(id[:1], int64(i+1))
		d.ID = id
		ds = append(ds, d)
	}
	return ds
}

func TestWebhookBatch(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	s := webhook(t, rec.URL, batchOf(3), key("secret"))
	if s.Batch() != 3 || webhook(t, rec.URL).Batch() != 1 {
		t.Errorf("a batch of %d, want 3, and 1 where none is configured", s.Batch())
	}
	ds := several("a1", "a2", "b1", "c1")
	for range 2 {
		if err := s.Deliver(t.Context(), ds); err != nil {
			t.Fatal(err)
		}
	}
	for _, ids := range [][]string{{"a2", "a1"}, {"a1", "a2"}, {"a1a", "2"}} {
		if err := s.Deliver(t.Context(), several(ids...)); err != nil {
			t.Fatal(err)
		}
	}
	var got [][]string
	names := map[string]string{}
	for _, r := range rec.seen() {
		ids := idsOf(t, r)
		got = append(got, ids)
		if err := verify([]byte("secret"), r); err != nil {
			t.Error(err)
		}
		id := r.header.Get("Webhook-Id")
		if len(id) != 32 || id != r.header.Get("Idempotency-Key") {
			t.Errorf("id %q, key %q, want 32 letters, and the same", id, r.header.Get("Idempotency-Key"))
		}
		if was, ok := names[fmt.Sprint(ids)]; ok && was != id {
			t.Errorf("%v is %s, and was %s: want one name for one batch", ids, id, was)
		}
		names[fmt.Sprint(ids)] = id
	}
	want := [][]string{{"a1", "a2", "b1"}, {"c1"}, {"a1", "a2", "b1"}, {"c1"}, {"a2", "a1"}, {"a1", "a2"}, {"a1a", "2"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	owner := map[string]string{}
	for ids, id := range names {
		if other, taken := owner[id]; taken {
			t.Errorf("%s and %s are both %s, want a name of its own for each", ids, other, id)
		}
		owner[id] = ids
	}
}

// TestWebhookBatchIsBounded: a receiver that takes a mebibyte takes every
// request of several changes, and one change is sent whatever its size.
func TestWebhookBatchIsBounded(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	s := webhook(t, rec.URL, batchOf(1000))
	var ds []statesync.Delivery
	for i, size := range []int{300_000, 300_000, 300_000, 300_000, 2_000_000, 10, 10} {
		d := delivery(fmt.Sprint("w", i), 1)
		d.Message = strings.Repeat("x", size)
		ds = append(ds, d)
	}
	if err := s.Deliver(t.Context(), ds); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, r := range rec.seen() {
		n := len(idsOf(t, r))
		sizes = append(sizes, n)
		if len(r.body) > 1<<20 && n > 1 {
			t.Errorf("%d changes in %d bytes, want at most 1 MiB", n, len(r.body))
		}
	}
	if diff := cmp.Diff([]int{3, 1, 1, 2}, sizes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWebhookBisects with random batches, in which random changes are refused:
// every other one is taken once, in the order of its key, up to the first of
// the key that is refused.
func TestWebhookBisects(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		poison := map[string]bool{}
		var ds []statesync.Delivery
		for key := range 1 + random.IntN(8) {
			for seq := range 1 + random.IntN(5) {
				d := delivery(fmt.Sprint("w", key), int64(seq+1))
				ds = append(ds, d)
				if random.IntN(6) == 0 {
					poison[d.ID] = true
				}
			}
		}
		status := []int{400, 413, 422}[random.IntN(3)]
		var taken []string
		rec := receive(t, nil)
		rec.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			rec.mu.Lock()
			defer rec.mu.Unlock()
			rec.requests = append(rec.requests, request{})
			ids := idsOf(t, request{header: r.Header, body: body})
			if slices.ContainsFunc(ids, func(id string) bool { return poison[id] }) {
				w.WriteHeader(status)
				return
			}
			taken = append(taken, ids...)
		})
		limit := 2 + random.IntN(len(ds)+1)
		s := webhook(t, rec.URL, batchOf(limit))
		got := results(t, s.Deliver(t.Context(), ds), len(ds))

		var wantTaken, want []string
		refused := map[statesync.Key]bool{}
		for _, d := range ds {
			switch key := d.Workload.Key(); {
			case refused[key]:
				want = append(want, "behind")
			case poison[d.ID]:
				refused[key] = true
				want = append(want, "rejected")
			default:
				want = append(want, "")
				wantTaken = append(wantTaken, d.ID)
			}
		}
		rec.mu.Lock()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d: results (-want +got):\n%s", round, diff)
		}
		if diff := cmp.Diff(wantTaken, taken); diff != "" {
			t.Fatalf("round %d: taken (-want +got):\n%s", round, diff)
		}
		if n := len(rec.requests); n >= 2*len(ds) || len(poison) == 0 && n != (len(ds)+limit-1)/limit {
			t.Fatalf("round %d: %d requests for %d changes in batches of %d, %d of them refused", round, n, len(ds), limit, len(poison))
		}
		rec.mu.Unlock()
		rec.Close()
	}
}

// TestWebhookBatchStopsAtAFailure: what is sent after a failure that is not
// about the changes would fail too, or overtake.
func TestWebhookBatchStopsAtAFailure(t *testing.T) {
	t.Parallel()
	ds := several("a1", "b1", "c1", "d1", "b2", "e1")
	for name, tt := range map[string]struct {
		batch    int
		answers  []int // by request; then 200
		want     []string
		requests int
	}{
		"of the whole":                {6, []int{503}, []string{"status_5xx", "status_5xx", "status_5xx", "status_5xx", "status_5xx", "status_5xx"}, 1},
		"of the second half":          {6, []int{400, 200, 503}, []string{"", "", "", "status_5xx", "status_5xx", "status_5xx"}, 3},
		"in the middle of a half":     {6, []int{400, 400, 200, 422, 422, 429}, []string{"", "rejected", "status_429", "status_429", "behind", "status_429"}, 6},
		"of the first of several":     {2, []int{500}, []string{"status_5xx", "status_5xx", "status_5xx", "status_5xx", "status_5xx", "status_5xx"}, 1},
		"of the last of several":      {2, []int{200, 200, 404}, []string{"", "", "", "", "status_4xx", "status_4xx"}, 3},
		"that is for good":            {3, []int{200, 410}, []string{"", "", "", "status_4xx", "status_4xx", "status_4xx"}, 2},
		"none: one change is refused": {1, []int{200, 422}, []string{"", "rejected", "", "", "behind", ""}, 5},
		"of one change":               {1, []int{200, 503}, []string{"", "status_5xx", "status_5xx", "status_5xx", "status_5xx", "status_5xx"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := receive(t, func(w http.ResponseWriter, _ *http.Request, try int) {
				if try > len(tt.answers) {
					return
				}
				if !refusesContent(tt.answers[try-1]) {
					w.Header().Set("Retry-After", "7")
				}
				w.WriteHeader(tt.answers[try-1])
			})
			s := webhook(t, rec.URL, batchOf(tt.batch))
			err := s.Deliver(t.Context(), ds)
			if diff := cmp.Diff(tt.want, results(t, err, len(ds))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := len(rec.seen()); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			if e, ok := errors.AsType[*statesync.SinkError](err); ok && e.After != 7*time.Second {
				t.Errorf("to be left alone for %s, want 7s", e.After)
			}
		})
	}
}

// TestWebhookTakesItsTimeToHalve: a receiver that asks to be left alone, or is
// slow to refuse, is not sent halves for ever. Each Deliver goes on with less,
// so that the change that is to blame is found, and then with more again.
func TestWebhookTakesItsTimeToHalve(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		retryAfter string
		slow       bool
		each       int // requests of one Deliver, at most
	}{
		"it asks to be left alone": {"7", false, 1},
		"it is slow":               {"", true, maxHalving + 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const try = 100 * time.Millisecond
			var refuses atomic.Bool
			rec := receive(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
				if !refuses.Load() {
					return
				}
				if tt.retryAfter != "" {
					w.Header().Set("Retry-After", tt.retryAfter)
				}
				if tt.slow {
					<-time.After(try * 9 / 10)
				}
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			})
			s := webhook(t, rec.URL, batchOf(64), timeout(try))
			var ds []statesync.Delivery
			for i := range 64 {
				ds = append(ds, delivery(fmt.Sprint("w", i), 1))
			}
			refuses.Store(true)
			refused := false
			for delivers := 0; !refused; delivers++ {
				before := len(rec.seen())
				err := s.Deliver(t.Context(), ds)
				if n := len(rec.seen()) - before; n > tt.each || n == 0 {
					t.Fatalf("%d requests of one Deliver, want %d at most", n, tt.each)
				}
				refused = slices.Contains(results(t, err, len(ds)), "rejected")
				if delivers > 8 {
					t.Fatal("the change that is to blame is not found")
				}
			}
			refuses.Store(false)
			for range 8 {
				if err := s.Deliver(t.Context(), ds); err != nil {
					t.Fatal(err)
				}
			}
			seen := rec.seen()
			if n := len(idsOf(t, seen[len(seen)-1])); n != len(ds) {
				t.Errorf("%d changes in a request at last, want all %d", n, len(ds))
			}
		})
	}
}

// TestWebhookBatchIsHalvedWhenTheReceiverHangsUp: one that finds a request too
// large may say so by closing the connection while it is being sent.
func TestWebhookBatchIsHalvedWhenTheReceiverHangsUp(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limit    int64
		want     []string
		requests int64
	}{
		"on what is too large": {60_000, []string{"", "", "", ""}, 7},
		"on everything":        {0, []string{"network", "network", "network", "network"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := receive(t, nil)
			requests := make(chan bool, 20)
			rec.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests <- true
				if r.ContentLength <= tt.limit {
					_, _ = io.Copy(io.Discard, r.Body)
					return
				}
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.(*net.TCPConn).SetLinger(0) // a reset
				c.Close()
			})
			s := webhook(t, rec.URL, batchOf(4))
			ds := several("a1", "b1", "c1", "d1")
			for i := range ds {
				ds[i].Message = strings.Repeat("x", 50_000)
			}
			if diff := cmp.Diff(tt.want, results(t, s.Deliver(t.Context(), ds), 4)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := int64(len(requests)); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
		})
	}
}

// TestWebhookDeliverEndsWithItsContext, however many tries are left.
func TestWebhookDeliverEndsWithItsContext(t *testing.T) {
	t.Parallel()
	rec := receive(t, func(w http.ResponseWriter, r *http.Request, try int) {
		if try < 3 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		<-r.Context().Done()
	})
	s := webhook(t, rec.URL, batchOf(8), timeout(time.Minute))
	ds := several("a1", "b1", "c1", "d1", "e1", "f1", "g1", "h1")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := s.Deliver(ctx, ds)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("after %s, want 200ms", took)
	}
	for i, cause := range results(t, err, len(ds)) {
		if cause != "timeout" {
			t.Errorf("change %d: %q, want timeout", i, cause)
		}
	}
	n := len(rec.seen())
	for _, cause := range results(t, s.Deliver(ctx, ds), len(ds)) {
		if cause != "timeout" {
			t.Errorf("after the end: %q, want timeout", cause)
		}
	}
	if len(rec.seen()) != n || n != 3 {
		t.Errorf("%d requests, and %d once the context had ended, want 3 and none", n, len(rec.seen())-n)
	}
}

// TestWebhookChangeThatCannotBeEncoded is refused, and holds up its own key
// alone.
func TestWebhookChangeThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	unfit := func(d *statesync.Delivery) { d.Occurred = d.Occurred.AddDate(9000, 0, 0) }
	rec := receive(t, nil)
	d := delivery("a", 1)
	unfit(&d)
	if e := refusal(t, post(t.Context(), webhook(t, rec.URL), d), "encode"); !e.Rejected || len(rec.seen()) != 0 {
		t.Errorf("rejected %t after %d requests, want it rejected without one", e.Rejected, len(rec.seen()))
	}

	ds := several("a1", "b1", "b2", "b3", "c1")
	unfit(&ds[2])
	got := results(t, webhook(t, rec.URL, batchOf(5)).Deliver(t.Context(), ds), 5)
	if diff := cmp.Diff([]string{"", "", "rejected", "behind", ""}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// Not refused before what comes before it is settled.
	down := receive(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusBadGateway) })
	got = results(t, webhook(t, down.URL, batchOf(5)).Deliver(t.Context(), ds), 5)
	if diff := cmp.Diff([]string{"status_5xx", "status_5xx", "status_5xx", "status_5xx", "status_5xx"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBatchingWebhookKeepsTheContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) (statesync.Sink, func() []string) {
		rec := receive(t, nil)
		return webhook(t, rec.URL, batchOf(7)), func() []string {
			ids := []string{}
			for _, r := range rec.seen() {
				ids = append(ids, idsOf(t, r)...)
			}
			return ids
		}
	})
}
