package checks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// TCPConfig describes a server that takes connections, and perhaps what it says.
//
// healthcheck.TCPDialCheck takes no context, so it could not end when the agent
// does; and it knows neither sockets nor TLS. This kind dials by itself.
type TCPConfig struct {
	Address string `yaml:"address" required:"true"` // host:port, or unix:/path

	Send   config.Secret `yaml:"send"`   // in double quotes \r\n is a line's end
	Expect string        `yaml:"expect"` // a text in the answer; nothing more is read then

	TLS *ClientTLS `yaml:"tls"` // {} is TLS with the system's authorities

	Limits // of the time to the connection, or to what is expected, in seconds
}

const maxAnswer = 64 << 10 // bytes in which a server says what is expected

// Validate is asked when the configuration is read.
func (c *TCPConfig) Validate() error {
	_, err := c.build()
	return err
}

// Build implements [Builder].
func (c *TCPConfig) Build(env Env) (Checker, error) {
	t, err := c.build()
	if err != nil {
		return nil, err
	}
	t.now = env.Now
	return t, nil
}

func (c *TCPConfig) build() (*tcpCheck, error) {
	t := &tcpCheck{TCPConfig: c}
	var errs []error
	var err error
	if t.network, t.address, err = splitAddress(c.Address); err != nil {
		errs = append(errs, err)
	}
	if c.TLS != nil {
		if t.tls, err = c.TLS.build("tls."); err != nil {
			errs = append(errs, err)
		} else if t.tls.ServerName == "" {
			t.tls.ServerName = hostOf(t.network, t.address)
		}
	}
	return t, errors.Join(errs...)
}

// splitAddress reads host:port or unix:/path, or returns a [config.FieldError].
func splitAddress(text string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if strings.HasPrefix(path, "/") {
			return "unix", path, nil
		}
		return "", "", &config.FieldError{Key: "address", Got: snippet(text, 100), Want: "a socket such as unix:/run/api.sock"}
	}
	host, port, err := net.SplitHostPort(text)
	n, err2 := strconv.Atoi(port)
	if err != nil || err2 != nil || host == "" || n < 1 || n > 65535 {
		return "", "", &config.FieldError{Key: "address", Got: snippet(text, 100), Want: "host:port, such as 127.0.0.1:6379, or unix:/path"}
	}
	return "tcp", text, nil
}

// hostOf is the name to be in a certificate.
func hostOf(network, address string) string {
	host, _, err := net.SplitHostPort(address)
	if network == "unix" || err != nil {
		return "localhost"
	}
	return host
}

// A tcpCheck connects.
type tcpCheck struct {
	*TCPConfig
	network, address string
	tls              *tls.Config
	now              func() time.Time
}

// Check implements [Checker].
func (t *tcpCheck) Check(ctx context.Context) verdict.Result {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	begun := t.now()
	conn, err := (&net.Dialer{}).DialContext(ctx, t.network, t.address)
	if err != nil {
		return refused(ctx, "connect to "+t.Address, withoutOperation(err))
	}
	defer conn.Close()
	// What follows knows no context: end it with the connection.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if t.tls != nil {
		secure := tls.Client(conn, t.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return refused(ctx, "TLS with "+t.Address, err)
		}
		conn = secure
	}
	what := "connected to " + t.Address
	if text := t.Send.Text(); text != "" {
		if _, err := io.WriteString(conn, text); err != nil {
			return refused(ctx, "send to "+t.Address, withoutOperation(err))
		}
	}
	if t.Expect != "" {
		if err := readUntil(conn, t.Expect); err != nil {
			return refused(ctx, t.Address, err)
		}
		what = t.Address + " answered"
	}
	return answered(what, t.now().Sub(begun), t.Limits)
}

// readUntil reads until a text came.
func readUntil(r io.Reader, expect string) error {
	got := make([]byte, 0, 512)
	for len(got) < maxAnswer {
		if len(got) == cap(got) {
			got = append(got, 0)[:len(got)]
		}
		n, err := r.Read(got[len(got):min(cap(got), maxAnswer)])
		got = got[:len(got)+n]
		if bytes.Contains(got, []byte(expect)) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("got %s, want %q: %w", gotBytes(got), snippet(expect, 60), withoutOperation(err))
		}
		if err != nil {
			return fmt.Errorf("got %s and the end, want %q", gotBytes(got), snippet(expect, 60))
		}
	}
	return fmt.Errorf("got %d bytes%s, want %q in the first %d", len(got), begins(got), snippet(expect, 60), maxAnswer)
}

func gotBytes(got []byte) string {
	if len(got) == 0 {
		return "nothing"
	}
	return strconv.Quote(snippet(string(got), 100))
}

// withoutOperation takes "dial tcp 127.0.0.1:1:" out of an error: the caller says
// what was done, and to whom.
func withoutOperation(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return op.Err
	}
	return err
}
