package checks

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// speak serves connections until the test ends.
func speak(t *testing.T, network, address string, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				talk(c)
			}()
		}
	}()
	return l.Addr().String()
}

// redis answers PING in two packets, and never answers HANG.
func redis(c net.Conn) {
	line, err := bufio.NewReader(c).ReadString('\n')
	switch {
	case err != nil:
	case line == "PING\r\n":
		fmt.Fprint(c, "+PO")
		fmt.Fprint(c, "NG\r\n")
		redis(c) // stays
	case line == "LONG\r\n":
		fmt.Fprint(c, strings.Repeat("x", 2*maxAnswer))
	case line == "HANG\r\n":
		redis(c)
	default:
		fmt.Fprint(c, "-ERR\x1b unknown\r\n")
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	address := speak(t, "tcp", "127.0.0.1:0", redis)
	socket := speak(t, "unix", filepath.Join(t.TempDir(), "s"), redis)
	silent := speak(t, "tcp", "127.0.0.1:0", func(net.Conn) {})
	const pass, warn, fail = verdict.Pass, verdict.Warn, verdict.Fail
	tests := []struct {
		name, config string
		status       verdict.Status
		message      string
	}{
		{"a server that takes connections passes", `{address: "ADDRESS"}`, pass, "connected to 127.0.0.1:... in "},
		{"a socket passes", `{address: "unix:SOCKET", send: "PING\r\n", expect: +PONG}`, pass, "unix:...answered in "},
		{"an answer in parts is put together", `{address: "ADDRESS", send: "PING\r\n", expect: +PONG}`, pass, "answered in "},
		{"another answer fails", `{address: "ADDRESS", send: "PUNG\r\n", expect: +PONG}`, fail, `got "-ERR unknown" and the end, want "+PONG"`},
		{"no answer fails", `{address: "SILENT", expect: +PONG}`, fail, `: got nothing and the end, want "+PONG"`},
		{"an endless answer fails", `{address: "ADDRESS", send: "LONG\r\n", expect: +PONG}`, fail, "got 65536 bytes: it begins with xxx"},
		{"slow is a warning", `{address: "ADDRESS", warn: "100:"}`, warn, "want 100: s"},
		{"slower is a failure", `{address: "ADDRESS", crit: "100:"}`, fail, "want 100: s"},
		{"a port without a server fails", `{address: "127.0.0.1:1"}`, fail, "connect to 127.0.0.1:1: connect: connection refused"},
		{"TLS with a server that has none fails", `{address: "ADDRESS", tls: {}}`, fail, "TLS with 127.0.0.1:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.NewReplacer("ADDRESS", address, "SOCKET", socket, "SILENT", silent).Replace(tt.config)
			wantResult(t, ask(t, checker[TCPConfig](t, text, nil)), tt.status, tt.message)
		})
	}
}

func TestTCPEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	address := speak(t, "tcp", "127.0.0.1:0", redis)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := checker[TCPConfig](t, `{address: "`+address+`", send: "HANG\r\n", expect: x}`, nil).Check(ctx)
	wantResult(t, r, verdict.Fail, address+": no whole answer by the deadline")
}

func TestTCPWithTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(nil)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()
	address, ca := s.Listener.Addr().String(), authority(t, s)
	wantResult(t, ask(t, checker[TCPConfig](t, fmt.Sprintf(`{address: "%s", tls: {ca_file: %s}, send: "GET / HTTP/1.0\r\n\r\n", expect: "HTTP/1.0 404"}`, address, ca), nil)), verdict.Pass, "answered in")
	wantResult(t, ask(t, checker[TCPConfig](t, fmt.Sprintf(`{address: "%s", tls: {ca_file: %s, server_name: b.example}}`, address, ca), nil)), verdict.Fail, "not b.example")
}

func TestTCPConfigIsStrict(t *testing.T) {
	t.Parallel()
	wantMistakes[TCPConfig](t, map[string]string{
		`{}`:                        "check.address: got nothing",
		`{address: "localhost"}`:    "check.address: got localhost, want host:port",
		`{address: ":80"}`:          "check.address: got :80",
		`{address: "a:http"}`:       "check.address: got a:http",
		`{address: "unix:s"}`:       "check.address: got unix:s, want a socket",
		`{address: "a:70000"}`:      "check.address: got a:70000",
		`{address: "a:1", warn: x}`: "check.warn: got x",
		`{address: "a:1", tls: {ca_file: /nowhere}}`: "check.tls.ca_file: got ",
	})
}
