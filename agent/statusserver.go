package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/agent/listen"
)

// The status listener writes and hangs up: whoever does not read loses, not
// the agent.
const (
	statusConns   = 16
	statusTimeout = 2 * time.Second
)

// A statusServer writes the status text to everyone who connects.
type statusServer struct {
	l     net.Listener
	write func(io.Writer)
	conns sync.WaitGroup
}

func newStatusServer(l net.Listener, write func(io.Writer)) *statusServer {
	return &statusServer{l: listen.Limit(l, statusConns), write: write}
}

// serve returns net.ErrClosed after stop, else why it cannot go on.
func (s *statusServer) serve() error {
	for {
		c, err := s.l.Accept()
		var passing net.Error
		switch {
		case err == nil:
			s.conns.Go(func() { s.answer(c) })
		case errors.As(err, &passing) && passing.Timeout():
		default:
			return err
		}
	}
}

// stop waits for the answers under way, which have a deadline.
func (s *statusServer) stop() {
	_ = s.l.Close()
	s.conns.Wait()
}

func (s *statusServer) answer(c net.Conn) {
	defer c.Close()
	var b bytes.Buffer
	s.write(&b)
	_ = c.SetDeadline(time.Now().Add(statusTimeout))
	if _, err := c.Write(b.Bytes()); err != nil {
		return // it hung up
	}
	// What the client sent and we never read would make close a reset, and
	// the client lose the end of the text: an HTTP client does that.
	if w, ok := c.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c, 4096))
	}
}
