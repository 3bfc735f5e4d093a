package sinks

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

const (
	maxAnswer     = 64 << 10         // of an answer's body, read so that the connection can be used again
	maxRetryAfter = 15 * time.Minute // a receiver cannot ask for more
	errorQuote    = 200              // bytes of an answer, or of a failure, that an error quotes
	tokenBytes    = 6                // a part of the address that is shorter is no token
)

// WebhookConfig describes a receiver: one POST a change, a CloudEvent in
// structured JSON. Only an answer of 2xx acknowledges it.
type WebhookConfig struct {
	URL config.Secret `yaml:"url" required:"true"` // may hold a token, so it is never printed whole

	// SecretFile holds the key with which requests are signed as Standard
	// Webhooks (webhook-id, webhook-timestamp, webhook-signature). A key with
	// the prefix whsec_ is base64.
	SecretFile  config.SecretFile `yaml:"secret_file"`
	Timeout     time.Duration     `yaml:"timeout" default:"10s"` // of one try
	Concurrency int               `yaml:"concurrency" default:"32"`
}

// Validate implements the configuration's check.
func (c *WebhookConfig) Validate() error {
	var errs []error
	if got := wrongAddress(c.URL.Text()); got != "" {
		errs = append(errs, &config.FieldError{Key: "url", Got: got, Want: "an address such as https://platform.example/changes"})
	}
	if c.Timeout <= 0 {
		errs = append(errs, &config.FieldError{Key: "timeout", Got: c.Timeout.String(), Want: "more than 0s"})
	}
	if c.Concurrency < 1 || c.Concurrency > 1024 {
		errs = append(errs, &config.FieldError{Key: "concurrency", Got: strconv.Itoa(c.Concurrency), Want: "1 to 1024"})
	}
	if _, err := signingKey(c.SecretFile); err != nil {
		errs = append(errs, &config.FieldError{Key: "secret_file", Got: err.Error(), Want: "base64 of a key after whsec_"})
	}
	return errors.Join(errs...)
}

// wrongAddress says what is wrong with a receiver's address, without quoting
// it: it may hold a token.
func wrongAddress(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "what is no web address"
	case u.Scheme != "http" && u.Scheme != "https":
		return "an address that does not begin with http:// or https://"
	case u.Hostname() == "":
		return "an address without a host"
	case u.Port() != "":
		if port, err := strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
			return "port " + u.Port()
		}
	}
	return ""
}

// Open implements [Builder].
func (c *WebhookConfig) Open(userAgent string) (statesync.Sink, error) {
	key, err := signingKey(c.SecretFile)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConns:           c.Concurrency,
		MaxIdleConnsPerHost:    c.Concurrency,
		MaxConnsPerHost:        c.Concurrency,
		IdleConnTimeout:        90 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &webhookSink{
		url: c.URL.Text(), hide: hideAddress(c.URL.Text()), key: key, timeout: c.Timeout, userAgent: userAgent, concurrency: c.Concurrency,
		client: &http.Client{
			Transport: transport,
			// A redirect could lead a signed request anywhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

type webhookSink struct {
	url         string
	hide        *strings.Replacer
	key         []byte // empty: requests are not signed
	timeout     time.Duration
	userAgent   string
	concurrency int
	client      *http.Client
}

// Concurrency is how many deliveries at once the receiver is given.
func (s *webhookSink) Concurrency() int { return s.concurrency }

// Deliver implements [statesync.Sink]. A retry sends the same body under the
// same ID; timestamp and signature are of the try.
func (s *webhookSink) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	for _, d := range ds {
		if err := s.post(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (s *webhookSink) post(ctx context.Context, d statesync.Delivery) error {
	body, err := statesync.MarshalEvent(d)
	if err != nil {
		return &statesync.SinkError{Cause: "encode", Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return &statesync.SinkError{Cause: "request", Err: errors.New("webhook: the address cannot be used")}
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", s.userAgent)
	req.Header.Set("Idempotency-Key", d.ID)
	now := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Webhook-Id", d.ID)
	req.Header.Set("Webhook-Timestamp", now)
	if len(s.key) > 0 {
		req.Header.Set("Webhook-Signature", sign(s.key, d.ID, now, body))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return s.failed(err)
	}
	defer resp.Body.Close()
	return s.answered(resp)
}

// failed explains a request that got no answer.
func (s *webhookSink) failed(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the address
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &statesync.SinkError{Cause: "timeout", Err: fmt.Errorf("webhook: no answer in %s", s.timeout)}
	}
	return &statesync.SinkError{Cause: "network", Err: errors.New("webhook: " + s.quote(err.Error()))}
}

func (s *webhookSink) answered(resp *http.Response) error {
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 == 2 {
		// The status acknowledges; what became of the body does not matter.
		return nil
	}
	text := fmt.Sprintf("webhook: status %d, want 2xx", resp.StatusCode)
	if quote := s.quote(string(body)); quote != "" {
		text += ": " + quote
	}
	if readErr != nil {
		text += " (" + s.quote(readErr.Error()) + ")"
	}
	return &statesync.SinkError{
		Cause: fmt.Sprintf("status_%dxx", resp.StatusCode/100),
		After: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		Err:   errors.New(text),
	}
}

// quote makes what the receiver or the network said fit to be shown: short,
// on one line, and without the address, which may hold a token and which many
// a receiver repeats on its page for 404.
func (s *webhookSink) quote(text string) string {
	text = s.hide.Replace(strings.ToValidUTF8(text, "?"))
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	return strings.ToValidUTF8(text[:min(len(text), errorQuote)], "")
}

// hideAddress replaces the address, and each part of it that could be a token.
func hideAddress(address string) *strings.Replacer {
	parts := []string{address}
	if u, err := url.Parse(address); err == nil {
		password, _ := u.User.Password()
		parts = append(parts, u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery, u.User.Username(), password)
		parts = append(parts, strings.Split(u.EscapedPath(), "/")...)
		parts = append(parts, strings.Split(u.Path, "/")...)
		for _, values := range u.Query() {
			parts = append(parts, values...)
		}
	}
	slices.SortFunc(parts, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // the whole before its parts
	var pairs []string
	for _, part := range parts {
		if len(part) >= tokenBytes {
			pairs = append(pairs, part, config.Redacted)
		}
	}
	return strings.NewReplacer(pairs...)
}

// Close implements [io.Closer].
func (s *webhookSink) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// sign returns the Standard Webhooks signature, version 1.
func sign(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	for _, part := range []string{id, ".", timestamp, "."} {
		mac.Write([]byte(part))
	}
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// signingKey returns the key's bytes; none when no file is configured.
func signingKey(f config.SecretFile) ([]byte, error) {
	text := string(f.Bytes())
	encoded, ok := strings.CutPrefix(text, "whsec_")
	if !ok {
		return []byte(text), nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("a key that is not base64")
	}
	if len(key) == 0 {
		return nil, errors.New("an empty key")
	}
	return key, nil
}

// retryAfter reads the header: a number of seconds or a date.
func retryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	wait := time.Duration(0)
	n, err := strconv.ParseInt(header, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then n is the nearest number
		wait = time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(header); err == nil {
		wait = t.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
