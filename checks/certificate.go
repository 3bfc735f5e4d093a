package checks

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// CertificateConfig describes certificates: those that a server shows, which must
// be valid for its name, or those in a file. It takes exactly one of Address and
// File.
type CertificateConfig struct {
	Address    string `yaml:"address"`     // host:port, or unix:/path, of a server that begins with TLS
	ServerName string `yaml:"server_name"` // to be in the certificate, instead of the address's host

	File config.Path `yaml:"file"` // of certificates in PEM

	// CAFile has authorities instead of the system's. With it, or with ServerName,
	// the first certificate of a file must be valid too; without, only how long they
	// are is looked at, because authorities' own files are looked at as well.
	CAFile config.Path `yaml:"ca_file"`

	Warn time.Duration `yaml:"warn" default:"336h"` // what must be left
	Crit time.Duration `yaml:"crit" default:"72h"`
}

// Validate is asked when the configuration is read.
func (c *CertificateConfig) Validate() error {
	var errs []error
	switch {
	case (c.Address == "") == (c.File == ""):
		got := "none of them"
		if c.Address != "" {
			got = "both"
		}
		errs = append(errs, &config.FieldError{Got: got, Want: "exactly one of address and file"})
	case c.Address != "":
		if _, _, err := splitAddress(c.Address); err != nil {
			errs = append(errs, err)
		}
	}
	if c.CAFile != "" {
		if _, err := readRoots(c.CAFile); err != nil {
			errs = append(errs, &config.FieldError{Key: "ca_file", Got: err.Error(), Want: "a readable file of certificates in PEM"})
		}
	}
	errs = append(errs, c.left().validate("warn"))
	return errors.Join(errs...)
}

func (c *CertificateConfig) left() TimeLeft { return TimeLeft{Warn: c.Warn, Crit: c.Crit} }

// Build implements [Builder].
func (c *CertificateConfig) Build(env Env) (Checker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &certificateCheck{c, env.Now}, nil
}

// A certificateCheck looks when certificates end.
type certificateCheck struct {
	*CertificateConfig
	now func() time.Time
}

// Check implements [Checker].
func (c *certificateCheck) Check(ctx context.Context) verdict.Result {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	var chain []*x509.Certificate
	var err error
	place, verify, name := string(c.File), c.CAFile != "" || c.ServerName != "", c.ServerName
	if c.Address != "" {
		var network, address string
		if network, address, err = splitAddress(c.Address); err != nil {
			return verdict.Result{Status: verdict.Unknown, Message: err.Error()}
		}
		place, verify, name = c.Address, true, cmp.Or(name, hostOf(network, address))
		if chain, err = fetchChain(ctx, network, address, name); err != nil {
			return refused(ctx, "TLS with "+place, err)
		}
	} else if chain, err = readChain(c.File); err != nil {
		// Whoever needs the file cannot read it either.
		return verdict.Result{Status: verdict.Fail, Message: err.Error()}
	}
	if verify {
		if chain, err = c.verified(chain, name); err != nil {
			return c.result(place, endsFirst(chain), err)
		}
	}
	return c.result(place, endsFirst(chain), nil)
}

func (c *certificateCheck) result(place string, first *x509.Certificate, invalid error) verdict.Result {
	left := first.NotAfter.Sub(c.now())
	seconds := left.Seconds()
	r := verdict.Result{
		Message: place + ": " + ending(first, left), Value: &seconds, Unit: "seconds",
		Measures: []verdict.Measure{c.left().measure("left", left)},
	}
	var want string
	if r.Status, want = c.left().judge(left); want != "" {
		r.Message += ", want at least " + want
	}
	if left <= 0 || invalid != nil {
		r.Status = verdict.Fail
	}
	if invalid != nil {
		r.Message = place + ": " + snippet(invalid.Error(), 300) + "; " + ending(first, left)
	}
	return r
}

// ending says when a certificate ends.
func ending(c *x509.Certificate, left time.Duration) string {
	name := c.Subject.CommonName
	if name == "" && len(c.DNSNames) > 0 {
		name = c.DNSNames[0]
	}
	if name == "" {
		name = c.SerialNumber.Text(16)
	}
	at := c.NotAfter.UTC().Format(time.DateOnly)
	if left <= 0 {
		return fmt.Sprintf("certificate of %s ended %s ago, on %s", snippet(name, 80), showTime(-left), at)
	}
	return fmt.Sprintf("certificate of %s ends in %s, on %s", snippet(name, 80), showTime(left), at)
}

// endsFirst is the certificate that ends first.
func endsFirst(chain []*x509.Certificate) *x509.Certificate {
	return slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}

// fetchChain returns what a server shows. The handshake takes any certificate,
// because one that is not valid is to be described too; verified says what it is
// worth, and nothing is sent.
func fetchChain(ctx context.Context, network, address, name string) ([]*x509.Certificate, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, withoutOperation(err)
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return client.ConnectionState().PeerCertificates, nil
}

// verified returns the chain to an authority that lasts longest; with an error,
// the chain as it was.
func (c *certificateCheck) verified(chain []*x509.Certificate, name string) ([]*x509.Certificate, error) {
	o := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool(), CurrentTime: c.now()}
	for _, more := range chain[1:] {
		o.Intermediates.AddCert(more)
	}
	if c.CAFile != "" {
		var err error
		if o.Roots, err = readRoots(c.CAFile); err != nil {
			return chain, err
		}
	}
	chains, err := chain[0].Verify(o)
	if err != nil {
		return chain, err
	}
	return slices.MaxFunc(chains, func(a, b []*x509.Certificate) int {
		return endsFirst(a).NotAfter.Compare(endsFirst(b).NotAfter)
	}), nil
}

// readChain reads the certificates of a file. What else is in it, such as a key,
// is passed over.
func readChain(path config.Path) ([]*x509.Certificate, error) {
	text, err := readSmallFile(path)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "CERTIFICATE") {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%s: got no certificate, want one in PEM", path)
	}
	return chain, nil
}
