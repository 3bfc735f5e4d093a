package listen

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"
)

// AuthOptions name the files that say who may read. All may be empty.
type AuthOptions struct {
	WebConfig    string // a Prometheus web configuration
	BearerTokens string // the SHA-256 of one token a line, in hex; # begins a comment

	// AllowUnauthenticated opens healthz (names and states only) or metrics
	// to everyone.
	AllowUnauthenticated []string

	Now func() time.Time // nil means time.Now
}

// Auth knows the identities that may read and act. Certificates are read again
// for each connection; users and tokens are as they were when it was loaded, or
// when others were taken last.
type Auth struct {
	allow   map[string]bool
	headers map[string]string
	tls     *tls.Config
	http2   bool
	certs   bool       // verified client certificates are identities
	limit   *bucket    // of requests in the read ring, from rate_limit; nil means none
	web     web.Config // without the users
	who     atomic.Pointer[identities]
}

// identities are those that may read and act, beside client certificates.
type identities struct {
	users  *users // nil: there are none
	tokens [][sha256.Size]byte
}

// LoadAuth reads the files.
func LoadAuth(o AuthOptions) (*Auth, error) {
	a, who := &Auth{allow: map[string]bool{}, web: defaultWeb()}, &identities{}
	a.who.Store(who)
	now := o.Now
	if now == nil {
		now = time.Now
	}
	for _, name := range o.AllowUnauthenticated {
		if name != "healthz" && name != "metrics" {
			return nil, fmt.Errorf("allow_unauthenticated: got %q, want healthz or metrics", name)
		}
		a.allow[name] = true
	}
	if o.WebConfig != "" {
		if err := a.loadWeb(o.WebConfig, who, now); err != nil {
			return nil, fmt.Errorf("web configuration %s: %w", o.WebConfig, err)
		}
	}
	if o.BearerTokens != "" {
		data, err := os.ReadFile(o.BearerTokens)
		if err != nil {
			return nil, fmt.Errorf("bearer tokens: %w", err)
		}
		if who.tokens, err = parseTokens(data); err != nil {
			return nil, fmt.Errorf("bearer tokens %s: %w", o.BearerTokens, err)
		}
	}
	return a, nil
}

func defaultWeb() web.Config {
	c := web.Config{TLSConfig: web.TLSConfig{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13}}
	c.HTTPConfig.HTTP2 = true
	return c
}

// loadWeb reads a Prometheus web configuration. The toolkit validates it; its
// own server is not used, because it would close the probe ring too.
func (a *Auth) loadWeb(path string, who *identities, now func() time.Time) error {
	if err := web.Validate(path); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	c := defaultWeb()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		return err
	}
	hashes := map[string]string{}
	for user, hash := range c.Users {
		hashes[user] = string(hash)
	}
	if len(hashes) > 0 {
		if who.users, err = newUsers(hashes, now); err != nil {
			return err
		}
	}
	c.Users = nil
	if r := c.RateLimiterConfig; r.Interval > 0 {
		a.limit = newBucket(r.Interval, max(r.Burst, 1), now)
	}
	a.headers, a.http2 = c.HTTPConfig.Header, c.HTTPConfig.HTTP2
	if c.TLSConfig.IsEnabled() {
		c.TLSConfig.SetDirectory(filepath.Dir(path))
		err = a.useTLS(&c.TLSConfig)
	}
	a.web = c
	return err
}

// Take has the users and tokens of next count from now on, and reports whether
// they are others. restart: next differs in what else its web configuration
// says, which an open listener does not take.
func (a *Auth) Take(next *Auth) (others, restart bool) {
	was, now := a.who.Load(), next.who.Load()
	if others = !was.same(now); others {
		a.who.Store(now)
	}
	return others, !reflect.DeepEqual(a.web, next.web) || !a.authorities().Equal(next.authorities())
}

// authorities are those that sign client certificates.
func (a *Auth) authorities() *x509.CertPool {
	if a.tls == nil {
		return nil
	}
	return a.tls.ClientCAs
}

func (i *identities) same(o *identities) bool {
	return slices.Equal(i.tokens, o.tokens) && maps.Equal(i.users.known(), o.users.known())
}

func (a *Auth) useTLS(c *web.TLSConfig) error {
	if c.MinVersion < tls.VersionTLS12 {
		return errors.New("min_version: got a version before 1.2, want TLS12 or TLS13")
	}
	t, err := web.ConfigToTLSConfig(c)
	if err != nil {
		return err
	}
	if verify := t.VerifyPeerCertificate; verify != nil {
		// The toolkit's own function expects a certificate, which
		// VerifyClientCertIfGiven does not.
		t.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
			if len(raw) == 0 {
				return nil
			}
			return verify(raw, chains)
		}
	}
	t.NextProtos = []string{"http/1.1"}
	if a.http2 {
		t.NextProtos = []string{"h2", "http/1.1"}
	}
	a.tls = t
	a.certs = t.ClientCAs != nil && t.ClientAuth >= tls.VerifyClientCertIfGiven
	return nil
}

// Knows reports whether anybody can identify themselves at all. The nil Auth
// knows nobody.
func (a *Auth) Knows() bool {
	if a == nil {
		return false
	}
	who := a.who.Load()
	return who.users != nil || len(who.tokens) > 0 || a.certs
}

// An access is what the credentials of a request are worth.
type access int

const (
	anonymous access = iota // it brought none
	refused                 // it brought wrong ones
	busy                    // too many were tried of late: these were not looked at
	granted
)

// identify looks at the credentials of a request.
func (a *Auth) identify(r *http.Request) access {
	if a == nil {
		return anonymous
	}
	if a.certs && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return granted
	}
	who := a.who.Load()
	if user, password, ok := r.BasicAuth(); ok {
		if who.users == nil {
			return refused
		}
		return who.users.check(user, password)
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return anonymous
	}
	scheme, token, _ := strings.Cut(header, " ")
	if strings.EqualFold(scheme, "Bearer") && who.knowsToken(strings.TrimSpace(token)) {
		return granted
	}
	return refused
}

// knowsToken compares with every token, so that the time it takes tells
// nothing about which one was near.
func (i *identities) knowsToken(token string) bool {
	sum := sha256.Sum256([]byte(token))
	found := 0
	for k := range i.tokens {
		found |= subtle.ConstantTimeCompare(sum[:], i.tokens[k][:])
	}
	return found == 1
}

// parseTokens reads one SHA-256 a line.
func parseTokens(data []byte) ([][sha256.Size]byte, error) {
	var out [][sha256.Size]byte
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		sum, err := hex.DecodeString(text)
		if err != nil || len(sum) != sha256.Size {
			// The line may be a token by mistake: do not show it.
			return nil, fmt.Errorf("line %d: got %d characters, want the 64 hex digits of a SHA-256", n, len(text))
		}
		out = append(out, [sha256.Size]byte(sum))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("got no token, want one SHA-256 a line")
	}
	return out, nil
}
