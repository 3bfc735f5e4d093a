package collectors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What comes on a unix stream socket is either packets, each with its length
// before it as four bytes, the low one first, as Datadog's clients send them; or
// lines. The first four bytes of a connection tell: as a length, text would be
// beyond 100 MB.

// maxSkip is the longest packet that is read over. With a longer one it is more
// likely that the sender lost its place.
const maxSkip = 1 << 30

// A streamIntake is a unix stream socket with its connections.
type streamIntake struct {
	listener *net.UnixListener
	file     *unixFile
	most     int // connections
	size     int // bytes of a packet or a line
	refused  atomic.Int64

	mu    sync.Mutex
	conns map[*streamConn]struct{}
	ended chan struct{} // has something when a connection has ended
}

func newStreamIntake(listener *net.UnixListener, file *unixFile, c *DogStatsDConfig) *streamIntake {
	return &streamIntake{listener: listener, file: file, most: c.Connections, size: int(c.MaxPacket), conns: map[*streamConn]struct{}{}, ended: make(chan struct{}, 1)}
}

func (s *streamIntake) adjust(c *DogStatsDConfig) error {
	s.most, s.size = c.Connections, int(c.MaxPacket) // of new connections
	if err := s.listener.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("listen on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// lost is always 0: a stream makes its sender wait.
func (s *streamIntake) lost() int64 { return 0 }

func (s *streamIntake) receive(stop <-chan struct{}, q *packetQueue) error {
	var wg sync.WaitGroup
	over := make(chan struct{})
	defer wg.Wait()
	defer close(over)
	for _, c := range s.open() {
		wg.Go(func() { s.serve(c, over, q) })
	}
	defer endReads(stop, acceptDeadline{s.listener})()
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case passing(err):
			s.refused.Add(1)
			select {
			case <-stop:
			case <-time.After(acceptAgain):
			}
			continue
		default:
			return fmt.Errorf("accept on %s: %w", s.listener.Addr(), err)
		}
		c := &streamConn{conn: conn, size: s.size}
		if !s.add(c, stop) {
			s.refused.Add(1)
			conn.Close()
			continue
		}
		wg.Go(func() { s.serve(c, over, q) })
	}
}

// acceptAgain is when a connection is accepted after none could be.
const acceptAgain = 100 * time.Millisecond

// passing tells what is over soon: the connection is gone, or there are too many
// open files.
func passing(err error) bool {
	for _, e := range []error{syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *streamIntake) serve(c *streamConn, stop <-chan struct{}, q *packetQueue) {
	err := c.read(stop, q)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return // it goes on when receive is called again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	c.conn.Close()
	select {
	case s.ended <- struct{}{}:
	default:
	}
}

// placeWait is how long a connection waits for another to end, when there are as
// many as may be.
const placeWait = time.Second

func (s *streamIntake) add(c *streamConn, stop <-chan struct{}) bool {
	limit := time.NewTimer(placeWait)
	defer limit.Stop()
	for {
		s.mu.Lock()
		room := len(s.conns) < s.most
		if room {
			s.conns[c] = struct{}{}
		}
		s.mu.Unlock()
		if room {
			return true
		}
		select {
		case <-s.ended:
		case <-limit.C:
			return false
		case <-stop:
			return false
		}
	}
}

func (s *streamIntake) open() (out []*streamConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		out = append(out, c)
	}
	return out
}

// drain gives up what is incomplete. What was written and not yet read is the
// sender's to count: it sees the connection break.
func (s *streamIntake) drain(q *packetQueue) error {
	for _, c := range s.open() {
		c.end(q)
	}
	return nil
}

func (s *streamIntake) close() error {
	for _, c := range s.open() {
		c.conn.Close()
	}
	return errors.Join(s.file.remove(), s.listener.Close())
}

// acceptDeadline ends Accept as [endReads] ends reads.
type acceptDeadline struct{ *net.UnixListener }

func (a acceptDeadline) SetReadDeadline(t time.Time) error { return a.SetDeadline(t) }

// A streamConn is one connection, and how far it was read.
type streamConn struct {
	conn  net.Conn
	size  int
	buf   []byte // not yet put
	kind  streamKind
	skip  int64 // bytes of a packet that was too long
	until bool  // lines: skip until a newline
}

type streamKind uint8

const (
	streamUnknown streamKind = iota
	streamPackets
	streamLines
)

var errStreamPlace = errors.New("the length of a packet is beyond 1 GiB")

// read reads until the connection or the time ends. It always returns an error.
func (c *streamConn) read(stop <-chan struct{}, q *packetQueue) error {
	defer endReads(stop, c.conn)()
	for {
		if len(c.buf) == cap(c.buf) {
			c.buf = append(make([]byte, 0, min(max(4096, 2*cap(c.buf)), c.size+4)), c.buf...)
		}
		n, err := c.conn.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if perr := c.cut(q); perr != nil {
			return perr
		}
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				c.end(q)
			}
			return err
		}
	}
}

// cut puts what is complete.
func (c *streamConn) cut(q *packetQueue) error {
	if c.kind == streamUnknown {
		if len(c.buf) < 4 {
			return nil
		}
		c.kind = streamPackets
		if int64(binary.LittleEndian.Uint32(c.buf)) > int64(c.size) && printable(c.buf[:4]) {
			c.kind = streamLines
		}
	}
	rest := c.buf
	var err error
	if c.kind == streamLines {
		rest = c.cutLines(rest, q)
	} else {
		rest, err = c.cutPackets(rest, q)
	}
	c.buf = c.buf[:copy(c.buf, rest)]
	return err
}

func (c *streamConn) cutPackets(rest []byte, q *packetQueue) ([]byte, error) {
	for {
		n := min(c.skip, int64(len(rest)))
		rest, c.skip = rest[n:], c.skip-n
		if c.skip > 0 || len(rest) < 4 {
			return rest, nil
		}
		length := int64(binary.LittleEndian.Uint32(rest))
		switch {
		case length > int64(c.size):
			q.drop("too_long", 1)
			if length > maxSkip {
				return nil, errStreamPlace
			}
			rest, c.skip = rest[4:], length
		case int64(len(rest)) < 4+length:
			return rest, nil
		default:
			if length > 0 {
				q.put([]packet{{data: rest[4 : 4+length]}})
			}
			rest = rest[4+length:]
		}
	}
}

// cutLines puts whole lines as one packet.
func (c *streamConn) cutLines(rest []byte, q *packetQueue) []byte {
	if c.until {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return nil
		}
		rest, c.until = rest[i+1:], false
	}
	if i := bytes.LastIndexByte(rest, '\n'); i >= 0 {
		q.put([]packet{{data: rest[:i]}})
		rest = rest[i+1:]
	}
	if len(rest) >= c.size {
		q.drop("too_long", 1)
		c.until, rest = true, nil
	}
	return rest
}

// end counts what is incomplete when the connection ends. The last line needs no
// newline.
func (c *streamConn) end(q *packetQueue) {
	switch {
	case len(c.buf) == 0:
	case c.kind == streamLines:
		q.put([]packet{{data: c.buf}})
	default:
		q.drop("incomplete", 1)
	}
	c.buf = nil
}

// printable tells text from a length.
func printable(b []byte) bool {
	for _, c := range b {
		if c > '~' || c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return true
}
