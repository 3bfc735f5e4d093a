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
	"syscall"
	"time"
	"unicode"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

const (
	connectTime   = 5 * time.Second
	maxAnswer     = 64 << 10               // of an answer's header, and of its body, read so that the connection can be used again
	drainTime     = 250 * time.Millisecond // for the rest of an answer; then the connection is closed
	drainWait     = 10 * time.Millisecond  // in which the rest of an honest answer is there
	quoteTime     = time.Second            // for the text of a refusal
	maxRetryAfter = 15 * time.Minute       // a receiver cannot ask for more
	errorQuote    = 200                    // bytes of an answer, or of a failure, that an error quotes
	tokenBytes    = 6                      // a part of the address that is shorter is no token
)

// Causes of a [statesync.SinkError].
const (
	causeTimeout  = "timeout"
	causeNetwork  = "network"
	causeAddress  = "address" // the receiver's name stands for an address that is not allowed
	causeTLS      = "tls"
	causeRedirect = "redirect"
	causeEncode   = "encode"
	causeBehind   = "behind" // not sent: a change of the same workload before it was refused
)

// A webhookRequest is what a retry sends again.
type webhookRequest struct {
	id, kind string
	body     []byte
}

// post tries once. smaller reports that a part of the request might pass where
// the whole does not.
func (s *webhookSink) post(ctx context.Context, r webhookRequest) (smaller bool, err *statesync.SinkError) {
	if ctx.Err() != nil {
		return false, s.failed(ctx, ctx.Err())
	}
	// The rest of an answer may outlive the caller's context.
	try, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer context.AfterFunc(ctx, cancel)()
	resp, failure := s.transport.RoundTrip(s.request(try, r))
	if failure != nil {
		cancel()
		return hungUp(failure), s.failed(ctx, failure)
	}
	if resp.StatusCode/100 == 2 {
		// The status acknowledges; what becomes of the body does not matter.
		s.drain(resp.Body, cancel)
		return false, nil
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body.Close() // it is the bare connection, which cancel does not end
		resp.Body = http.NoBody
	}
	defer cancel()
	defer resp.Body.Close()
	defer time.AfterFunc(quoteTime, cancel).Stop()
	return refusesContent(resp.StatusCode), s.refused(resp)
}

func (s *webhookSink) request(ctx context.Context, r webhookRequest) *http.Request {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	header := http.Header{
		"Content-Type":      {r.kind + "; charset=utf-8"},
		"User-Agent":        {s.userAgent},
		"Webhook-Id":        {r.id},
		"Webhook-Timestamp": {now},
		// Lower case is the same to the receiver, but not to net/http: it
		// sends a request with this header again by itself, at once and as
		// often as it has connections, when the receiver hangs up.
		"idempotency-key": {r.id},
	}
	if len(s.keys) > 0 {
		signatures := make([]string, len(s.keys))
		for i, key := range s.keys {
			signatures[i] = sign(key, r.id, now, r.body)
		}
		header.Set("Webhook-Signature", strings.Join(signatures, " "))
	}
	req := &http.Request{
		Method: http.MethodPost, URL: s.url, Host: s.url.Host, Header: header,
		Body: io.NopCloser(bytes.NewReader(r.body)), ContentLength: int64(len(r.body)),
		// For a request that did not get on its way.
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.body)), nil },
	}
	if u := s.url.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	return req.WithContext(ctx)
}

// drain reads the rest of an answer, so that its connection can be used again,
// and ends the request. It leaves behind one that does not come at once.
func (s *webhookSink) drain(body io.ReadCloser, cancel func()) {
	if body == http.NoBody {
		body.Close()
		cancel()
		return
	}
	done := make(chan struct{})
	s.drains.Go(func() {
		defer close(done)
		defer cancel()
		defer body.Close()
		defer time.AfterFunc(drainTime, cancel).Stop()
		_, _ = io.CopyN(io.Discard, body, maxAnswer)
	})
	timer := time.NewTimer(drainWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// failed explains a request that got no answer. ctx is the caller's.
func (s *webhookSink) failed(ctx context.Context, err error) *statesync.SinkError {
	cause, text := causeNetwork, s.quote(err.Error())
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case isAddressError(err):
		cause = causeAddress
	case isTLSError(err):
		cause = causeTLS
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		cause, text = causeTimeout, "no answer in the time for the whole delivery"
	case errors.Is(err, context.DeadlineExceeded) && !isDial(err):
		cause, text = causeTimeout, fmt.Sprintf("no answer in %s", s.timeout)
	case isNet && timeout.Timeout():
		cause = causeTimeout
	}
	return &statesync.SinkError{Cause: cause, Err: errors.New("webhook: " + text)}
}

// hungUp reports whether the receiver closed the connection before it had read
// all: so does one that finds a request too large.
func hungUp(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// isTLSError reports whether the two sides do not trust or understand each
// other. Most errors of crypto/tls have no type, and those that have one begin
// with the same word.
func isTLSError(err error) bool {
	return strings.Contains(err.Error(), "tls: ")
}

// refused explains an answer that does not acknowledge.
func (s *webhookSink) refused(resp *http.Response) *statesync.SinkError {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	text := fmt.Sprintf("webhook: status %d, want 2xx", resp.StatusCode)
	if resp.StatusCode/100 == 3 {
		text += ": redirects are not followed" // one could lead a signed request anywhere
	} else if quote := s.quote(string(body)); quote != "" {
		text += ": " + quote
	}
	return &statesync.SinkError{
		Cause:    statusCause(resp.StatusCode),
		After:    retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		Rejected: refusesContent(resp.StatusCode),
		Gone:     resp.StatusCode == http.StatusGone,
		Err:      errors.New(text),
	}
}

func statusCause(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return "status_429"
	case status/100 == 3:
		return causeRedirect
	case status/100 == 4 || status/100 == 5:
		return fmt.Sprintf("status_%dxx", status/100)
	}
	return "status_other"
}

// refusesContent reports whether a status is about the change and not about
// the receiver. The list is short on purpose: a change that is kept back is
// late, but one that is given up because somebody mistyped a path (404, 405),
// a key ran out (401, 403), a receiver does not know the format (415) or has
// the same request in hand already (409) is lost to it.
func refusesContent(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge || status == http.StatusUnprocessableEntity
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

// hideAddresses replaces addresses, each part of them that could be a token,
// and passwords however short.
func hideAddresses(addresses ...string) *strings.Replacer {
	parts, secrets := slices.Clone(addresses), []string(nil)
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil {
			continue
		}
		password, _ := u.User.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password)) // as the header has it
		parts = append(parts, u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery, u.User.Username(), basic)
		if password != "" {
			_, escaped, _ := strings.Cut(u.User.String(), ":")
			secrets = append(secrets, password, escaped)
		}
		for pair := range strings.SplitSeq(u.RawQuery, "&") { // a page may escape the rest
			_, value, ok := strings.Cut(pair, "=")
			if !ok {
				value = pair
			}
			parts = append(parts, value)
		}
		parts = append(parts, strings.Split(u.EscapedPath(), "/")...)
		parts = append(parts, strings.Split(u.Path, "/")...)
		for _, values := range u.Query() {
			parts = append(parts, values...)
		}
	}
	parts = append(slices.DeleteFunc(parts, func(part string) bool { return len(part) < tokenBytes }), secrets...)
	slices.SortFunc(parts, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // the whole before its parts
	var pairs []string
	for _, part := range parts {
		pairs = append(pairs, part, config.Redacted)
	}
	return strings.NewReplacer(pairs...)
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
