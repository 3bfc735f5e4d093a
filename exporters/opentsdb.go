package exporters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// OpenTSDBConfig describes a server that takes OpenTSDB's POST /api/put.
//
// Counters and gauges are sent as they stand, under their Prometheus names; of
// histograms and timers .count and .sum as they stand, and .p50, .p95, .p99 and
// .max of what came since the reading before, where anything did.
type OpenTSDBConfig struct {
	// URL is the server's, such as http://127.0.0.1:4242; /api/put is added
	// unless it is there. It may hold a password, so it is never printed.
	URL config.Secret `yaml:"url" required:"true"`

	Tags    map[string]string `yaml:"tags"`                 // of all series; a series' own win
	MaxTags int               `yaml:"max_tags" default:"8"` // tsd.storage.max_tags; a series' own come first

	// Batch is how many points a request has. OpenTSDB refuses a request that
	// comes in more than 8 KiB pieces unless tsd.http.request.enable_chunked.
	Batch      int           `yaml:"batch" default:"50"`
	Gzip       bool          `yaml:"gzip" default:"true"`
	Sync       bool          `yaml:"sync"`                   // answers come after the points are stored
	Timestamps string        `yaml:"timestamps" default:"s"` // s or ms
	Timeout    time.Duration `yaml:"timeout" default:"10s"`  // of one request

	Headers   map[string]config.Secret `yaml:"headers"`
	BasicAuth OpenTSDBAuth             `yaml:"basic_auth"`
	TLS       OpenTSDBTLS              `yaml:"tls"`
}

// Validate implements the configuration's check.
func (c *OpenTSDBConfig) Validate() error {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	u, got := c.address()
	if got != "" {
		wrong("url", got, "an address such as http://127.0.0.1:4242")
	}
	if got == "" && u.Scheme == "http" && c.TLS != (OpenTSDBTLS{}) {
		wrong("tls", "settings for an address without TLS", "https://, or no settings")
	}
	if _, err := c.header(); err != nil {
		errs = append(errs, err)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tags)) {
		value := c.Tags[name]
		if name == "" || name != openTSDBText(name) || value == "" || value != openTSDBText(value) {
			wrong("tags", fmt.Sprintf("%q: %q", name, value), "a name and a value of letters, digits, - _ . and /")
		}
	}
	if c.MaxTags < 1 || c.MaxTags > 64 {
		wrong("max_tags", strconv.Itoa(c.MaxTags), "1 to 64")
	}
	if c.Batch < 1 || c.Batch > 10_000 {
		wrong("batch", strconv.Itoa(c.Batch), "1 to 10000 points")
	}
	if c.Timestamps != "s" && c.Timestamps != "ms" {
		wrong("timestamps", fmt.Sprintf("%q", c.Timestamps), "s or ms")
	}
	if c.Timeout < 100*time.Millisecond || c.Timeout > 5*time.Minute {
		wrong("timeout", c.Timeout.String(), "100ms to 5m")
	}
	return errors.Join(errs...)
}

// address returns where to put, or what is wrong with the address, without
// quoting it.
func (c *OpenTSDBConfig) address() (*url.URL, string) {
	u, err := url.Parse(c.URL.Text())
	switch {
	case err != nil:
		return nil, "what is no web address"
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "an address that does not begin with http:// or https://"
	case u.Hostname() == "":
		return nil, "an address without a host"
	}
	if !strings.HasSuffix(u.Path, "/api/put") {
		u = u.JoinPath("api/put")
	}
	query := u.Query()
	query.Set("details", "true")
	if c.Sync {
		query.Set("sync", "true")
		// The server gives up before we do, so that its answer says what it did.
		query.Set("sync_timeout", strconv.FormatInt((c.Timeout*9/10).Milliseconds(), 10))
	}
	u.RawQuery = query.Encode()
	return u, ""
}

// Build implements [Builder].
func (c *OpenTSDBConfig) Build(env Env) (Exporter, error) {
	filled := *c // a program that embeds us leaves out what it does not care for
	filled.MaxTags, filled.Batch, filled.Timeout = cmp.Or(c.MaxTags, 8), cmp.Or(c.Batch, 50), cmp.Or(c.Timeout, 10*time.Second)
	c = &filled
	u, got := c.address()
	if got != "" {
		return nil, fmt.Errorf("opentsdb: url: got %s", got)
	}
	header, err := c.header()
	if err != nil {
		return nil, fmt.Errorf("opentsdb: %w", err)
	}
	secure, err := c.TLS.build()
	if err != nil {
		return nil, fmt.Errorf("opentsdb: tls: %w", err)
	}
	header.Set("Content-Type", "application/json")
	if c.Gzip {
		header.Set("Content-Encoding", "gzip")
	}
	if env.UserAgent != "" && header.Get("User-Agent") == "" {
		header.Set("User-Agent", env.UserAgent)
	}
	base := map[string]string{}
	maps.Copy(base, env.Tags)
	maps.Copy(base, c.Tags)
	maps.DeleteFunc(base, func(_, value string) bool { return value == "" })
	e := &openTSDB{
		config: *c, url: u.String(), header: header, base: base, env: env, batch: c.Batch, cut: map[string]bool{},
		client: &http.Client{
			Transport: &http.Transport{
				DialContext:            (&net.Dialer{Timeout: c.Timeout}).DialContext,
				TLSClientConfig:        secure,
				TLSHandshakeTimeout:    c.Timeout,
				MaxIdleConns:           1,
				IdleConnTimeout:        90 * time.Second,
				DisableCompression:     true, // an answer is bounded by what is read of it
				MaxResponseHeaderBytes: 64 << 10,
			},
			// A put that is redirected would become a GET.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if len(base) == 0 {
		// OpenTSDB takes no series without a tag.
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("opentsdb: a tag for series that have none: %w", err)
		}
		e.base["host"] = host
	}
	return e, nil
}

