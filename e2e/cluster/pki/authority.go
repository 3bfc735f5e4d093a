// Package pki makes the certificates, keys and client configuration of one cluster.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// A development cluster outlives nothing; ten years spares it a renewal.
const validity = 10 * 365 * 24 * time.Hour

// Files are the paths of what Ensure made.
type Files struct {
	CACert string
	// ServerCert and ServerKey are for every server of the cluster: they all listen on 127.0.0.1.
	ServerCert, ServerKey string
	// AdminCert and AdminKey are a client of the group system:masters.
	AdminCert, AdminKey string
	// Tokens is the API server's list of static tokens: one, for the components. A token costs the API server less than a certificate, which it verifies at every request.
	Tokens string
	// ServiceAccountPublic and ServiceAccountKey check and sign service account tokens.
	ServiceAccountPublic, ServiceAccountKey string
}

// In names the files of folder.
func In(folder string) Files {
	at := func(name string) string { return filepath.Join(folder, name) }
	return Files{
		CACert:     at("ca.crt"),
		ServerCert: at("server.crt"), ServerKey: at("server.key"),
		AdminCert: at("admin.crt"), AdminKey: at("admin.key"),
		Tokens:               at("tokens.csv"),
		ServiceAccountPublic: at("sa.pub"), ServiceAccountKey: at("sa.key"),
	}
}

// Ensure makes the certificates and keys of a cluster in folder, unless they are there. The authority's own key is kept nowhere: nothing is signed later.
func Ensure(folder string, now time.Time) (Files, error) {
	files := In(folder)
	// The service account key is written last, so its presence tells that all are there.
	switch _, err := os.Stat(files.ServiceAccountKey); {
	case err == nil:
		return files, nil
	case !errors.Is(err, fs.ErrNotExist):
		return files, fmt.Errorf("make certificates: %w", err)
	}
	if err := create(files, now); err != nil {
		return files, fmt.Errorf("make certificates: %w", err)
	}
	return files, nil
}

func create(files Files, now time.Time) error {
	ca, err := newAuthority(now)
	if err != nil {
		return err
	}
	if err := writePEM(files.CACert, "CERTIFICATE", ca.cert.Raw); err != nil {
		return err
	}
	server := x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
	}
	if err := ca.issue(server, files.ServerCert, files.ServerKey, now); err != nil {
		return err
	}
	admin := x509.Certificate{
		Subject:     pkix.Name{CommonName: "devcluster-admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if err := ca.issue(admin, files.AdminCert, files.AdminKey, now); err != nil {
		return err
	}
	if err := writeToken(files.Tokens); err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writePEM(files.ServiceAccountPublic, "PUBLIC KEY", public); err != nil {
		return err
	}
	return writeKey(files.ServiceAccountKey, key)
}

// writeToken makes a token for a user of the group system:masters, in the API server's form: token, user, user ID, groups.
func writeToken(path string) error {
	line := rand.Text() + `,devcluster-component,devcluster-component,"system:masters"` + "\n"
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	return nil
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(now time.Time) (authority, error) {
	key, err := newKey()
	if err != nil {
		return authority{}, err
	}
	template := x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "devcluster-ca"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("sign authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, fmt.Errorf("parse authority: %w", err)
	}
	return authority{cert: cert, key: key}, nil
}

// issue signs template for a new key, and writes both.
func (a authority) issue(template x509.Certificate, certPath, keyPath string, now time.Time) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("choose serial: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(validity)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, &template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign %s: %w", filepath.Base(certPath), err)
	}
	if err := writePEM(certPath, "CERTIFICATE", der); err != nil {
		return err
	}
	return writeKey(keyPath, key)
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// writeKey uses the form EC PRIVATE KEY, which every component reads.
func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	return nil
}
