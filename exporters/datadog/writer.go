package datadog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// A packet's size. The Agent reads datagrams of 8 KiB from a Unix socket; over
// UDP a packet should not be taken apart (Datadog's documentation of DogStatsD's
// high throughput). Both leave room for what the client counts short: a long
// sample rate.
const (
	unixPacket = 8192 - 64
	udpPacket  = 1432 - 32
)

// A target is where to send.
type target struct {
	networks []string // tried in turn, while the socket is of another sort
	address  string
	packet   int // bytes
}

// A writer is the client's way to the socket. It opens it when there is something
// to send, again after each error, and knows how many lines got through: the
// client itself tells only of packets.
//
// After an error it writes nothing until the next begin: so the lines that got
// through are the first ones.
type writer struct {
	target  target
	timeout time.Duration
	strip   string // tags

	mu    sync.Mutex
	ctx   context.Context // of the Send under way
	conn  net.Conn
	lines int
	err   error
}

// begin starts the count of a batch.
func (w *writer) begin(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx, w.lines, w.err = ctx, 0, nil
}

// end returns how many lines were written, and why no more.
func (w *writer) end() (lines int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lines, w.err
}

// Write sends one packet.
func (w *writer) Write(packet []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if err := w.send(without(packet, w.strip)); err != nil {
		w.err = fmt.Errorf("send to %s: %w", w.target.address, err)
		w.close()
		return 0, w.err
	}
	w.lines += bytes.Count(packet, []byte("\n"))
	return len(packet), nil
}

func (w *writer) send(packet []byte) error {
	deadline := time.Now().Add(w.timeout)
	if end, ok := w.ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if err := w.dial(deadline); err != nil {
		return err
	}
	if err := w.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	// A context that ends without a deadline must end a write that waits.
	conn := w.conn
	stop := context.AfterFunc(w.ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if conn.RemoteAddr().Network() == "unix" {
		packet = append(binary.LittleEndian.AppendUint32(nil, uint32(len(packet))), packet...)
	}
	_, err := conn.Write(packet)
	return err
}

func (w *writer) dial(deadline time.Time) error {
	if w.conn != nil {
		return nil
	}
	var err error
	for _, network := range w.target.networks {
		d := net.Dialer{Deadline: deadline}
		w.conn, err = d.DialContext(w.ctx, network, w.target.address)
		if err == nil || !errors.Is(err, syscall.EPROTOTYPE) {
			break
		}
	}
	if err != nil {
		w.conn = nil
	}
	return err
}

// lost hears from the client what it could not queue. Its queue is longer than a
// batch, so that does not happen; if it did, the rest of the batch would wait.
func (w *writer) lost(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("client: %w", err)
	}
}

// close needs the lock.
func (w *writer) close() {
	if w.conn != nil {
		_ = w.conn.Close() // nothing was buffered
		w.conn = nil
	}
}

// Close implements io.Closer.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close()
	return nil
}
