package collectors

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// An intake is an open socket on which lines come.
type intake interface {
	// receive puts packets into the queue until stop is closed. It may be called
	// again: nothing that waits in the socket is lost in between.
	receive(stop <-chan struct{}, q *packetQueue) error

	// drain puts what waits in the socket into the queue, and returns.
	drain(q *packetQueue) error

	// lost is how many packets the kernel dropped since it was asked last.
	lost() int64

	close() error
}

// statsdAddress is what listen in the configuration means.
type statsdAddress struct{ network, address string }

// maxUnixPath is one less than the 108 bytes of sun_path.
const maxUnixPath = 107

func parseStatsDAddress(listen string) (a statsdAddress, ok bool) {
	for _, unix := range []struct{ prefix, network string }{{"unix://", "unixgram"}, {"unixgram://", "unixgram"}, {"unixstream://", "unix"}} {
		if path, found := strings.CutPrefix(listen, unix.prefix); found {
			return statsdAddress{unix.network, path}, strings.HasPrefix(path, "/") && len(path) > 1 && len(path) <= maxUnixPath
		}
	}
	_, port, err := net.SplitHostPort(listen)
	return statsdAddress{"udp", listen}, err == nil && port != ""
}

// open opens the socket.
func (a statsdAddress) open(c *DogStatsDConfig) (intake, error) {
	if a.network != "udp" {
		if err := clearUnixPath(a); err != nil {
			return nil, err
		}
	}
	switch a.network {
	case "udp":
		address, err := net.ResolveUDPAddr("udp", a.address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", a.address, err)
		}
		conn, err := net.ListenUDP("udp", address)
		if err != nil {
			return nil, err // has the address
		}
		return newDatagramIntake(conn, nil, c)
	case "unixgram":
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: a.address, Net: "unixgram"})
		if err != nil {
			return nil, err
		}
		file, err := ownUnixFile(a.address)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return newDatagramIntake(conn, file, c)
	default:
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.address, Net: "unix"})
		if err != nil {
			return nil, err
		}
		listener.SetUnlinkOnClose(false)
		file, err := ownUnixFile(a.address)
		if err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		return newStreamIntake(listener, file, c), nil
	}
}

// clearUnixPath removes a socket that nobody listens on any more. One on which
// somebody listens, and what is no socket, stays, and is an error.
func clearUnixPath(a statsdAddress) error {
	info, err := os.Lstat(a.address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("listen on %s: it is there and no socket (%s), want a free path", a.address, info.Mode())
	}
	conn, err := net.DialTimeout(a.network, a.address, time.Second)
	if err == nil {
		conn.Close()
	}
	// A socket of another type says EPROTOTYPE, one whose queue is full EAGAIN:
	// only a refusal says that nobody is there.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on %s: another process listens there, want a free path", a.address)
	}
	if err := os.Remove(a.address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen: remove the socket that nobody listens on: %w", err)
	}
	return nil
}

// A unixFile is the name of a socket of ours.
type unixFile struct {
	path string
	info fs.FileInfo
}

// statsdSocketMode lets everybody send, as Datadog's agent does.
const statsdSocketMode = 0o722

func ownUnixFile(path string) (*unixFile, error) {
	if err := os.Chmod(path, statsdSocketMode); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return &unixFile{path, info}, nil
}

// remove removes the name, if it still is that of our socket.
func (f *unixFile) remove() error {
	if f == nil {
		return nil
	}
	info, err := os.Lstat(f.path)
	if err != nil || !os.SameFile(info, f.info) {
		return nil //nolint:nilerr // somebody else's, or gone
	}
	return os.Remove(f.path)
}

// A deadliner is a socket whose reads can be ended.
type deadliner interface{ SetReadDeadline(time.Time) error }

// endReads ends reads of the socket when stop is closed. The function that it
// returns gives the socket back as it was.
func endReads(stop <-chan struct{}, d deadliner) (restore func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-stop:
			_ = d.SetReadDeadline(time.Unix(1, 0)) // it can only fail when the socket is closed
		case <-over:
		}
	}()
	return func() {
		close(over)
		<-ended
		_ = d.SetReadDeadline(time.Time{})
	}
}
