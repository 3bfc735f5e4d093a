package collectors

import (
	"cmp"
	"compress/gzip"
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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
)

// ScrapeConfig says how a neighbour is asked over HTTP.
type ScrapeConfig struct {
	// URL begins with http:// or https://, or is unix:///path/of.sock:/path for a
	// socket. It is printed: what is secret goes into headers.
	URL string `yaml:"url" required:"true"`

	Headers         map[string]config.Secret `yaml:"headers"`
	BasicAuth       ScrapeBasicAuth          `yaml:"basic_auth"`
	BearerToken     config.Secret            `yaml:"bearer_token"`
	BearerTokenFile config.SecretFile        `yaml:"bearer_token_file"` // read again for each request
	TLS             ScrapeTLS                `yaml:"tls"`
}

// ScrapeBasicAuth is a name and a password.
type ScrapeBasicAuth struct {
	Username string        `yaml:"username"`
	Password config.Secret `yaml:"password"`
}

// ScrapeTLS says whom the collector trusts, and who it is itself.
type ScrapeTLS struct {
	CAFile             config.Path `yaml:"ca_file"`   // instead of the system's authorities
	CertFile           config.Path `yaml:"cert_file"` // with KeyFile; both are read again for each connection
	KeyFile            config.Path `yaml:"key_file"`
	ServerName         string      `yaml:"server_name"` // to be in the certificate, instead of the URL's host
	InsecureSkipVerify bool        `yaml:"insecure_skip_verify"`
}

const (
	scrapeTimeout   = 10 * time.Second // when the caller has no deadline
	scrapeRedirects = 3
	scrapeMaxFile   = 1 << 20 // bytes of a file of certificates, or of a token
)

// Validate implements the configuration's check.
func (c *ScrapeConfig) Validate() error {
	_, err := c.scraper(1)
	return err
}

// scraper returns what asks, and reads at most limit bytes of an answer, or
// errors of type [config.FieldError].
func (c *ScrapeConfig) scraper(limit config.Bytes) (*scraper, error) {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	s := &scraper{shown: c.URL, limit: int64(limit), header: http.Header{}, tokenFile: c.BearerTokenFile}
	text, socket := c.URL, ""
	if rest, ok := strings.CutPrefix(text, "unix://"); ok {
		var path string
		socket, path, _ = strings.Cut(rest, ":")
		text = "http://localhost" + cmp.Or(path, "/metrics")
		if !strings.HasPrefix(socket, "/") || path != "" && path[0] != '/' {
			wrong("url", promShow(c.URL), "an address such as unix:///run/api.sock:/metrics")
		}
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		wrong("url", scrapeHideUser(c.URL), "an address such as http://127.0.0.1:8080/metrics")
	case u.User != nil:
		wrong("url", scrapeHideUser(c.URL)+" with a user", "the user in basic_auth")
	case u.Scheme == "http" && c.TLS != (ScrapeTLS{}):
		wrong("tls", "settings for an address without TLS", "https://, or no settings")
	}
	for name, value := range c.Headers {
		if !scrapeHeaderName(name) {
			wrong("headers", promShow(name), "names of headers")
			continue
		}
		s.header.Set(name, value.Text())
	}
	ways := 0
	if c.BasicAuth != (ScrapeBasicAuth{}) {
		ways++
		r := http.Request{Header: s.header}
		r.SetBasicAuth(c.BasicAuth.Username, c.BasicAuth.Password.Text())
	}
	if c.BearerToken.Text() != "" {
		ways++
		s.header.Set("Authorization", "Bearer "+c.BearerToken.Text())
	}
	if c.BearerTokenFile.Path != "" {
		ways++
	}
	if ways > 1 {
		wrong("basic_auth", "more than one of basic_auth, bearer_token and bearer_token_file", "one of them")
	}
	tlsConfig, err := c.TLS.build()
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.url = u
	s.client = newScrapeClient(socket, tlsConfig)
	if ip := net.ParseIP(u.Hostname()); socket == "" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		// A neighbour on the same machine would pack, and we unpack, for nothing.
		s.packed = true
	}
	return s, nil
}

func scrapeHeaderName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>@,;:\\\"/[]?={}", r)
	})
}

// scrapeHideUser shows an address without what may be a password.
func scrapeHideUser(text string) string {
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		text = config.Redacted + text[i:]
	}
	return promShow(text)
}

func (c *ScrapeTLS) build() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.CAFile != "" {
		text, err := readSmallFile(c.CAFile)
		if t.RootCAs = x509.NewCertPool(); err == nil && !t.RootCAs.AppendCertsFromPEM(text) {
			err = fmt.Errorf("%s: no certificate", c.CAFile)
		}
		if err != nil {
			return nil, &config.FieldError{Key: "tls.ca_file", Got: err.Error(), Want: "a readable file of certificates in PEM"}
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, &config.FieldError{Key: "tls.cert_file", Got: "only one of cert_file and key_file", Want: "both or none"}
	}
	if c.CertFile == "" {
		return t, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(string(c.CertFile), string(c.KeyFile))
		return &pair, err
	}
	if _, err := load(); err != nil {
		return nil, &config.FieldError{Key: "tls.cert_file", Got: err.Error(), Want: "a certificate in PEM, and its key in key_file"}
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return t, nil
}

// readSmallFile reads a file that should be a small one.
func readSmallFile(path config.Path) ([]byte, error) {
	info, err := os.Stat(string(path))
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > scrapeMaxFile:
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, scrapeMaxFile)
	}
	return os.ReadFile(string(path))
}

