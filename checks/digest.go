package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// DigestConfig describes the health endpoint of a neighbour, in one of the formats
// that [ParseDigest] reads.
type DigestConfig struct {
	HTTPTarget

	Redirects int          `yaml:"redirects" default:"5"` // followed at most, on the same host
	MaxBody   config.Bytes `yaml:"max_body" default:"1MiB"`

	Limits // of the time to the end of the answer, in seconds
}

// acceptDigest asks for the format that says most. Actuator's own type is not in
// it: Actuator answers application/json with the same.
const acceptDigest = "application/health+json, application/json;q=0.9, text/plain;q=0.5, */*;q=0.1"

// Validate is asked when the configuration is read.
func (c *DigestConfig) Validate() error {
	_, err := c.build()
	return err
}

// Build implements [Builder].
func (c *DigestConfig) Build(env Env) (Checker, error) {
	d, err := c.build()
	if err != nil {
		return nil, err
	}
	d.now = env.Now
	return d, nil
}

func (c *DigestConfig) build() (*digestCheck, error) {
	var errs []error
	d := &digestCheck{DigestConfig: c}
	var err error
	if d.asker, err = c.asker(c.Redirects); err != nil {
		errs = append(errs, err)
	}
	if c.Redirects < 0 || c.Redirects > maxRedirects {
		errs = append(errs, &config.FieldError{Key: "redirects", Got: strconv.Itoa(c.Redirects), Want: fmt.Sprintf("0 to %d", maxRedirects)})
	}
	if c.MaxBody < 1 || c.MaxBody > maxHTTPBody {
		errs = append(errs, &config.FieldError{Key: "max_body", Got: c.MaxBody.String(), Want: "1B to " + config.Bytes(maxHTTPBody).String()})
	}
	return d, errors.Join(errs...)
}

// A digestCheck reads a neighbour's digest. It is a [Folder].
type digestCheck struct {
	*DigestConfig
	asker *asker
	now   func() time.Time

	mu     sync.Mutex
	folded []Folded
	apart  verdict.Status // without what the members say
	read   bool           // the last time
}

// Folded implements [Folder]. What was read last stays while the neighbour does not
// answer, which the check itself says.
func (d *digestCheck) Folded() ([]Folded, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.folded, d.read
}

// CheckApart implements [Folder]: the endpoint has answered, in time, and what it
// says of itself has its reason in one of its members.
func (d *digestCheck) CheckApart(ctx context.Context) verdict.Result {
	d.mu.Lock()
	d.apart = verdict.Fail // until it has answered
	d.mu.Unlock()
	r := d.Check(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if verdict.Compare(d.apart, r.Status) < 0 {
		r.Status = d.apart
	}
	return r
}

// Check implements [Checker]. The result is the worst of the digest.
func (d *digestCheck) Check(ctx context.Context) verdict.Result {
	d.mu.Lock()
	d.read = false
	d.mu.Unlock()
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	begun, what := d.now(), "GET "+d.asker.shown
	resp, err := d.asker.ask(ctx, http.MethodGet, "", acceptDigest)
	if err != nil {
		return refused(ctx, what, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(d.MaxBody)+1))
	if err != nil {
		return refused(ctx, fmt.Sprintf("%s: status %d, %d bytes of the body", what, resp.StatusCode, len(body)), err)
	}
	took := d.now().Sub(begun)
	if int64(len(body)) > int64(d.MaxBody) {
		return verdict.Result{Status: verdict.Unknown, Message: fmt.Sprintf("%s: status %d, got more than %v, want a digest of at most that", what, resp.StatusCode, d.MaxBody)}
	}
	items, format, err := ParseDigest(resp.Header.Get("Content-Type"), resp.StatusCode, body)
	if err != nil {
		return verdict.Result{Status: verdict.Unknown, Message: what + ": " + err.Error()}
	}
	members := items[1:]
	d.mu.Lock()
	d.folded, d.read = members, true
	d.mu.Unlock()
	return d.result(items, format, took)
}

// result sums a digest up. The first of items is its own status.
func (d *digestCheck) result(items []Folded, format string, took time.Duration) verdict.Result {
	worst, bad := items[0], 0
	if explained(items) {
		worst = Folded{}
	}
	for _, f := range items[1:] {
		status := f.Status
		switch {
		case status == verdict.Unknown && items[0].Status == verdict.Pass:
			// The neighbour knows of it and passes all the same: to Actuator, what
			// is not known is no trouble.
			status = verdict.Pass
		case status == verdict.Fail && f.Category == verdict.Email:
			status = verdict.Warn // it can wait until the morning, says its owner
		}
		if status != verdict.Pass {
			bad++
		}
		// Of the two that are equally bad, the one with a name says more.
		if verdict.Compare(status, worst.Status) > 0 || status == worst.Status && status != verdict.Pass && worst.Name == "" {
			worst, worst.Status = f, status
		}
	}
	message := fmt.Sprintf("%s digest: %d checks pass", format, len(items)-1)
	if len(items) == 1 {
		message = format + " digest: " + worst.Status.String()
	}
	if worst.Status != verdict.Pass {
		message = fmt.Sprintf("%s digest: %v", format, worst.Status)
		if worst.Name != "" {
			message = fmt.Sprintf("%s digest: %s %v", format, worst.Name, worst.Status)
		}
		if worst.Message != "" {
			message += ": " + worst.Message
		}
		if bad > 1 {
			message += fmt.Sprintf("; and %d more", bad-1)
		}
	}
	r := answered(message, took, d.Limits)
	apart := r.Status
	if worst.Name == "" {
		apart = verdict.Worse(apart, worst.Status)
	}
	d.mu.Lock()
	d.apart = apart
	d.mu.Unlock()
	if r.Status = verdict.Worse(r.Status, worst.Status); worst.Status != verdict.Pass {
		r.Message = message
	}
	r.Measures = append(r.Measures,
		verdict.Measure{Label: "checks", Value: float64(len(items) - 1)},
		verdict.Measure{Label: "bad", Value: float64(bad)})
	return r
}

// explained reports whether a digest's own status is no more than what its checks
// say: then each of them counts as its category wants.
func explained(items []Folded) bool {
	status := verdict.Pass
	for _, f := range items[1:] {
		status = verdict.Worse(status, f.Status)
	}
	return verdict.Compare(items[0].Status, status) <= 0
}
