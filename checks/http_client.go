package checks

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
)

// HTTPTarget says who is asked over HTTP, and as whom.
type HTTPTarget struct {
	// URL begins with http:// or https://, or is unix:///path/of.sock:/path for a
	// socket. It is printed, up to its question mark: what is secret goes into
	// headers.
	URL string `yaml:"url" required:"true"`

	Headers         map[string]config.Secret `yaml:"headers"`
	BasicAuth       HTTPBasicAuth            `yaml:"basic_auth"`
	BearerToken     config.Secret            `yaml:"bearer_token"`
	BearerTokenFile config.SecretFile        `yaml:"bearer_token_file"` // read again for each request
	TLS             ClientTLS                `yaml:"tls"`
}

// HTTPBasicAuth is a name and a password.
type HTTPBasicAuth struct {
	Username string        `yaml:"username"`
	Password config.Secret `yaml:"password"`
}

// ClientTLS says whom a check trusts, and who it is itself.
type ClientTLS struct {
	CAFile             config.Path `yaml:"ca_file"`   // instead of the system's authorities
	CertFile           config.Path `yaml:"cert_file"` // with KeyFile; both are read again for each connection
	KeyFile            config.Path `yaml:"key_file"`
	ServerName         string      `yaml:"server_name"` // to be in the certificate, instead of the address's host
	InsecureSkipVerify bool        `yaml:"insecure_skip_verify"`
}

const (
	maxRedirects = 20
	maxSmallFile = 1 << 20 // bytes of a file of certificates, or of a token
)

// An asker sends the requests of one check.
type asker struct {
	url       *url.URL
	shown     string // the address without what may be secret
	client    *http.Client
	header    http.Header
	tokenFile config.SecretFile
}

// asker returns what asks, or errors of type [config.FieldError].
func (c *HTTPTarget) asker(redirects int) (*asker, error) {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	a := &asker{header: http.Header{}, tokenFile: c.BearerTokenFile}
	text, socket := c.URL, ""
	if rest, ok := strings.CutPrefix(text, "unix://"); ok {
		var path string
		socket, path, _ = strings.Cut(rest, ":")
		text = "http://localhost" + cmp.Or(path, "/")
		if !strings.HasPrefix(socket, "/") || path != "" && path[0] != '/' {
			wrong("url", snippet(c.URL, 100), "an address such as unix:///run/api.sock:/health")
		}
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		wrong("url", snippet(c.URL, 100), "an address such as http://127.0.0.1:8080/health")
	case u.User != nil:
		wrong("url", snippet(c.URL, 100)+" with a user", "the user in basic_auth")
	case u.Scheme == "http" && c.TLS != (ClientTLS{}):
		wrong("tls", "settings for an address without TLS", "https://, or no settings")
	}
	for name, value := range c.Headers {
		if !headerName(name) {
			wrong("headers", snippet(name, 100), "names of headers")
			continue
		}
		a.header.Set(name, value.Text())
	}
	ways := 0
	if c.BasicAuth != (HTTPBasicAuth{}) {
		ways++
		r := http.Request{Header: a.header}
		r.SetBasicAuth(c.BasicAuth.Username, c.BasicAuth.Password.Text())
	}
	if c.BearerToken.Text() != "" {
		ways++
		a.header.Set("Authorization", "Bearer "+c.BearerToken.Text())
	}
	if c.BearerTokenFile.Path != "" {
		ways++
	}
	if ways > 1 {
		wrong("basic_auth", "more than one of basic_auth, bearer_token and bearer_token_file", "one of them")
	}
	tlsConfig, err := c.TLS.build("tls.")
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	a.url = u
	if a.shown, _, _ = strings.Cut(c.URL, "?"); a.shown != c.URL {
		a.shown += "?..."
	}
	a.client = newClient(socket, tlsConfig, redirects)
	return a, nil
}

func headerName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>@,;:\\\"/[]?={}", r)
	})
}

// newClient returns a client that makes a connection for each request: one that
// is kept would hide that nobody accepts new ones, and a certificate that was
// replaced. A redirect to another host or scheme is not followed: it is the answer.
func newClient(socket string, tlsConfig *tls.Config, redirects int) *http.Client {
	dialer := &net.Dialer{}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        tlsConfig,
		DisableKeepAlives:      true,
		DisableCompression:     true, // the limit is one of what was unpacked
		MaxResponseHeaderBytes: 64 << 10,
	}
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		first := via[0].URL
		switch {
		case redirects == 0 || r.URL.Host != first.Host || r.URL.Scheme != first.Scheme:
			return http.ErrUseLastResponse
		case len(via) > redirects:
			return fmt.Errorf("redirected %d times, want at most %d", len(via), redirects)
		}
		return nil
	}}
}

// ask sends a request. The body of the answer must be closed.
func (a *asker) ask(ctx context.Context, method, body, accept string) (*http.Response, error) {
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, a.url.String(), content)
	if err != nil {
		return nil, withoutAddress(err)
	}
	r.Header = a.header.Clone()
	for key, value := range map[string]string{"Accept": accept, "User-Agent": "outrider", "Accept-Encoding": "identity"} {
		if r.Header.Get(key) == "" {
			r.Header.Set(key, value)
		}
	}
	if a.tokenFile.Path != "" {
		token := a.tokenFile.Bytes()
		if now, err := readSmallFile(a.tokenFile.Path); err == nil { // else the one before may still do
			token = []byte(strings.TrimSpace(string(now)))
		}
		r.Header.Set("Authorization", "Bearer "+string(token))
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	resp, err := a.client.Do(r)
	if err != nil {
		return nil, withoutAddress(err)
	}
	return resp, nil
}

// withoutAddress takes the address out of an error: the caller names it, and it
// may have a secret behind its question mark.
func withoutAddress(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// build returns the settings, or a [config.FieldError] whose key begins with prefix.
func (c *ClientTLS) build(prefix string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.CAFile != "" {
		var err error
		if t.RootCAs, err = readRoots(c.CAFile); err != nil {
			return nil, &config.FieldError{Key: prefix + "ca_file", Got: err.Error(), Want: "a readable file of certificates in PEM"}
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, &config.FieldError{Key: prefix + "cert_file", Got: "only one of cert_file and key_file", Want: "both or none"}
	}
	if c.CertFile == "" {
		return t, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(string(c.CertFile), string(c.KeyFile))
		return &pair, err
	}
	if _, err := load(); err != nil {
		return nil, &config.FieldError{Key: prefix + "cert_file", Got: err.Error(), Want: "a certificate in PEM, and its key in key_file"}
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return t, nil
}

func readRoots(path config.Path) (*x509.CertPool, error) {
	text, err := readSmallFile(path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate", path)
	}
	return roots, nil
}

// readSmallFile reads a file that should be a small one.
func readSmallFile(path config.Path) ([]byte, error) {
	// A pipe without a writer would block: ask before opening.
	info, err := os.Stat(string(path))
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxSmallFile:
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, maxSmallFile)
	}
	return os.ReadFile(string(path))
}
