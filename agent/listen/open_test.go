package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestOpenTCP(t *testing.T) {
	for spec, local := range map[string]bool{":0": true, "127.0.0.1:0": true, "localhost:0": true, "0.0.0.0:0": false} {
		l, err := Open(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := Local(l.Addr()); got != local {
			t.Errorf("Local(%s, listening on %v): got %v, want %v", spec, l.Addr(), got, local)
		}
		if _, err := Open(t.Context(), l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second on %v: got %v, want EADDRINUSE", l.Addr(), err)
		}
		_ = l.Close()
	}
	if l, err := Open(t.Context(), "off"); l != nil || err != nil {
		t.Errorf("off: got %v (%v), want nothing", l, err)
	}
	if _, err := Open(t.Context(), "9610"); err == nil || !strings.Contains(err.Error(), `got "9610", want host:port`) {
		t.Errorf("9610: got %v, want the forms", err)
	}
}

func TestOpenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	l, err := Open(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || !Local(l.Addr()) {
		t.Errorf("got %v (%v), local %v, want mode 0600 and local", info.Mode(), err, Local(l.Addr()))
	}
	if _, err := Open(t.Context(), "unix:"+path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second: got %v, want EADDRINUSE", err)
	}

	// A process that is killed leaves its socket.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	l, err = Open(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatalf("after a dead process: got %v, want a listener", err)
	}
	_ = l.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("on a file: got %v, want an error", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file: got %q (%v), want it untouched", b, err)
	}
}

// pipes is a listener to which anybody can connect without a network.
type pipes struct {
	net.Listener
	waiting chan net.Conn
	closed  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.waiting:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	close(p.closed)
	return nil
}

func TestLimitFreesASlotWithEachConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := pipes{waiting: make(chan net.Conn, 3), closed: make(chan struct{})}
		l := Limit(inner, 2)
		for range 3 {
			a, b := net.Pipe()
			defer a.Close()
			inner.waiting <- b
		}
		accepted := make(chan net.Conn, 3)
		done := make(chan error, 1)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					done <- err
					return
				}
				accepted <- c
			}
		}()
		synctest.Wait()
		if len(accepted) != 2 {
			t.Fatalf("got %d connections, want 2 of 3", len(accepted))
		}
		c := <-accepted
		_ = c.Close()
		_ = c.Close() // frees one slot, not two
		synctest.Wait()
		if len(accepted) != 2 {
			t.Errorf("after a Close: got %d connections, want the third too", len(accepted))
		}
		_ = l.Close() // while Accept waits for a slot
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: got %v, want net.ErrClosed", err)
		}
	})
}

// serve serves the rings on a listener that is on loopback and says it is not.
func serve(t *testing.T, a *Auth) string {
	t.Helper()
	inner, err := Open(t.Context(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(rings(&Gate{Auth: a}), a, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- Serve(s, worldly{inner}) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return inner.Addr().String()
}

type worldly struct{ net.Listener }

func (worldly) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 1} }

func TestServeOverTLSWithClientCertificates(t *testing.T) {
	config := tlsConfig(t, "client_auth_type: VerifyClientCertIfGiven, client_ca_file: cert.pem, client_allowed_sans: [localhost]")
	a, err := LoadAuth(AuthOptions{WebConfig: config})
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, a)
	dir := filepath.Dir(config)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for _, tt := range []struct {
		name  string
		certs []tls.Certificate
		path  string
		code  int
		body  string
	}{
		{"a probe without a certificate", nil, "/healthz", 200, "probe"},
		{"metrics without a certificate", nil, "/metrics", 401, "unauthorized"},
		{"metrics with a certificate", []tls.Certificate{pair}, "/metrics", 200, "metrics detail=true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: tt.certs}}
			defer tr.CloseIdleConnections()
			r, err := (&http.Client{Transport: tr}).Get("https://" + addr + tt.path)
			if err != nil {
				t.Fatal(err)
			}
			if body := readAll(t, r); r.StatusCode != tt.code || !strings.Contains(body, tt.body) || r.ProtoMajor != 2 {
				t.Errorf("got %s %d %q, want %d %q over HTTP/2", r.Proto, r.StatusCode, body, tt.code, tt.body)
			}
		})
	}
}

func TestServePlainTextSpeaksOnlyHTTP1(t *testing.T) {
	addr := serve(t, nil)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 4") && !strings.HasPrefix(string(b), "HTTP/1.1 5") {
		t.Errorf("got %q (%v), want an error of HTTP/1.1", b, err)
	}
}

// tlsConfig writes a certificate for 127.0.0.1 that is its own authority, and
// a web configuration with it.
func tlsConfig(t *testing.T, more string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "web.yml", "tls_server_config: {cert_file: cert.pem, key_file: key.pem, "+more+"}\n")
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}
