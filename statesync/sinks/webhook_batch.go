package sinks

// A request that the receiver refuses for what is in it is sent again in
// halves, down to the one change that is to blame. A failure that is not about
// the changes ends it all: whatever is sent next would meet it too. So does a
// Retry-After, and a receiver that takes its time to refuse: then the next
// Deliver goes on with smaller requests, until they are taken again.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// maxBatchBytes is what a request of several changes holds at most: many a
// receiver takes no more, and a request that is refused for its size costs two
// others. One change alone may be larger.
const maxBatchBytes = 1 << 20

// maxHalving is how many timeouts of one try a Deliver may go on to take
// refused requests apart.
const maxHalving = 4

type webhookBatch struct {
	s      *webhookSink
	ds     []statesync.Delivery
	bodies [][]byte
	errs   []error
	behind map[statesync.Key]bool // a change of the key was refused: no later one may overtake it
	taken  int
	stop   *statesync.SinkError // nothing more is sent
	most   int                  // changes in one request

	began   time.Time
	refused bool // something was, for what is in it
}

func newWebhookBatch(s *webhookSink, ds []statesync.Delivery) *webhookBatch {
	b := &webhookBatch{
		s: s, ds: ds, bodies: make([][]byte, len(ds)), errs: make([]error, len(ds)),
		behind: map[statesync.Key]bool{}, most: s.batch, began: time.Now(),
	}
	if most := int(s.most.Load()); most > 0 {
		b.most = most
	}
	for i, d := range ds {
		body, err := statesync.MarshalEvent(d)
		if err != nil {
			b.errs[i] = &statesync.SinkError{Cause: causeEncode, Rejected: true, Err: errors.New("webhook: " + s.quote(err.Error()))}
		}
		b.bodies[i] = body
	}
	return b
}

// refuse keeps why delivery i was not taken.
func (b *webhookBatch) refuse(i int, err error) {
	b.errs[i] = err
	b.behind[b.ds[i].Workload.Key()] = true
}

// run sends everything, in requests of bounded size.
func (b *webhookBatch) run(ctx context.Context) {
	first, size := 0, 0
	for i, body := range b.bodies {
		unfit := b.errs[i] != nil // it could not be encoded; those before it can be sent yet
		size += len(body) + 2     // with brackets and commas
		if unfit || i-first == b.most || size > maxBatchBytes {
			b.send(ctx, first, i)
			first, size = i, len(body)+2
		}
		if unfit {
			if err := b.held(i); err != nil {
				b.errs[i] = err
			} else {
				b.refuse(i, b.errs[i])
			}
			first, size = i+1, 0
		}
	}
	b.send(ctx, first, len(b.bodies))
}

// held returns why delivery i is not even tried; nil: it may be.
func (b *webhookBatch) held(i int) error {
	if b.behind[b.ds[i].Workload.Key()] {
		return &statesync.SinkError{Cause: causeBehind, Err: errors.New("webhook: behind a refused change")}
	}
	if b.stop != nil {
		return b.stop
	}
	return nil
}

// send delivers those from first to below end with one request, or with more
// if that is refused. n changes take fewer than 2n requests.
func (b *webhookBatch) send(ctx context.Context, first, end int) {
	var now []int
	for i := first; i < end; i++ {
		if b.errs[i] = b.held(i); b.errs[i] == nil {
			now = append(now, i)
		}
	}
	if len(now) == 0 {
		return
	}
	if b.refused && time.Since(b.began) > maxHalving*b.s.timeout {
		b.s.most.Store(int64(len(now)))
		b.stopAt(now, &statesync.SinkError{Cause: causeTimeout, Err: errors.New("webhook: the receiver was slow to refuse changes before this one")})
		return
	}
	smaller, err := b.s.post(ctx, b.request(now))
	switch {
	case err == nil:
		b.taken += len(now)
		if most := b.s.most.Load(); most > 0 {
			b.s.most.Store(min(max(most, 2*int64(len(now))), int64(b.s.batch)))
		}
	case smaller && len(now) > 1 && err.After > 0:
		err.Rejected = false // as a whole: it does not blame each
		b.s.most.Store(int64(len(now) / 2))
		b.stopAt(now, err)
	case smaller && len(now) > 1:
		b.refused = true
		middle := now[len(now)/2]
		b.send(ctx, now[0], middle)
		b.send(ctx, middle, now[len(now)-1]+1)
	case err.Rejected:
		b.refused = true
		b.refuse(now[0], err)
		if err.After > 0 {
			others := *err
			others.Rejected = false
			b.stop = &others
		}
	default:
		b.stopAt(now, err)
	}
}

// stopAt sends nothing more.
func (b *webhookBatch) stopAt(now []int, err *statesync.SinkError) {
	b.stop = err
	for _, i := range now {
		b.errs[i] = err
	}
}

// request puts changes together. The same ones always make the same request.
func (b *webhookBatch) request(part []int) webhookRequest {
	if b.s.batch == 1 {
		return webhookRequest{id: b.ds[part[0]].ID, kind: "application/cloudevents+json", body: b.bodies[part[0]]}
	}
	ids := sha256.New()
	bodies := make([][]byte, len(part))
	for n, i := range part {
		_, _ = io.WriteString(ids, b.ds[i].ID+"\n")
		bodies[n] = b.bodies[i]
	}
	body := append(append([]byte{'['}, bytes.Join(bodies, []byte{','})...), ']')
	return webhookRequest{id: hex.EncodeToString(ids.Sum(nil)[:16]), kind: "application/cloudevents-batch+json", body: body}
}

func (b *webhookBatch) result() error {
	failed := 0
	for _, err := range b.errs {
		if err != nil {
			failed++
		}
	}
	switch {
	case failed == 0:
		return nil
	case len(b.errs) == 1:
		return b.errs[0]
	case b.stop != nil && b.taken == 0 && len(b.behind) == 0:
		return b.stop // one reason for all of them
	}
	return &statesync.BatchError{Errs: b.errs}
}
