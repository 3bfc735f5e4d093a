// Package listen opens the agent's listeners, and guards what is served on them by three rings.
//
// The probe ring is open to everyone. The read ring is open on a listener that
// is on loopback or a unix socket; elsewhere it needs an identity. The act
// ring needs, beyond that, a POST that no foreign web page can have sent. What
// counts is the listener's own address and the identity, never the address of
// the peer: behind a proxy everyone is a neighbour.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MaxConns is how many connections one listener serves at once. A poller
// needs one; what comes on top waits in the kernel's queue.
const MaxConns = 64

// Open opens a listener: host:port, :port (on loopback), unix:/path or off,
// which gives nil. Whoever opens it closes it.
//
// A unix socket has mode 0600. One that a dead process left is replaced; one
// that is served is an error.
func Open(ctx context.Context, spec string) (net.Listener, error) {
	if spec == "off" {
		return nil, nil
	}
	if path, ok := strings.CutPrefix(spec, "unix:"); ok {
		return openUnix(ctx, path)
	}
	host, port, err := net.SplitHostPort(spec)
	if err != nil {
		return nil, fmt.Errorf("listen: got %q, want host:port, :port, unix:/path or off", spec)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", spec, cause(err))
	}
	return l, nil
}

func openUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("listen unix:%s: %w", path, err)
	}
	// The mode of the file descriptor is that of the file which bind makes
	// (Linux), so that there is no moment in which others may connect.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen unix:%s: %w", path, cause(err))
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen unix:%s: %w", path, err)
	}
	return l, nil
}

// removeStale removes a socket that nobody serves, and nothing else.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return errors.New("got a file that is no socket, want none or a socket")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return syscall.EADDRINUSE
	case !errors.Is(err, syscall.ECONNREFUSED):
		return cause(err)
	}
	return os.Remove(path)
}

// cause strips what net adds: the caller names the address itself.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sys.Err
	}
	return err
}

// Local reports whether only this machine can reach the address: a loopback
// address, or a unix socket.
func Local(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// Limit returns l with at most n connections open at once.
func Limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a slot before it accepts, so that the rest waits in the
// kernel, where it costs nothing.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	free func()
}

// CloseWrite lets the server end an answer without a reset, as it does on a
// connection that is not wrapped.
func (c *limitedConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.free()
	return err
}
