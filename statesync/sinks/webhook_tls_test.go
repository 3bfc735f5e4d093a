package sinks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns a certificate for a name, and its key, in PEM.
func (a *authority) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func write(t *testing.T, path string, text []byte) config.Path {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Path(path)
}

// trusting opens a sink for a server, over TLS if it has that.
func trusting(t *testing.T, server *httptest.Server, edits ...func(*WebhookConfig)) *webhookSink {
	t.Helper()
	if server.Certificate() == nil {
		return webhook(t, server.URL, edits...)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	path := write(t, filepath.Join(t.TempDir(), "ca.pem"), ca)
	return webhook(t, server.URL, append(edits, func(c *WebhookConfig) { c.TLS.CAFile = path })...)
}

// guarded starts a receiver that has a certificate for platform.example, and
// wants one of the authority from its clients. It tells their names, and the
// version of TLS.
func guarded(t *testing.T, a *authority, edit func(*tls.Config)) (server *httptest.Server, clients func() []string) {
	t.Helper()
	var mu sync.Mutex
	var names []string
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		names = append(names, name)
	}))
	pair, err := tls.X509KeyPair(a.issue(t, "platform.example"))
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: x509.NewCertPool()}
	server.TLS.ClientCAs.AddCert(a.cert)
	if edit != nil {
		edit(server.TLS)
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string{}, names...)
	}
}

func TestWebhookTrustsWhomItIsToldTo(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	ca := write(t, filepath.Join(dir, "a.pem"), a.pem)
	other := write(t, filepath.Join(dir, "b.pem"), b.pem)
	server, _ := guarded(t, a, nil)
	old, _ := guarded(t, a, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 })
	for name, tt := range map[string]struct {
		url, says string
		tls       WebhookTLS
	}{
		"the authority and the name":   {server.URL, "", WebhookTLS{CAFile: ca, ServerName: "platform.example"}},
		"another authority":            {server.URL, "unknown authority", WebhookTLS{CAFile: other, ServerName: "platform.example"}},
		"another name":                 {server.URL, "not other.example", WebhookTLS{CAFile: ca, ServerName: "other.example"}},
		"the address's host":           {server.URL, "cannot validate certificate for 127.0.0.1", WebhookTLS{CAFile: ca}},
		"the system's authorities":     {server.URL, "unknown authority", WebhookTLS{ServerName: "platform.example"}},
		"everybody":                    {server.URL, "", WebhookTLS{InsecureSkipVerify: true}},
		"a version that nobody should": {old.URL, "protocol version", WebhookTLS{InsecureSkipVerify: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := webhook(t, tt.url, func(c *WebhookConfig) { c.TLS = tt.tls })
			err := post(t.Context(), s, delivery("a", 1))
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e := refusal(t, err, "tls"); e.Rejected || !strings.Contains(e.Error(), tt.says) {
				t.Errorf("rejected %t: %v, want it to be tried again, and to say %q", e.Rejected, e, tt.says)
			}
		})
	}
}

// TestWebhookClientCertificateIsReadAgain: it lives shorter than the agent.
func TestWebhookClientCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	server, clients := guarded(t, a, func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert })
	dir := t.TempDir()
	certPath, keyPath := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func(from *authority, name string) {
		cert, key := from.issue(t, name)
		write(t, certPath, cert)
		write(t, keyPath, key)
	}
	renew(a, "first")
	key, err := os.ReadFile(keyPath)
	if err != nil {
		t.Fatal(err)
	}
	s := webhook(t, server.URL, func(c *WebhookConfig) {
		c.TLS = WebhookTLS{
			CAFile: write(t, filepath.Join(dir, "ca.pem"), a.pem), ServerName: "platform.example",
			CertFile: config.Path(certPath), KeyFile: config.NewSecretFile(config.Path(keyPath), key),
		}
	})
	try := func() error {
		s.transport.CloseIdleConnections()
		return post(t.Context(), s, delivery("a", 1))
	}
	if err := try(); err != nil {
		t.Fatal(err)
	}
	renew(a, "second")
	if err := try(); err != nil {
		t.Fatal(err)
	}
	renew(newAuthority(t), "stranger")
	refusal(t, try(), "tls")
	write(t, certPath, nil)
	refusal(t, try(), "tls")
	if err := os.Remove(keyPath); err != nil {
		t.Fatal(err)
	}
	if e := refusal(t, try(), "tls"); !strings.Contains(e.Error(), "key of the client certificate") {
		t.Errorf("error %v, want it to name the key", e)
	}
	renew(a, "third")
	if err := try(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"first", "second", "third"}, clients()); diff != "" {
		t.Errorf("clients (-want +got):\n%s", diff)
	}

	nobody := webhook(t, server.URL, func(c *WebhookConfig) { c.TLS.InsecureSkipVerify = true })
	refusal(t, post(t.Context(), nobody, delivery("a", 1)), "tls")
}
