package collectors

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// To list the TCP sockets is dear: the kernel walks through its whole table,
// which takes 5 ms a file on a machine with next to no sockets. So it is
// done this seldom, and not at all where there are more than can be listed in
// about as many microseconds.
const (
	listEvery = 30 * time.Second
	maxListed = 50_000
)

// readSockets reads how many sockets there are: the kernel's own sums, and TCP
// sockets by state, which may be as old as [listEvery].
func (h *host) readSockets() error {
	var errs []error
	tcp := 0
	for _, f := range []struct {
		file string
		read func() (*procfs.NetSockstat, error)
	}{{"net/sockstat", h.procfs.NetSockstat}, {"net/sockstat6", h.procfs.NetSockstat6}} {
		s, err := parsed(f.read)
		if err != nil {
			errs = append(errs, unreadable(h.path(f.file), err))
			continue
		}
		tcp += h.addSockets(s)
	}
	if tcp > maxListed {
		h.listed = time.Time{}
		if !h.toldSockets {
			h.toldSockets = true
			h.log.Warn("too many TCP sockets to count them by state", "sockets", tcp, "limit", maxListed)
		}
		return errors.Join(errs...)
	}
	if now := h.now(); h.listed.IsZero() || now.Sub(h.listed) >= listEvery || now.Before(h.listed) {
		h.listed = now
		errs = append(errs, h.listSockets())
	}
	for i, n := range h.states {
		if name := tcpStateNames[i]; name != "" && h.haveStates {
			h.found.add("tcp_sockets", float64(n), name)
		}
	}
	return errors.Join(errs...)
}

// listSockets counts the TCP sockets by state. Half of them is no count.
func (h *host) listSockets() error {
	h.states, h.haveStates = tcpStates{}, false
	for _, file := range []string{"net/tcp", "net/tcp6"} {
		path := h.path(file)
		switch err := h.countStates(path, &h.states); {
		case err == nil:
			h.haveStates = true
		case !absent(err):
			h.haveStates = false
			return unreadable(path, err)
		}
	}
	return nil
}

// addSockets adds a file's sums, and returns how many TCP sockets it has.
func (h *host) addSockets(s *procfs.NetSockstat) (tcp int) {
	if s.Used != nil {
		h.found.add("sockets_used", float64(*s.Used))
	}
	for _, p := range s.Protocols {
		name := strings.ToLower(p.Protocol) // those of IPv6 end with a 6
		h.found.add("sockets", float64(p.InUse), name, "inuse")
		for _, f := range []struct {
			state string
			n     *int
		}{{"orphan", p.Orphan}, {"timewait", p.TW}, {"allocated", p.Alloc}} {
			if f.n != nil {
				h.found.add("sockets", float64(*f.n), name, f.state)
			}
		}
		switch {
		case p.Mem != nil: // pages
			h.found.add("socket_memory_bytes", float64(*p.Mem)*float64(os.Getpagesize()), name)
		case p.Memory != nil: // bytes
			h.found.add("socket_memory_bytes", float64(*p.Memory), name)
		}
		if strings.HasPrefix(name, "tcp") {
			tcp += p.InUse
			if p.TW != nil {
				tcp += *p.TW
			}
		}
	}
	return tcp
}

// tcpStates counts sockets by the kernel's number of their state
// (include/net/tcp_states.h).
type tcpStates [13]int

// tcpStateNames are the words for them. Read-only.
var tcpStateNames = [len(tcpStates{})]string{
	1: "established", 2: "syn_sent", 3: "syn_recv", 4: "fin_wait1", 5: "fin_wait2", 6: "time_wait",
	7: "close", 8: "close_wait", 9: "last_ack", 10: "listen", 11: "closing", 12: "new_syn_recv",
}

// countStates reads a list of sockets piece by piece: it may be long.
func (h *host) countStates(path string, states *tcpStates) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if h.files.buf == nil {
		h.files.buf = make([]byte, 16<<10)
	}
	return parseTCP(f, h.files.buf, states)
}

// parseTCP counts the states in a list of sockets, as in /proc/net/tcp. It reads
// it into buf, which must hold a line.
func parseTCP(r io.Reader, buf []byte, states *tcpStates) error {
	line, held := 0, 0
	for {
		n, err := r.Read(buf[held:])
		held += n
		rest := buf[:held]
		for {
			text, after, whole := bytes.Cut(rest, []byte("\n"))
			if !whole {
				break
			}
			rest = after
			if line++; line == 1 {
				continue // the names of the columns
			}
			state, ok := tcpState(text)
			if !ok {
				return malformed(line, text, "a socket, with its state as the fourth field")
			}
			states[state]++
		}
		held = copy(buf, rest)
		switch {
		case errors.Is(err, io.EOF):
			if held > 0 {
				return malformed(line+1, buf[:held], "a whole line")
			}
			return nil
		case err != nil:
			return err
		case held == len(buf):
			return fmt.Errorf("line %d: got more than %d bytes, want a socket", line+1, len(buf))
		}
	}
}

func tcpState(text []byte) (state int, ok bool) {
	var field []byte
	for range 4 {
		field, text = cutField(text)
	}
	if len(field) != 2 || field[0] != '0' {
		return 0, false
	}
	switch c := field[1]; {
	case c >= '1' && c <= '9':
		state = int(c - '0')
	case c >= 'A' && c <= 'C':
		state = int(c-'A') + 10
	}
	return state, state > 0
}
