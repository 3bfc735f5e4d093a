package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// A digest is an answer of /healthz as application/health+json, as far as the
// plugin reads it.
type digest struct {
	Status      *verdict.Status          `json:"status"`
	Service     string                   `json:"serviceId"`
	Fingerprint string                   `json:"fingerprint"`
	Checks      map[string][]digestCheck `json:"checks"`

	rows []digestCheck // the checks, worst first, then newest first, then by name
}

type digestCheck struct {
	Status   *verdict.Status  `json:"status"` // never nil once it has been read
	Category verdict.Category `json:"category"`
	Output   string           `json:"output"`
	Value    json.RawMessage  `json:"observedValue"` // a number, or what performance data has no form for
	Unit     string           `json:"observedUnit"`
	Told     string           `json:"since"`
	Runbook  string           `json:"runbook"`

	Measures     []verdict.Measure `json:"measures"`
	Stale        json.RawMessage   `json:"stale"`       // true: what it measured is of long ago
	Maintenance  json.RawMessage   `json:"maintenance"` // there, while it is
	Acknowledged *struct {
		Who string `json:"who"`
		Why string `json:"why"`
	} `json:"acknowledged"`

	name  string
	since time.Time // zero: not told, or in a way of its own
}

// measures are what the check measured, as far as that is numbers. Labels are
// those that check_multi has, as in the digest's own form for Nagios.
func (c *digestCheck) measures() []verdict.Measure {
	var out []verdict.Measure
	if v, err := strconv.ParseFloat(string(c.Value), 64); err == nil {
		out = append(out, verdict.Measure{Label: c.name, Value: v, Unit: perfUnit(c.Unit)})
	}
	for _, m := range c.Measures {
		m.Label = c.name + "::" + m.Label
		out = append(out, m)
	}
	return out
}

// parseDigest reads the answer of an application. What is no digest is an error,
// never a pass.
func parseDigest(contentType string, body []byte) (*digest, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/health+json" && media != "application/json" {
		return nil, fmt.Errorf("got %s%s, want application/health+json", cmp.Or(media, "no content type"), beginning(body))
	}
	d := &digest{}
	switch err := json.Unmarshal(body, d); {
	case err != nil:
		return nil, fmt.Errorf("got no digest%s: %w", beginning(body), err)
	case d.Status == nil:
		return nil, fmt.Errorf("got no digest%s: it has no status", beginning(body))
	case d.Checks == nil:
		return nil, fmt.Errorf("got no digest%s: it has no checks", beginning(body))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Checks)) {
		for i, c := range d.Checks[name] {
			c.name = name
			c.since, _ = time.Parse(time.RFC3339, c.Told) // a verdict does not depend on it
			if i > 0 {
				c.name = fmt.Sprintf("%s/%d", name, i+1)
			}
			if c.Status == nil {
				return nil, fmt.Errorf("got no digest%s: check %s has no status", beginning(body), name)
			}
			d.rows = append(d.rows, c)
		}
	}
	slices.SortStableFunc(d.rows, func(a, b digestCheck) int {
		return cmp.Or(verdict.Compare(*b.Status, *a.Status), b.since.Compare(a.since))
	})
	return d, nil
}

// beginning shows what an answer begins with.
func beginning(body []byte) string {
	const most = 100
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return " and nothing in it"
	}
	text := verdict.Clean(string(body[:min(len(body), 2*most)]))
	if cut := []rune(text); len(cut) > most {
		text = string(cut[:most]) + "..."
	}
	return " that begins with " + text
}

// A failedAnswer is why there is no digest, and what follows from it.
type failedAnswer struct {
	status verdict.Status
	text   string
}

func (e *failedAnswer) Error() string { return e.text }

// unclear is an error of which nobody can tell what it says about the application.
func unclear(format string, args ...any) error {
	return &failedAnswer{verdict.Unknown, fmt.Sprintf(format, args...)}
}

// ask gets the digest. Every error is a *failedAnswer.
func ask(client *http.Client, r *http.Request, within time.Duration) (*digest, error) {
	resp, err := client.Do(r)
	if err != nil {
		return nil, noAnswer(r.Context(), err, within)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	switch {
	case err != nil:
		return nil, noAnswer(r.Context(), err, within)
	case len(body) > mostAnswer:
		return nil, unclear("got more than %d bytes, want a digest", mostAnswer)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return nil, unclear("status %d%s, want --auth-file with who may read", code, beginning(body))
	case code >= 300 && code < 400:
		return nil, unclear("status %d: it points to %.200q, which is not followed", code, resp.Header.Get("Location"))
	case code != http.StatusOK && code != http.StatusServiceUnavailable && code != http.StatusTooManyRequests:
		return nil, unclear("status %d%s, want 200, 429 or 503", code, beginning(body))
	}
	d, err := parseDigest(resp.Header.Get("Content-Type"), body)
	if err != nil {
		hint := ""
		if word := bytes.TrimSpace(body); slices.Contains([]string{"ok", "warn", "unknown", "fail"}, string(word)) {
			hint = "; one word is for those who do not log in: see --auth-file"
		}
		return nil, unclear("status %d: %v%s", resp.StatusCode, err, hint)
	}
	return d, nil
}

// noAnswer tells an application that is down, which is a failure, from what
// prevents the question.
func noAnswer(ctx context.Context, err error, within time.Duration) error {
	if ctx.Err() != nil {
		return interrupted(ctx, within)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return unclear("%s: %s", dns.Name, dns.Err)
	}
	if wrong, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return unclear("certificate: %v", wrong.Err)
	}
	for _, down := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT,
		syscall.ENOENT, // of a unix socket
	} {
		if errors.Is(err, down) {
			return &failedAnswer{verdict.Fail, down.Error()}
		}
	}
	switch {
	case strings.Contains(err.Error(), "readLoopPeekFailLocked"): // of net/http, which has no name for it
		return unclear("it spoke before it was asked, want a web server")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "server closed idle connection"):
		return &failedAnswer{verdict.Fail, "connection closed before the end of an answer"}
	case isTimeout(err):
		return &failedAnswer{verdict.Fail, fmt.Sprintf("no answer in %v", within)}
	}
	if get, ok := errors.AsType[*url.Error](err); ok {
		err = get.Err // without method and address, which are named already
	}
	return unclear("%v", err)
}

// interrupted is what there is to say when ctx has ended.
func interrupted(ctx context.Context, within time.Duration) *failedAnswer {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &failedAnswer{verdict.Unknown, "interrupted"}
	}
	return &failedAnswer{verdict.Fail, fmt.Sprintf("no answer in %v", within)}
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}
