package exporters

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
)

const maxPEM = 1 << 20 // bytes of a file of certificates

// OpenTSDBAuth is a name and a password, as HTTP's basic authentication has them.
type OpenTSDBAuth struct {
	Username string        `yaml:"username"`
	Password config.Secret `yaml:"password"`
}

// OpenTSDBTLS says whom the exporter trusts, and who it is itself.
type OpenTSDBTLS struct {
	CAFile config.Path `yaml:"ca_file"` // instead of the system's authorities
	ca     string      // what it holds: other authorities are another configuration

	// CertFile and KeyFile are the client certificate. They are read again for
	// each connection, so that one that is renewed is used.
	CertFile config.Path       `yaml:"cert_file"`
	KeyFile  config.SecretFile `yaml:"key_file"`

	ServerName         string `yaml:"server_name"` // to be in the server's certificate, instead of the URL's host
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// Validate implements the configuration's check.
func (c *OpenTSDBTLS) Validate() error {
	_, err := c.build()
	return err
}

// build returns the settings, or a [config.FieldError].
func (c *OpenTSDBTLS) build() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.CAFile != "" {
		text, err := readPEM(c.CAFile)
		if t.RootCAs = x509.NewCertPool(); err == nil && !t.RootCAs.AppendCertsFromPEM(text) {
			err = fmt.Errorf("%s: no certificate", c.CAFile)
		}
		if err != nil {
			return nil, &config.FieldError{Key: "ca_file", Got: err.Error(), Want: "a readable file of certificates in PEM"}
		}
		c.ca = string(text)
	}
	if (c.CertFile == "") != (c.KeyFile.Path == "") {
		return nil, &config.FieldError{Key: "cert_file", Got: "only one of cert_file and key_file", Want: "both or none"}
	}
	if c.CertFile == "" {
		return t, nil
	}
	if _, err := c.certificate(); err != nil {
		return nil, &config.FieldError{Key: "cert_file", Got: err.Error(), Want: "a certificate in PEM, and its key in key_file"}
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := c.certificate()
		if err != nil {
			return nil, tlsError{err}
		}
		return pair, nil
	}
	return t, nil
}

// certificate reads the client certificate as it is now.
func (c *OpenTSDBTLS) certificate() (*tls.Certificate, error) {
	cert, err := readPEM(c.CertFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	key, err := readPEM(c.KeyFile.Path)
	if err != nil {
		return nil, fmt.Errorf("key of the client certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.CertFile, err)
	}
	return &pair, nil
}

// readPEM reads a file that should be a small one.
func readPEM(path config.Path) ([]byte, error) {
	info, err := os.Stat(string(path))
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxPEM:
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, maxPEM)
	}
	return os.ReadFile(string(path))
}

// tlsError is a client certificate that cannot be read.
type tlsError struct{ error }

// isTLS reports whether it is the encryption that failed: then somebody has to look
// at certificates, not at the network. What the server says of them is of no type
// that others can name, and begins with tls.
func isTLS(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && strings.HasPrefix(op.Err.Error(), "tls: ") {
		return true
	}
	var (
		ours   tlsError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
	)
	return errors.As(err, &ours) || errors.As(err, &cert) || errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch)
}

// ownHeaders are the exporter's, or the connection's. Read-only.
var ownHeaders = []string{"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Host", "Transfer-Encoding"}

// header returns what the configuration adds to each request, or what is wrong with
// it. It never quotes a value.
func (c *OpenTSDBConfig) header() (http.Header, error) {
	h := http.Header{}
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		key, value := http.CanonicalHeaderKey(name), c.Headers[name].Text()
		switch {
		case !isToken(name):
			wrong("headers", strconv.Quote(shorten(name)), "names of headers")
		case slices.Contains(ownHeaders, key):
			wrong("headers", key+", which the exporter sets itself", "other headers")
		case h.Values(key) != nil:
			wrong("headers", key+" twice", "each once")
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			wrong("headers", key+" with a line break, or another control character, in its value", "text")
		default:
			h.Set(key, value)
		}
	}
	ways := 0
	if h.Get("Authorization") != "" {
		ways++
	}
	if u, err := url.Parse(c.URL.Text()); err == nil && u.User != nil {
		ways++
	}
	if c.BasicAuth != (OpenTSDBAuth{}) {
		ways++
		r := http.Request{Header: h}
		r.SetBasicAuth(c.BasicAuth.Username, c.BasicAuth.Password.Text())
		if strings.Contains(c.BasicAuth.Username, ":") {
			wrong("basic_auth.username", "a name with a colon", "one without")
		}
	}
	if ways > 1 {
		wrong("basic_auth", "more than one of basic_auth, a user in url and the header Authorization", "one of them")
	}
	return h, errors.Join(errs...)
}

// isToken reports whether a header may have the name (RFC 9110, 5.6.2).
func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>@,;:\\\"/[]?={}", r)
	})
}
