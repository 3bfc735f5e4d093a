package exporters

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	mostAnswer = 4 << 20 // bytes that are read of an answer
	mostTries  = 3       // of a batch of which the server wants to take some points later
)

// putBody is a request's body, made anew in the same space.
type putBody struct {
	plain  []byte
	zipped bytes.Buffer
	gzip   *gzip.Writer
}

func (b *putBody) encode(points []Point, milliseconds bool) []byte {
	b.plain = append(b.plain[:0], '[')
	for i, p := range points {
		series, ok := p.Ref.(*openTSDBSeries)
		if !ok {
			panic(fmt.Sprintf("BUG: point of a %T for OpenTSDB", p.Ref))
		}
		if i > 0 {
			b.plain = append(b.plain, ',')
		}
		at := p.At
		if !milliseconds {
			at /= 1000
		}
		b.plain = strconv.AppendInt(append(b.plain, series.head...), at, 10)
		b.plain = appendNumber(append(b.plain, `,"value":`...), p.Value)
		b.plain = append(b.plain, series.tail...)
	}
	b.plain = append(b.plain, ']')
	return b.plain
}

// appendNumber writes whole numbers as such: OpenTSDB stores them in as few bytes
// as they need.
func appendNumber(b []byte, v float64) []byte {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

func (b *putBody) compress() ([]byte, error) {
	b.zipped.Reset()
	if b.gzip == nil {
		b.gzip = gzip.NewWriter(&b.zipped)
	}
	b.gzip.Reset(&b.zipped)
	if _, err := b.gzip.Write(b.plain); err != nil {
		return nil, err
	}
	if err := b.gzip.Close(); err != nil {
		return nil, err
	}
	return b.zipped.Bytes(), nil
}

// put sends one request. An error means that nothing is known of the points, or
// that all are to be tried again.
func (e *openTSDB) put(ctx context.Context, points []Point) (putAnswer, error) {
	body := e.body.encode(points, e.config.Timestamps == "ms")
	if e.config.Gzip {
		var err error
		if body, err = e.body.compress(); err != nil {
			return putAnswer{}, fmt.Errorf("compress request: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, e.config.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return putAnswer{}, errors.New("make request: wrong address") // which may hold a password
	}
	maps.Copy(req.Header, e.header)
	resp, err := e.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok { // which holds the address
			err = u.Err
		}
		if err = fmt.Errorf("put: %w", err); isTLS(err) {
			return putAnswer{}, &Failure{Cause: "tls", Err: err}
		}
		return putAnswer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return putAnswer{}, fmt.Errorf("read answer to put: %w", err)
	}
	a := readAnswer(resp.StatusCode, text, len(points))
	if a.retry != "" {
		return a, &Failure{Cause: a.retry, After: retryAfter(resp.Header.Get("Retry-After"), e.env.Now()), Err: a.why}
	}
	return a, nil
}

// retryAfter reads the header: seconds, or a date. What is neither says nothing.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// A putAnswer is what a server says of a request.
type putAnswer struct {
	rejected int    // points, for good
	why      error  // of the first of them, or of the retry
	retry    string // the cause to try everything again; empty: none
	later    string // as retry, of some points; rejected is what they are if nobody does
	tooLarge bool   // fewer points at once may do
}

// putSummary is the body of an answer with details. That of a whole request that
// is refused has only Error.
type putSummary struct {
	Success  *int `json:"success"`
	Failed   *int `json:"failed"`
	Timeouts int  `json:"timeouts"`
	Errors   []struct {
		Datapoint json.RawMessage `json:"datapoint"`
		Error     string          `json:"error"`
	} `json:"errors"`
	Error struct {
		Message string `json:"message"`
		Details string `json:"details"`
	} `json:"error"`
}

// passing are the errors of a point with which OpenTSDB says that it was not its
// fault (PutDataPointRpc of version 2.4.1). Read-only.
var passing = []string{"Please throttle", "Timeout exception", "Write timedout", "Storage exception"}

// readAnswer understands OpenTSDB 2.4, and servers that answer 204 to everything.
// With details OpenTSDB answers 400 when a point was wrong, but also 200 when a
// point could not be stored: so the body counts, and the status where it has none.
func readAnswer(status int, body []byte, points int) putAnswer {
	body = bytes.TrimSpace(body)
	var s putSummary
	isJSON := json.Unmarshal(body, &s) == nil
	failed := errors.New("status " + strconv.Itoa(status) + said(body, s) + ", want 200 or 204")
	switch {
	case (status/100 == 2 || status == http.StatusBadRequest) && isJSON && (s.Failed != nil || s.Success != nil):
		return s.answer(points)
	case status/100 == 2 && len(body) == 0:
		return putAnswer{}
	case status/100 == 2:
		return putAnswer{retry: "answer", why: errors.New("answer" + said(body, s) + ", want none or OpenTSDB's details")}
	case status == http.StatusRequestEntityTooLarge,
		status == http.StatusBadRequest && strings.Contains(s.Error.Message, "Chunked request not supported"):
		return putAnswer{rejected: points, tooLarge: true, why: failed}
	case status/100 == 5:
		return putAnswer{retry: "5xx", why: failed}
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout,
		status == http.StatusUnauthorized, status == http.StatusForbidden: // a password is mended, points are not
		return putAnswer{retry: strconv.Itoa(status), why: failed}
	}
	return putAnswer{rejected: points, why: failed}
}

func (s *putSummary) answer(points int) putAnswer {
	a := putAnswer{rejected: s.Timeouts}
	if s.Failed != nil {
		a.rejected += *s.Failed
	}
	// Storage errors that come after the answer's counts were made are only here.
	a.rejected = min(max(a.rejected, len(s.Errors), 0), points)
	if a.rejected == 0 {
		return a
	}
	a.why = errors.New("no reason given")
	if len(s.Errors) > 0 {
		first := s.Errors[0]
		a.why = fmt.Errorf("%s: %s", cmp.Or(shorten(first.Error), "no reason given"), shorten(string(first.Datapoint)))
	}
	for _, e := range s.Errors {
		if slices.ContainsFunc(passing, func(text string) bool { return strings.HasPrefix(e.Error, text) }) {
			a.later = "storage"
		}
	}
	if s.Timeouts > 0 {
		a.later = "storage"
	}
	return a
}

// said quotes the beginning of an answer.
func said(body []byte, s putSummary) string {
	text := string(body)
	if s.Error.Message != "" {
		text = strings.TrimSpace(s.Error.Message + " " + s.Error.Details)
	}
	if text == "" {
		return ""
	}
	return " saying " + strconv.Quote(shorten(text))
}

func shorten(text string) string {
	const most = 200
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