func newScrapeClient(socket string, tlsConfig *tls.Config) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    5 * time.Second,
		DisableCompression:     true, // the limit is one of what was unpacked
		MaxIdleConns:           1,
		IdleConnTimeout:        90 * time.Second, // a collector that is gone leaves a connection for so long
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
		case r.URL.Host != first.Host || r.URL.Scheme != first.Scheme:
			return &scrapeError{"redirect", fmt.Errorf("redirected to %s://%s, want an answer from %s://%s", r.URL.Scheme, r.URL.Host, first.Scheme, first.Host)}
		case len(via) > scrapeRedirects:
			return &scrapeError{"redirect", fmt.Errorf("redirected %d times, want at most %d", len(via), scrapeRedirects)}
		}
		return nil
	}}
}

// A scrapeError is why nothing, or not everything, could be read.
type scrapeError struct {
	reason string // for the counter
	err    error
}

func (e *scrapeError) Error() string { return e.err.Error() }
func (e *scrapeError) Unwrap() error { return e.err }

// A scraper asks one neighbour.
type scraper struct {
	url       *url.URL
	shown     string
	client    *http.Client
	header    http.Header
	tokenFile config.SecretFile
	limit     int64
	packed    bool // ask for gzip
}

// A scrapeBody is an answer of status 200, unpacked, at most as long as the
// limit.
type scrapeBody struct {
	ctx         context.Context
	contentType string
	n           int64 // bytes read

	r     io.Reader
	left  int64
	close func()
}

// open asks. The body must be closed.
func (s *scraper) open(ctx context.Context, accept string) (*scrapeBody, error) {
	cancel := func() {}
	if _, ok := ctx.Deadline(); !ok {
		ctx, cancel = context.WithTimeout(ctx, scrapeTimeout)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), nil)
	if err != nil {
		cancel()
		return nil, &scrapeError{"connect", err}
	}
	r.Header = s.header.Clone()
	s.describe(ctx, r, accept)
	resp, err := s.client.Do(r) //nolint:bodyclose // scrapeBody.close does
	if err != nil {
		err = scrapeFailure(ctx, err, 0)
		cancel()
		return nil, err
	}
	b := &scrapeBody{ctx: ctx, contentType: resp.Header.Get("Content-Type"), r: resp.Body, left: s.limit, close: func() {
		resp.Body.Close()
		cancel()
	}}
	if resp.StatusCode != http.StatusOK {
		begins := b.beginning(120)
		b.close()
		return nil, &scrapeError{"status", fmt.Errorf("status %d, want 200%s", resp.StatusCode, begins)}
	}
	switch encoding := resp.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		unpacked, err := gzip.NewReader(resp.Body)
		if err != nil {
			err = scrapeFailure(ctx, fmt.Errorf("gzip: %w", err), 0)
			b.close()
			return nil, err
		}
		b.r = unpacked
	default:
		b.close()
		return nil, &scrapeError{"encoding", fmt.Errorf("got Content-Encoding %s, want gzip or none", promShow(encoding))}
	}
	return b, nil
}

func (s *scraper) describe(ctx context.Context, r *http.Request, accept string) {
	set := func(key, value string) {
		if r.Header.Get(key) == "" {
			r.Header.Set(key, value)
		}
	}
	set("Accept", accept)
	set("User-Agent", "outrider")
	if s.packed {
		set("Accept-Encoding", "gzip")
	} else {
		set("Accept-Encoding", "identity")
	}
	if end, ok := ctx.Deadline(); ok {
		set("X-Prometheus-Scrape-Timeout-Seconds", strconv.FormatFloat(max(0, time.Until(end).Seconds()), 'f', 3, 64))
	}
	if s.tokenFile.Path != "" {
		token := s.tokenFile.Bytes()
		if now, err := readSmallFile(s.tokenFile.Path); err == nil { // else the one before may still do
			token = []byte(strings.TrimSpace(string(now)))
		}
		r.Header.Set("Authorization", "Bearer "+string(token))
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
}

// Read implements [io.Reader].
func (b *scrapeBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		if n, err := b.r.Read(one[:]); n == 0 && err != nil {
			return 0, b.failure(err)
		}
		return 0, &scrapeError{"too_large", fmt.Errorf("got more than %d bytes, want at most body_limit", b.n)}
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.n += int64(n)
	b.left -= int64(n)
	if err != nil {
		err = b.failure(err)
	}
	return n, err
}

func (b *scrapeBody) failure(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return scrapeFailure(b.ctx, err, b.n)
}

// beginning shows how an answer begins, for an error.
func (b *scrapeBody) beginning(most int64) string {
	text, err := io.ReadAll(io.LimitReader(b.r, most))
	if err != nil && len(text) == 0 || len(text) == 0 {
		return ""
	}
	return ": it begins with " + promShow(strings.TrimSpace(string(text)))
}

// scrapeFailure says of an error of the client what matters.
func scrapeFailure(ctx context.Context, err error, read int64) error {
	if known, ok := errors.AsType[*scrapeError](err); ok {
		return known
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the address, which the caller names
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		return &scrapeError{"timeout", fmt.Errorf("no whole answer by the deadline: got %d bytes of it", read)}
	case ctx.Err() != nil:
		return &scrapeError{"stopped", ctx.Err()}
	case slices.ContainsFunc([]any{&unknown, &host, &invalid, &record}, func(target any) bool { return errors.As(err, target) }):
		return &scrapeError{"tls", err}
	case errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || strings.HasPrefix(err.Error(), "flate:"):
		return &scrapeError{"encoding", fmt.Errorf("unpack: %w", err)}
	case read > 0 || errors.Is(err, io.ErrUnexpectedEOF):
		return &scrapeError{"truncated", fmt.Errorf("the answer broke off after %d bytes: %w", read, err)}
	}
	return &scrapeError{"connect", err}
}
