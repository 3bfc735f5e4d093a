package sinks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

const maxBatch = 1000 // changes in one request

// WebhookConfig describes a receiver. It gets one POST a change, a CloudEvent
// in structured JSON, or, with Batch, one POST for several. Only an answer of
// 2xx acknowledges.
type WebhookConfig struct {
	URL config.Secret `yaml:"url" required:"true"` // may hold a token, so it is never printed whole

	// SecretFile holds the key with which requests are signed as Standard
	// Webhooks (webhook-id, webhook-timestamp, webhook-signature). A key with
	// the prefix whsec_ is base64. While the receiver changes over to it,
	// OldSecretFile holds the one before: requests are signed with both.
	SecretFile    config.SecretFile `yaml:"secret_file"`
	OldSecretFile config.SecretFile `yaml:"old_secret_file"`

	Timeout     time.Duration `yaml:"timeout" default:"10s"` // of one try
	Concurrency int           `yaml:"concurrency" default:"32"`
	Batch       int           `yaml:"batch" default:"1"` // changes in one request, at most; 1: no batches

	TLS            WebhookTLS    `yaml:"tls"`
	Proxy          config.Secret `yaml:"proxy"`           // may hold a password; the environment's proxies are not used
	AllowAddresses []string      `yaml:"allow_addresses"` // CIDRs; empty: all but those that no receiver has
}

// Validate implements the configuration's check.
func (c *WebhookConfig) Validate() error {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	receiver, got := parseAddress(c.URL.Text(), "http", "https")
	if got != "" {
		wrong("url", got, "an address such as https://platform.example/changes")
	}
	if c.Timeout <= 0 {
		wrong("timeout", c.Timeout.String(), "more than 0s")
	}
	if c.Concurrency < 1 || c.Concurrency > 1024 {
		wrong("concurrency", strconv.Itoa(c.Concurrency), "1 to 1024")
	}
	if c.Batch < 1 || c.Batch > maxBatch {
		wrong("batch", strconv.Itoa(c.Batch), fmt.Sprintf("1 to %d", maxBatch))
	}
	if _, err := signingKey(c.SecretFile); err != nil {
		wrong("secret_file", err.Error(), "base64 of a key after whsec_")
	}
	if _, err := signingKey(c.OldSecretFile); err != nil {
		wrong("old_secret_file", err.Error(), "base64 of a key after whsec_")
	}
	if c.OldSecretFile.Bytes() != nil && c.SecretFile.Bytes() == nil {
		wrong("old_secret_file", "an old key without a new one", "the new one as secret_file")
	}
	if c.TLS != (WebhookTLS{}) && receiver != nil && receiver.Scheme == "http" {
		wrong("tls", "settings for an address that begins with http://", "https://, or no settings")
	}
	target, key := receiver, "url"
	if c.Proxy.Text() != "" {
		key = "proxy"
		if target, got = parseAddress(c.Proxy.Text(), "http", "socks5"); got != "" {
			wrong(key, got, "an address such as http://proxy.example:3128")
		}
	}
	g, bad := newGuard(c.AllowAddresses)
	errs = append(errs, bad...)
	if target != nil && len(bad) == 0 {
		// A name may stand for anything by the time it is asked for; for an
		// address that is written out there is no need to wait.
		if ip, err := netip.ParseAddr(target.Hostname()); err == nil && g.check(ip) != nil {
			wrong(key, g.check(ip).Error(), "an address that is allowed")
		}
	}
	return errors.Join(errs...)
}

// parseAddress says what is wrong with an address, without quoting it: it may
// hold a token.
func parseAddress(text string, schemes ...string) (*url.URL, string) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, "what is no web address"
	case !slices.Contains(schemes, u.Scheme):
		return nil, "an address that does not begin with " + strings.Join(schemes, ":// or ") + "://"
	case u.Hostname() == "":
		return nil, "an address without a host"
	case u.Port() != "":
		if port, err := strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
			return nil, "port " + u.Port()
		}
	}
	return u, ""
}

// Open implements [Builder].
func (c *WebhookConfig) Open(userAgent string) (statesync.Sink, error) {
	transport, err := c.transport()
	if err != nil {
		return nil, err
	}
	s := &webhookSink{
		hide: hideAddresses(c.URL.Text(), c.Proxy.Text()), timeout: c.Timeout, userAgent: userAgent,
		concurrency: c.Concurrency, batch: max(c.Batch, 1), transport: transport,
	}
	var got string
	if s.url, got = parseAddress(c.URL.Text(), "http", "https"); got != "" {
		return nil, errors.New("webhook: url: got " + got)
	}
	for _, f := range []config.SecretFile{c.SecretFile, c.OldSecretFile} { // the new key comes first
		key, err := signingKey(f)
		if err != nil {
			return nil, fmt.Errorf("webhook: signing key: %w", err)
		}
		if len(key) > 0 {
			s.keys = append(s.keys, key)
		}
	}
	return s, nil
}

func (c *WebhookConfig) transport() (*http.Transport, error) {
	g, bad := newGuard(c.AllowAddresses)
	if len(bad) > 0 {
		return nil, fmt.Errorf("webhook: %w", errors.Join(bad...))
	}
	tlsConfig, err := c.TLS.build()
	if err != nil {
		return nil, fmt.Errorf("webhook: tls: %w", err)
	}
	t := &http.Transport{
		DialContext:            g.dialer().DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    connectTime,
		MaxIdleConns:           c.Concurrency,
		MaxIdleConnsPerHost:    c.Concurrency,
		MaxConnsPerHost:        c.Concurrency,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // an answer is bounded by what is read of it
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: maxAnswer,
		// A connection that is dead without a word would otherwise be used
		// until the kernel gives it up, after a quarter of an hour.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second, PingTimeout: connectTime,
			MaxReceiveBufferPerStream: maxAnswer, MaxReceiveBufferPerConnection: 1 << 20,
		},
	}
	if c.Proxy.Text() != "" {
		u, got := parseAddress(c.Proxy.Text(), "http", "socks5")
		if got != "" {
			return nil, errors.New("webhook: proxy: got " + got)
		}
		t.Proxy = http.ProxyURL(u)
	}
	return t, nil
}

type webhookSink struct {
	url         *url.URL
	hide        *strings.Replacer
	keys        [][]byte // the new one first; none: requests are not signed
	timeout     time.Duration
	userAgent   string
	concurrency int
	batch       int
	transport   *http.Transport
	drains      sync.WaitGroup // the rests of answers
	most        atomic.Int64   // changes in one request, after a refused one was not taken apart to the end; 0: batch
}

// Concurrency is how many deliveries at once the receiver is given.
func (s *webhookSink) Concurrency() int { return s.concurrency }

// Batch implements [statesync.BatchingSink]. It is 1 where no batches are
// configured.
func (s *webhookSink) Batch() int { return s.batch }

// Deliver implements [statesync.Sink]. A retry of the same deliveries sends
// the same body under the same ID; timestamp and signature are of the try.
func (s *webhookSink) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	b := newWebhookBatch(s, ds)
	b.run(ctx)
	return b.result()
}

// Close implements [io.Closer].
func (s *webhookSink) Close() error {
	s.drains.Wait()
	s.transport.CloseIdleConnections()
	return nil
}
