package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// HTTPConfig describes a request and the answer that is wanted.
//
// healthcheck.HTTPGetCheck takes no context, keeps its connection, wants exactly
// 200 and does not look into the answer; so this kind asks by itself.
type HTTPConfig struct {
	HTTPTarget

	Method string        `yaml:"method" default:"GET"`
	Body   config.Secret `yaml:"body"`

	// Status is what the answer may have: codes such as 204, classes such as 2xx,
	// or ranges such as 200-399, which is the default.
	Status []string `yaml:"status"`
	// Redirects is how many are followed, on the same host; 0: none. One that leads
	// elsewhere, or is not followed, is the answer.
	Redirects int `yaml:"redirects" default:"5"`

	Contains string    `yaml:"contains"` // a text in the body
	Matches  string    `yaml:"matches"`  // a regular expression, of a part of the body
	JSON     *HTTPJSON `yaml:"json"`     // a value in the body

	Certificate *TimeLeft    `yaml:"certificate"`             // how long the first certificate to end is still valid
	MaxBody     config.Bytes `yaml:"max_body" default:"1MiB"` // what is beyond is not looked at

	Limits // of the time to the end of the answer, in seconds
}

const maxHTTPBody = 64 << 20

// Validate is asked when the configuration is read.
func (c *HTTPConfig) Validate() error {
	_, err := c.build()
	return err
}

// Build implements [Builder].
func (c *HTTPConfig) Build(env Env) (Checker, error) {
	h, err := c.build()
	if err != nil {
		return nil, err
	}
	h.now = env.Now
	return h, nil
}

func (c *HTTPConfig) build() (*httpCheck, error) {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	h := &httpCheck{HTTPConfig: c}
	var err error
	if h.asker, err = c.asker(c.Redirects); err != nil {
		errs = append(errs, err)
	}
	if !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodOptions}, c.Method) {
		wrong("method", snippet(c.Method, 20), "GET, HEAD, POST, PUT or OPTIONS")
	}
	if c.Redirects < 0 || c.Redirects > maxRedirects {
		wrong("redirects", strconv.Itoa(c.Redirects), fmt.Sprintf("0 to %d", maxRedirects))
	}
	if c.MaxBody < 1 || c.MaxBody > maxHTTPBody {
		wrong("max_body", c.MaxBody.String(), "1B to "+config.Bytes(maxHTTPBody).String())
	}
	if h.want, err = parseCodes(c.Status); err != nil {
		errs = append(errs, err)
	}
	if c.Matches != "" {
		if h.matches, err = regexp.Compile(c.Matches); err != nil {
			wrong("matches", err.Error(), "a regular expression")
		}
	}
	if c.Method == http.MethodHead && (c.Contains != "" || c.Matches != "" || c.JSON != nil) {
		wrong("method", "HEAD with a condition on the body", "GET")
	}
	if c.JSON != nil {
		if h.json, err = c.JSON.build(); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Certificate != nil {
		if err := c.Certificate.validate("certificate"); err != nil {
			errs = append(errs, err)
		}
		if h.asker != nil && h.asker.url.Scheme != "https" {
			wrong("certificate", "a limit for an address without TLS", "https://, or no limit")
		}
	}
	return h, errors.Join(errs...)
}

// An httpCheck asks over HTTP.
type httpCheck struct {
	*HTTPConfig
	asker   *asker
	want    codes
	matches *regexp.Regexp
	json    *jsonWant
	now     func() time.Time
}

// Check implements [Checker].
func (h *httpCheck) Check(ctx context.Context) verdict.Result {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	what, begun := h.Method+" "+h.asker.shown, h.now()
	resp, err := h.asker.ask(ctx, h.Method, h.HTTPConfig.Body.Text(), "*/*")
	if err != nil {
		return refused(ctx, what, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(h.MaxBody)+1))
	if err != nil {
		return refused(ctx, fmt.Sprintf("%s: status %d, %d bytes of the body", what, resp.StatusCode, len(body)), err)
	}
	took := h.now().Sub(begun)
	whole := int64(len(body)) <= int64(h.MaxBody)
	body = body[:min(int64(len(body)), int64(h.MaxBody))]
	what += ": status " + strconv.Itoa(resp.StatusCode)
	r := answered(what, took, h.Limits)
	worse := func(status verdict.Status, format string, args ...any) {
		if verdict.Compare(status, r.Status) > 0 {
			r.Status, r.Message = status, what+fmt.Sprintf(format, args...)
		}
	}
	if !h.want.has(resp.StatusCode) {
		worse(verdict.Fail, ", want %v%s", h.want, begins(body))
		return r
	}
	if err := h.look(&r, body, whole); err != nil {
		worse(verdict.Fail, ", %v", err)
	}
	if h.Certificate != nil && resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		first := endsFirst(resp.TLS.PeerCertificates)
		left := first.NotAfter.Sub(h.now())
		r.Measures = append(r.Measures, h.Certificate.measure("certificate", left))
		if status, want := h.Certificate.judge(left); want != "" {
			worse(status, ", %s, want at least %s", ending(first, left), want)
		}
	}
	return r
}

// look holds the body to its conditions.
func (h *httpCheck) look(r *verdict.Result, body []byte, whole bool) error {
	in := "the body"
	if !whole {
		in = fmt.Sprintf("the first %v of the body", h.MaxBody)
	}
	if h.Contains != "" && !strings.Contains(string(body), h.Contains) {
		return fmt.Errorf("got no %q in %s%s", snippet(h.Contains, 60), in, begins(body))
	}
	if h.matches != nil && !h.matches.Match(body) {
		return fmt.Errorf("got no match of %s in %s%s", snippet(h.Matches, 60), in, begins(body))
	}
	if h.json == nil {
		return nil
	}
	if !whole {
		return fmt.Errorf("got a body of more than %v, want all of it to read JSON", h.MaxBody)
	}
	v, err := h.json.judge(body)
	if v != nil {
		r.Measures = append(r.Measures, verdict.Measure{Label: h.JSON.Path, Value: *v, Crit: h.json.limit()})
	}
	return err
}

// begins says how a body begins.
func begins(body []byte) string {
	if text := snippet(string(body), 100); text != "" {
		return ": it begins with " + text
	}
	return ""
}

// codes are status codes: pairs of a first and a last one.
type codes [][2]int

// parseCodes reads codes, classes and ranges.
func parseCodes(texts []string) (codes, error) {
	if len(texts) == 0 {
		return codes{{200, 399}}, nil
	}
	var out codes
	for i, text := range texts {
		first, last, isRange := strings.Cut(text, "-")
		if class, ok := strings.CutSuffix(text, "xx"); ok {
			first, last = class+"00", class+"99"
		} else if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || from < 100 || to > 599 || from > to {
			return nil, &config.FieldError{Key: fmt.Sprintf("status[%d]", i), Got: snippet(text, 20), Want: "a code such as 204, 2xx or 200-399"}
		}
		out = append(out, [2]int{from, to})
	}
	return out, nil
}

func (c codes) has(code int) bool {
	return slices.ContainsFunc(c, func(r [2]int) bool { return r[0] <= code && code <= r[1] })
}

func (c codes) String() string {
	var out []string
	for _, r := range c {
		switch {
		case r[0] == r[1]:
			out = append(out, strconv.Itoa(r[0]))
		case r[0]%100 == 0 && r[1] == r[0]+99:
			out = append(out, fmt.Sprintf("%dxx", r[0]/100))
		default:
			out = append(out, fmt.Sprintf("%d-%d", r[0], r[1]))
		}
	}
	return strings.Join(out, " or ")
}
