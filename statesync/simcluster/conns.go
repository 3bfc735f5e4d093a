package simcluster

import (
	"net"
	"sync"
	"sync/atomic"
)

// A listener knows its connections, so that faults can strike them.
type listener struct {
	net.Listener

	mu   sync.Mutex // guards what follows
	open map[*conn]struct{}
}

func newListener(l net.Listener) *listener { return &listener{Listener: l, open: map[*conn]struct{}{}} }

// Accept notes the connection.
func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, of: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = struct{}{}
	return c, nil
}

// all are the open connections but one.
func (l *listener) all(spare net.Conn) []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*conn, 0, len(l.open))
	for c := range l.open {
		if net.Conn(c) != spare {
			out = append(out, c)
		}
	}
	return out
}

// A conn can be half open: what comes from the client goes nowhere, and so
// does what is for the client; neither side is told.
type conn struct {
	net.Conn
	of       *listener
	halfOpen atomic.Bool
}

// Read reads; of a half-open connection, only its end.
func (c *conn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.halfOpen.Load() {
			return n, err
		}
	}
}

func (c *conn) Write(b []byte) (int, error) {
	if c.halfOpen.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Close closes; of a half-open connection the client is told nothing before
// the server ends.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// cut resets the connection: what is under way is lost.
func (c *conn) cut() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it then closes as any other
	}
	_ = c.Close()
}
