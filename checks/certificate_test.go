package checks

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// A minted is a certificate with its key.
type minted struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// mint makes a certificate that ends after so long; a nil issuer signs itself.
func mint(t *testing.T, name string, left time.Duration, issuer *minted) *minted {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(left),
		BasicConstraintsValid: true, IsCA: issuer == nil || name == "middle", KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	parent, signer := c, key
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &minted{c, key}
}

// store writes certificates to a file.
func store(t *testing.T, before string, all ...*minted) string {
	t.Helper()
	text := []byte(before)
	for _, m := range all {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Raw})...)
	}
	path := filepath.Join(t.TempDir(), "c.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// show serves TLS with certificates, the first of which is its own.
func show(t *testing.T, all ...*minted) string {
	t.Helper()
	c := tls.Certificate{PrivateKey: all[0].key}
	for _, m := range all {
		c.Certificate = append(c.Certificate, m.Raw)
	}
	return speak(t, "tcp", "127.0.0.1:0", func(conn net.Conn) {
		_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c}}).HandshakeContext(context.Background()) // the client says what is wrong
	})
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	const day = 24*time.Hour + time.Minute
	const pass, warn, fail = verdict.Pass, verdict.Warn, verdict.Fail
	root := mint(t, "root", 1000*day, nil)
	other := mint(t, "other", 1000*day, nil)
	middle := mint(t, "middle", 300*day, root)
	tired := mint(t, "middle", 10*day, root)
	ca := store(t, "", root)
	tests := []struct {
		name    string
		chain   []*minted
		more    string
		status  verdict.Status
		message string
	}{
		{"one with much time left passes", []*minted{mint(t, "a.example", 50*day, root)}, "", pass, "certificate of a.example ends in 50d0h, on "},
		{"one with less warns", []*minted{mint(t, "a.example", 10*day, root)}, "", warn, "certificate of a.example ends in 10d0h, on ..., want at least 14d0h"},
		{"one with little fails", []*minted{mint(t, "a.example", 2*day, root)}, "", fail, "ends in 2d0h, on ..., want at least 3d0h"},
		{"limits are the user's", []*minted{mint(t, "a.example", 2*day, root)}, ", warn: 1h, crit: 1m", pass, "ends in 2d0h"},
		{"one that ended fails", []*minted{mint(t, "a.example", -2*day, root)}, "", fail, "x509: certificate has expired...; certificate of a.example ended 2d0h ago"},
		{"the first to end of a chain counts", []*minted{mint(t, "a.example", 100*day, tired), tired}, "", warn, "certificate of middle ends in 10d0h"},
		{"a certificate that is not needed does not", []*minted{mint(t, "a.example", 100*day, middle), middle, mint(t, "b.example", day, root)}, "", pass, "certificate of a.example ends in 100d"},
		{"a missing link fails", []*minted{mint(t, "a.example", 100*day, middle)}, "", fail, "unknown authority"},
		{"another authority fails", []*minted{mint(t, "a.example", 100*day, other), other}, "", fail, "unknown authority"},
		{"another name fails", []*minted{mint(t, "b.example", 100*day, root)}, "", fail, "valid for b.example, not a.example; certificate of b.example ends in 100d"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := fmt.Sprintf(`{address: "%s", server_name: a.example, ca_file: %s%s}`, show(t, tt.chain...), ca, tt.more)
			wantResult(t, ask(t, checker[CertificateConfig](t, text, nil)), tt.status, tt.message)
		})
		if tt.name == "a certificate that is not needed does not" {
			continue
		}
		t.Run("in a file "+tt.name, func(t *testing.T) {
			t.Parallel()
			text := fmt.Sprintf(`{file: %s, server_name: a.example, ca_file: %s%s}`, store(t, "-----BEGIN X-----\nAAAA\n-----END X-----\n", tt.chain...), ca, tt.more)
			wantResult(t, ask(t, checker[CertificateConfig](t, text, nil)), tt.status, tt.message)
		})
	}
	bundle := store(t, "", root, other, mint(t, "c.example", day, nil))
	r := ask(t, checker[CertificateConfig](t, "{file: "+bundle+"}", nil))
	wantResult(t, r, fail, bundle+": certificate of c.example ends in 1d0h")
	if m := r.Measures[0]; m.Label != "left" || m.Value < 86_000 || m.Value > 86_460 || m.Warn != "1209600:" || r.Value == nil {
		t.Errorf("measure %+v, value %v, want a day with its limits", m, r.Value)
	}
}

func TestCertificateThatCannotBeRead(t *testing.T) {
	t.Parallel()
	plain := speak(t, "tcp", "127.0.0.1:0", func(c net.Conn) { fmt.Fprint(c, "220 smtp\r\n") })
	wantResult(t, ask(t, checker[CertificateConfig](t, `{address: "`+plain+`"}`, nil)), verdict.Fail, "TLS with "+plain)
	wantResult(t, ask(t, checker[CertificateConfig](t, `{address: "127.0.0.1:1"}`, nil)), verdict.Fail, "refused")
	wantResult(t, ask(t, checker[CertificateConfig](t, `{file: /nowhere}`, nil)), verdict.Fail, "/nowhere: no such file")
	wantResult(t, ask(t, checker[CertificateConfig](t, "{file: "+store(t, "text")+"}", nil)), verdict.Fail, "got no certificate, want one in PEM")
	wantResult(t, ask(t, checker[CertificateConfig](t, "{file: "+store(t, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")+"}", nil)), verdict.Fail, "certificate 1: x509")
}

func TestCertificateConfigIsStrict(t *testing.T) {
	t.Parallel()
	wantMistakes[CertificateConfig](t, map[string]string{
		`{}`:                           "check: got none of them, want exactly one of address and file",
		`{address: "a:1", file: b}`:    "check: got both",
		`{address: a}`:                 "check.address: got a",
		`{file: a, warn: 1h}`:          "check.warn: got warn 1h0m0s, which is less than crit 72h0m0s",
		`{file: a, ca_file: /nowhere}`: "check.ca_file: got ",
	})
}
