package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/outrider-agent/outrider/e2e/cluster/pki"
)

func TestEnsureMakesCertificatesTheAuthoritySigned(t *testing.T) {
	files, err := pki.Ensure(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(files.CACert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("authority: got no certificate")
	}
	server := load(t, files.ServerCert, files.ServerKey)
	for _, host := range []string{"127.0.0.1", "localhost", "kubernetes.default.svc"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("server certificate for %s: %v", host, err)
		}
	}
	admin := load(t, files.AdminCert, files.AdminKey)
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := admin.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: usage}); err != nil {
		t.Errorf("administrator's certificate: %v", err)
	}
	if got := admin.Subject.Organization; len(got) != 1 || got[0] != "system:masters" {
		t.Errorf("administrator's groups: got %v, want system:masters", got)
	}
}

func TestEnsureKeepsWhatIsThere(t *testing.T) {
	folder := t.TempDir()
	files, err := pki.Ensure(folder, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(files.ServerCert)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Ensure(folder, time.Now()); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(files.ServerCert); err != nil || string(after) != string(before) {
		t.Errorf("server certificate after the second call: got another one (error %v), want the same", err)
	}
}

func TestKubeconfigsAreCompleteInThemselves(t *testing.T) {
	folder := t.TempDir()
	files, err := pki.Ensure(folder, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	admin, component := filepath.Join(t.TempDir(), "admin"), filepath.Join(t.TempDir(), "component")
	if err := pki.WriteAdminKubeconfig(admin, files, 6443); err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteComponentKubeconfig(component, files, 6443); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{admin, component} {
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		if config.Host != "https://127.0.0.1:6443" || len(config.CAData) == 0 {
			t.Errorf("%s: got host %s and %d bytes of authority", filepath.Base(path), config.Host, len(config.CAData))
		}
		if config.BearerToken == "" && (len(config.CertData) == 0 || len(config.KeyData) == 0) {
			t.Errorf("%s: got no credentials", filepath.Base(path))
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, want 0600", filepath.Base(path), info.Mode())
		}
	}
}

func load(t *testing.T, certPath, keyPath string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