// openTSDB implements [Exporter].
type openTSDB struct {
	config OpenTSDBConfig
	env    Env
	url    string
	header http.Header // of each request
	base   map[string]string
	client *http.Client
	batch  int             // points in a request; fewer once the server found them too many
	cut    map[string]bool // metrics of which it was said that they lose tags
	tries  int             // of a batch of which the server wants to take some points later
	body   putBody
}

// quantiles are what is sent of a histogram, beside .count and .sum. Read-only.
var quantiles = []struct {
	suffix string
	q      float64
}{{".p50", 0.5}, {".p95", 0.95}, {".p99", 0.99}, {".max", 1}}

// openTSDBSeries is what a series' points share: of a histogram one for each of
// its values.
type openTSDBSeries struct{ head, tail string } // of the JSON: before the time, and after the value

// Batch implements [Exporter].
func (e *openTSDB) Batch() int { return e.batch }

// Encode implements [Exporter].
func (e *openTSDB) Encode(r *Reading, emit func(ref any, value float64, times uint64)) {
	series, ok := r.State.([]*openTSDBSeries)
	if !ok {
		series = e.series(r)
		r.State = series
	}
	if r.Hist == nil {
		emit(series[0], r.Value, 1)
		return
	}
	emit(series[0], float64(r.Hist.Count), 1)
	emit(series[1], r.Hist.Sum, 1)
	if !r.Known || r.Since.Count == 0 {
		return
	}
	for i, q := range quantiles {
		v := r.Since.Quantile(q.q)
		if n := len(r.Since.Bounds); n > 0 {
			v = min(v, r.Since.Bounds[n-1]) // all that is known of what is above the last bound
		}
		emit(series[2+i], v, 1)
	}
}

func (e *openTSDB) series(r *Reading) []*openTSDBSeries {
	suffixes := []string{""}
	if r.Desc.Type == metrics.HistogramType {
		suffixes = []string{".count", ".sum"}
		for _, q := range quantiles {
			suffixes = append(suffixes, q.suffix)
		}
	}
	tail := e.tags(r)
	out := make([]*openTSDBSeries, len(suffixes))
	for i, suffix := range suffixes {
		out[i] = &openTSDBSeries{`{"metric":"` + openTSDBText(r.Desc.Name) + suffix + `","timestamp":`, tail}
	}
	return out
}

// tags renders the tags of a series. Those beyond the server's limit are left
// out, the process' before the series' own: that may make two series one.
func (e *openTSDB) tags(r *Reading) string {
	tags := WithBase(r.Tags, e.base)
	if most := e.config.MaxTags; len(tags) > most {
		if name := r.Desc.Name; !e.cut[name] && len(e.cut) < 1000 {
			e.cut[name] = true
			var left []string
			for _, t := range tags[most:] {
				left = append(left, t.Name)
			}
			e.env.Log.Warn("metric has more tags than the server takes, the last ones are left out", "metric", name, "max_tags", most, "left_out", left)
		}
		tags = tags[:most]
	}
	var b strings.Builder
	b.WriteString(`,"tags":{`)
	for i, t := range tags {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + openTSDBText(t.Name) + `":"` + openTSDBText(t.Value) + `"`)
	}
	b.WriteString("}}")
	return b.String()
}

// openTSDBText makes text fit for a metric's or tag's name or value: what is no
// letter, digit, - _ . or / becomes _. See "Metrics and Tags" in OpenTSDB's user
// guide (Writing Data).
func openTSDBText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_./", r):
			return r
		case r != unicode.ReplacementChar && r <= 0xffff && unicode.IsLetter(r):
			return r
		}
		return '_'
	}, s)
}

// Close implements [io.Closer].
func (e *openTSDB) Close() error {
	e.client.CloseIdleConnections()
	return nil
}

// Send implements [Exporter].
func (e *openTSDB) Send(ctx context.Context, points []Point) (Sent, error) {
	answer, err := e.put(ctx, points)
	if err != nil {
		return Sent{}, err
	}
	if answer.later != "" {
		// What was stored is stored again, which changes nothing. Points that
		// the server never takes must not hold up the others for ever.
		if e.tries++; e.tries < mostTries {
			return Sent{}, &Failure{Cause: answer.later, Err: answer.why}
		}
	}
	e.tries = 0
	if answer.tooLarge && len(points) > 1 {
		e.batch = min(e.batch, len(points)/2)
		first, err := e.Send(ctx, points[:len(points)/2])
		if err != nil || first.Out+first.Rejected < len(points)/2 {
			return first, err
		}
		second, err := e.Send(ctx, points[len(points)/2:])
		why := first.Why
		if why == nil {
			why = second.Why
		}
		return Sent{first.Out + second.Out, first.Rejected + second.Rejected, why}, err
	}
	return Sent{Out: len(points) - answer.rejected, Rejected: answer.rejected, Why: answer.why}, nil
}
