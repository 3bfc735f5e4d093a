package exporters

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
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue returns a certificate for a name, and its key, in PEM.
func (a *authority) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if a.cert == nil { // it is the authority's own
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		a.cert, a.key = template, k
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func newAuthority(t *testing.T) (a *authority, pem []byte) {
	a = &authority{}
	pem, _ = a.issue(t, "authority")
	return a, pem
}

func write(t *testing.T, path string, text []byte) config.Path {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Path(path)
}

// put sends one point to a server, as often as it is called.
func put(t *testing.T, c *OpenTSDBConfig) (send func() error) {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	e, err := c.Build(Env{Log: slog.New(slog.DiscardHandler), Now: time.Now, UserAgent: "outrider/test"})
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		_, err := e.Send(t.Context(), []Point{{Ref: &openTSDBSeries{`{"metric":"x","timestamp":`, `,"tags":{"a":"b"}}`}, Value: 1, Times: 1, At: 1}})
		if closer, ok := e.(io.Closer); ok { // a new connection each time
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		}
		return err
	}
}

// cause is that of a failure, and what it says.
func cause(err error) (cause, says string) {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Cause, f.Error()
	}
	if err != nil {
		return failureOf(err).Cause, err.Error()
	}
	return "", ""
}

func TestOpenTSDBTrustsWhomItIsToldTo(t *testing.T) {
	t.Parallel()
	a, pemA := newAuthority(t)
	_, pemB := newAuthority(t)
	dir := t.TempDir()
	ca, other := write(t, filepath.Join(dir, "a.pem"), pemA), write(t, filepath.Join(dir, "b.pem"), pemB)
	server := httptest.NewUnstartedServer(&tsdb{})
	pair, err := tls.X509KeyPair(a.issue(t, "tsdb.example"))
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	plain := httptest.NewServer(&tsdb{})
	defer plain.Close()

	for name, tt := range map[string]struct {
		url, cause, says string
		tls              OpenTSDBTLS
	}{
		"the authority and the name": {server.URL, "", "", OpenTSDBTLS{CAFile: ca, ServerName: "tsdb.example"}},
		"another authority":          {server.URL, "tls", "unknown authority", OpenTSDBTLS{CAFile: other, ServerName: "tsdb.example"}},
		"another name":               {server.URL, "tls", "not other.example", OpenTSDBTLS{CAFile: ca, ServerName: "other.example"}},
		"the address's host":         {server.URL, "tls", "cannot validate certificate for 127.0.0.1", OpenTSDBTLS{CAFile: ca}},
		"the system's authorities":   {server.URL, "tls", "unknown authority", OpenTSDBTLS{ServerName: "tsdb.example"}},
		"everybody":                  {server.URL, "", "", OpenTSDBTLS{InsecureSkipVerify: true}},
		"a server without TLS":       {strings.Replace(plain.URL, "http:", "https:", 1), "tls", "HTTP response to HTTPS client", OpenTSDBTLS{}},
	} {
		got, says := cause(put(t, &OpenTSDBConfig{URL: config.NewSecret(tt.url), TLS: tt.tls})())
		if got != tt.cause || !strings.Contains(says, tt.says) {
			t.Errorf("%s: cause %q: %s, want %q, and to say %q", name, got, says, tt.cause, tt.says)
		}
	}
}

// TestOpenTSDBClientCertificateIsReadAgain: it lives shorter than the agent.
func TestOpenTSDBClientCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	a, pemA := newAuthority(t)
	var clients []string
	s := &tsdb{answer: func(_ http.ResponseWriter, r *http.Request, _ []tsdbPoint) bool {
		clients = append(clients, r.TLS.PeerCertificates[0].Subject.CommonName)
		return true
	}}
	server := httptest.NewUnstartedServer(s)
	server.TLS = &tls.Config{ClientCAs: x509.NewCertPool(), ClientAuth: tls.RequireAndVerifyClientCert}
	server.TLS.ClientCAs.AppendCertsFromPEM(pemA)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()

	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func(a *authority, name string) {
		cert, key := a.issue(t, name)
		write(t, certFile, cert)
		write(t, keyFile, key)
	}
	renew(a, "first")
	send := put(t, &OpenTSDBConfig{URL: config.NewSecret(server.URL), TLS: OpenTSDBTLS{
		CertFile: config.Path(certFile), KeyFile: config.NewSecretFile(config.Path(keyFile), nil), InsecureSkipVerify: true,
	}})
	if err := send(); err != nil {
		t.Fatal(err)
	}
	renew(a, "second")
	if err := send(); err != nil {
		t.Fatal(err)
	}
	stranger, _ := newAuthority(t)
	renew(stranger, "stranger")
	if got, says := cause(send()); got != "tls" {
		t.Errorf("certificate of a stranger: cause %q: %s, want tls", got, says)
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	if got, says := cause(send()); got != "tls" || !strings.Contains(says, "key of the client certificate") {
		t.Errorf("no key: cause %q: %s, want tls, and the key", got, says)
	}
	if diff := cmp.Diff([]string{"first", "second"}, clients); diff != "" {
		t.Errorf("clients (-want +got):\n%s", diff)
	}
}

