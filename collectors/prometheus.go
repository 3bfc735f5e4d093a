package collectors

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// PrometheusConfig describes a neighbour that shows metrics as text, in the format
// of Prometheus (0.0.4) or as OpenMetrics (1.0).
//
// Types stay what they are. A summary becomes a gauge with the tag quantile and two
// counters, _sum and _count; an untyped metric, the states of a state set and the
// parts of a gauge histogram become gauges. Timestamps, exemplars and, in
// OpenMetrics, the times of creation are left out. Names that need quotes get
// underscores instead of what must be quoted.
type PrometheusConfig struct {
	ScrapeConfig
	Relabel     []RelabelConfig `yaml:"relabel"`
	BodyLimit   config.Bytes    `yaml:"body_limit" default:"32MiB"`   // of an answer, unpacked; the rest is not read
	SampleLimit int             `yaml:"sample_limit" default:"10000"` // beyond it the metrics with the most samples are left out
}

const (
	promBodyLimit        = 32 << 20
	scrapeSampleLimit    = 10000
	scrapeMaxSampleLimit = 1000000
)

// Validate implements the configuration's check.
func (c *PrometheusConfig) Validate() error {
	return errors.Join(c.ScrapeConfig.Validate(), scrapeLimits(c.BodyLimit, c.SampleLimit))
}

func scrapeLimits(body config.Bytes, samples int) error {
	var errs []error
	if body < 1 {
		errs = append(errs, &config.FieldError{Key: "body_limit", Got: body.String(), Want: "more than 0B"})
	}
	if samples < 1 || samples > scrapeMaxSampleLimit {
		errs = append(errs, &config.FieldError{Key: "sample_limit", Got: strconv.Itoa(samples), Want: fmt.Sprintf("1 to %d", scrapeMaxSampleLimit)})
	}
	return errors.Join(errs...)
}

// Build implements [Builder]. Limits of 0 are those by default.
func (c *PrometheusConfig) Build(env Env) (Collector, error) {
	s, err := c.scraper(cmp.Or(c.BodyLimit, promBodyLimit))
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	relabel, err := newPromRelabeler(c.Relabel)
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	book, err := newScrapeBook(env)
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	return &promCollector{
		scraper: s, book: book, now: env.Now,
		table: newPromTable(cmp.Or(c.SampleLimit, scrapeSampleLimit), relabel),
	}, nil
}

type promCollector struct {
	scraper *scraper
	book    *scrapeBook
	table   *promTable
	now     func() time.Time
}

// promAccept prefers OpenMetrics, which says at its end that it was whole.
const promAccept = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

// Collect implements [Collector].
func (c *promCollector) Collect(ctx context.Context) ([]metrics.Family, error) {
	began := c.now()
	fams, size, read, failure := c.read(ctx)
	c.book.note(c.now().Sub(began), size, read, failure)
	errs := []error{failure}
	if read.bad > 0 {
		errs = append(errs, fmt.Errorf("left out %d lines of %d: %w", read.bad, read.lines, read.first))
	}
	if failure == nil || len(fams) > 0 {
		errs = append(errs, read.cutError(c.table.limit))
	}
	if err := errors.Join(errs...); err != nil {
		return fams, fmt.Errorf("scrape %s: %w", c.scraper.shown, err)
	}
	return fams, nil
}

// read asks once. failure is why the answer was not read to its end.
func (c *promCollector) read(ctx context.Context) (fams []metrics.Family, size int64, read promRead, failure error) {
	body, err := c.scraper.open(ctx, promAccept)
	if err != nil {
		return nil, 0, read, err
	}
	defer body.close()
	head := make([]byte, 512)
	n, err := io.ReadFull(body, head)
	head = head[:n]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, body.n, read, err
	}
	if text := bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))); len(text) > 0 && text[0] == '<' {
		return nil, body.n, read, promNoText(body.contentType, text)
	}
	// A scanner of HTTP gives up on a body that says what it is not; neighbours
	// say all kinds of things, so the text decides.
	kind, _, _ := mime.ParseMediaType(body.contentType)
	err = c.table.scan(io.MultiReader(bytes.NewReader(head), body), kind == "application/openmetrics-text")
	c.table.account()
	read = c.table.read
	if read.samples == 0 && read.bad > 0 && (err == nil || errors.Is(err, errPromText)) {
		return nil, body.n, read, promNoText(body.contentType, head)
	}
	return c.table.result(), body.n, read, err
}

// promNoText is the error about an answer that is something else.
func promNoText(contentType string, text []byte) error {
	kind := strings.TrimSpace(contentType)
	if kind == "" {
		kind = "text without a type"
	}
	return &scrapeError{"format", fmt.Errorf("got %s beginning with %s, want Prometheus text", strings.Trim(promShow(kind), `"`), promShow(string(text)))}
}
