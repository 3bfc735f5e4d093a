package sinks

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/outrider-agent/outrider/agent/config"
)

const maxPEM = 1 << 20 // bytes of a file of certificates

// WebhookTLS says whom the sink trusts, and who it is itself.
type WebhookTLS struct {
	CAFile config.Path `yaml:"ca_file"` // instead of the system's authorities
	ca     string      // what it holds: other authorities are another configuration

	// CertFile and KeyFile are the client certificate. They are read again for
	// each connection, so that one that is renewed is used.
	CertFile config.Path       `yaml:"cert_file"`
	KeyFile  config.SecretFile `yaml:"key_file"`

	ServerName         string `yaml:"server_name"` // to be in the receiver's certificate, instead of the address's host
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// Validate implements the configuration's check.
func (c *WebhookTLS) Validate() error {
	_, err := c.build()
	return err
}

// build returns the settings, or a [config.FieldError].
func (c *WebhookTLS) build() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.CAFile != "" {
		const want = "a readable file of certificates in PEM"
		text, err := readPEM(c.CAFile)
		if err != nil {
			return nil, &config.FieldError{Key: "ca_file", Got: err.Error(), Want: want}
		}
		c.ca = string(text)
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, &config.FieldError{Key: "ca_file", Got: string(c.CAFile) + ": no certificate", Want: want}
		}
	}
	switch {
	case c.CertFile == "" && c.KeyFile.Path == "":
		return t, nil
	case c.CertFile == "":
		return nil, &config.FieldError{Key: "cert_file", Got: "nothing beside key_file", Want: "both or none"}
	case c.KeyFile.Path == "":
		return nil, &config.FieldError{Key: "key_file", Got: "nothing beside cert_file", Want: "both or none"}
	}
	if _, err := c.certificate(); err != nil {
		return nil, &config.FieldError{Key: "cert_file", Got: err.Error(), Want: "a certificate in PEM, and its key in key_file"}
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := c.certificate()
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		return pair, nil
	}
	return t, nil
}

// certificate reads the client certificate as it is now.
func (c *WebhookTLS) certificate() (*tls.Certificate, error) {
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
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: no such file", path)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", path)
	case info.Size() > maxPEM:
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxPEM)
	}
	return os.ReadFile(string(path))
}