func TestOpenTSDBHeaders(t *testing.T) {
	t.Parallel()
	var got http.Header
	s := &tsdb{answer: func(w http.ResponseWriter, r *http.Request, _ []tsdbPoint) bool {
		if got = r.Header; r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return false
		}
		return true
	}}
	server := httptest.NewServer(s)
	defer server.Close()
	c := &OpenTSDBConfig{URL: config.NewSecret(server.URL), Gzip: true, Headers: map[string]config.Secret{"x-scope-orgid": config.NewSecret("7")}}
	if name, says := cause(put(t, c)()); name != "401" || !strings.Contains(says, "status 401") {
		t.Errorf("no password: cause %q: %s, want it to be tried again because of 401", name, says)
	}
	c.BasicAuth = OpenTSDBAuth{"tsdb", config.NewSecret("p:ss")}
	send := put(t, c)
	for range 2 {
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"Authorization": "Basic dHNkYjpwOnNz", "X-Scope-Orgid": "7", "User-Agent": "outrider/test",
		"Content-Type": "application/json", "Content-Encoding": "gzip",
	} {
		if diff := cmp.Diff([]string{want}, got.Values(name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOpenTSDBNamesWhatIsWrongWithRequests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, key := (&authority{}).issue(t, "x")
	noCert := write(t, filepath.Join(dir, "x.pem"), []byte("password"))
	keyFile := config.NewSecretFile(write(t, filepath.Join(dir, "key.pem"), key), nil)
	secret := config.NewSecret("password\n")
	for want, edit := range map[string]func(c *OpenTSDBConfig){
		`headers: got "a b", want names of headers`:                                       func(c *OpenTSDBConfig) { c.Headers = map[string]config.Secret{"a b": secret} },
		`headers: got Host, which the exporter sets itself`:                               func(c *OpenTSDBConfig) { c.Headers = map[string]config.Secret{"host": secret} },
		`headers: got A with a line break, or another control character, in its value`:    func(c *OpenTSDBConfig) { c.Headers = map[string]config.Secret{"a": secret} },
		`headers: got A twice, want each once`:                                            func(c *OpenTSDBConfig) { c.Headers = map[string]config.Secret{"A": {}, "a": {}} },
		`basic_auth.username: got a name with a colon`:                                    func(c *OpenTSDBConfig) { c.BasicAuth.Username = "a:b" },
		`basic_auth: got more than one of basic_auth, a user in url and the header`:       func(c *OpenTSDBConfig) { c.BasicAuth.Password, c.URL = secret, config.NewSecret("https://a:b@x") },
		`tls: got settings for an address without TLS, want https://, or no settings`:     func(c *OpenTSDBConfig) { c.URL, c.TLS.ServerName = config.NewSecret("http://x"), "y" },
		`ca_file: got ` + string(noCert) + `: no certificate, want a readable file`:       func(c *OpenTSDBConfig) { c.TLS.CAFile = noCert },
		`ca_file: got ` + dir + `: not a regular file of at most 1048576 bytes`:           func(c *OpenTSDBConfig) { c.TLS.CAFile = config.Path(dir) },
		`cert_file: got only one of cert_file and key_file, want both or none`:            func(c *OpenTSDBConfig) { c.TLS.KeyFile = keyFile },
		`cert_file: got ` + string(noCert) + `: tls: failed to find any PEM data in cert`: func(c *OpenTSDBConfig) { c.TLS.CertFile, c.TLS.KeyFile = noCert, keyFile },
	} {
		c := openTSDBTo("https://x")
		c.MaxTags, c.Batch, c.Timeout = 8, 50, time.Second
		if err := errors.Join(c.Validate(), c.TLS.Validate()); err != nil {
			t.Fatal(err)
		}
		edit(c)
		err := errors.Join(c.Validate(), c.TLS.Validate())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "password\n") {
			t.Errorf("got %v, want %q in it", err, want)
		}
		if _, err := c.Build(Env{}); err == nil && !strings.HasPrefix(want, "tls:") {
			t.Errorf("built although %s", want)
		}
	}
}
