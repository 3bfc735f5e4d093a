package collectors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// ExpvarConfig describes a neighbour that shows its variables as JSON, as Go's
// package expvar does under /debug/vars.
//
// Numbers become gauges, true and false 1 and 0; texts and lists are left out. The
// name of a series are the keys that lead to it, joined by underscores. Those that
// Counters names become counters, with _total at the end of their names, and so
// do the counts in memstats.
type ExpvarConfig struct {
	ScrapeConfig
	Counters []string `yaml:"counters"` // names, before _total; * stands for any text

	// Tags names maps of which the keys are values of a tag and no part of the
	// name: with requests: [method, status], the variable requests:
	// {"GET": {"200": 7}} becomes requests{method="GET",status="200"} 7.
	Tags map[string][]string `yaml:"tags"`

	BodyLimit   config.Bytes `yaml:"body_limit" default:"8MiB"`    // of an answer, unpacked
	SampleLimit int          `yaml:"sample_limit" default:"10000"` // beyond it the variables with the most numbers are left out
}

const expvarBodyLimit = 8 << 20

// Validate implements the configuration's check.
func (c *ExpvarConfig) Validate() error {
	errs := []error{c.ScrapeConfig.Validate(), scrapeLimits(c.BodyLimit, c.SampleLimit)}
	for name, tags := range c.Tags {
		if len(tags) == 0 {
			errs = append(errs, &config.FieldError{Key: "tags." + name, Got: "no tag", Want: "the names of tags"})
		}
		seen := map[string]bool{}
		for i, tag := range tags {
			if !promPlainLabel.MatchString(tag) || seen[tag] {
				errs = append(errs, &config.FieldError{Key: fmt.Sprintf("tags.%s[%d]", name, i), Got: promShow(tag), Want: "the name of a tag, once"})
			}
			seen[tag] = true
		}
	}
	for i, pattern := range c.Counters {
		if pattern == "" {
			errs = append(errs, &config.FieldError{Key: fmt.Sprintf("counters[%d]", i), Got: "nothing", Want: "a name, or a pattern such as requests_*"})
		}
	}
	return errors.Join(errs...)
}

// Build implements [Builder]. Limits of 0 are those by default.
func (c *ExpvarConfig) Build(env Env) (Collector, error) {
	s, err := c.scraper(cmp.Or(c.BodyLimit, expvarBodyLimit))
	if err != nil {
		return nil, fmt.Errorf("expvar: %w", err)
	}
	book, err := newScrapeBook(env)
	if err != nil {
		return nil, fmt.Errorf("expvar: %w", err)
	}
	rules := expvarRules{limit: cmp.Or(c.SampleLimit, scrapeSampleLimit), tags: map[string][]string{}, counters: c.Counters}
	for name, tags := range c.Tags {
		rules.tags[promSanitize(name, false)] = tags
	}
	return &expvarCollector{scraper: s, book: book, rules: rules, now: env.Now}, nil
}

type expvarCollector struct {
	scraper *scraper
	book    *scrapeBook
	rules   expvarRules
	now     func() time.Time
}

// Collect implements [Collector].
func (c *expvarCollector) Collect(ctx context.Context) ([]metrics.Family, error) {
	began := c.now()
	fams, size, read, failure := c.read(ctx)
	c.book.note(c.now().Sub(began), size, read, failure)
	err := errors.Join(failure, read.first, read.cutError(c.rules.limit))
	if err != nil {
		return fams, fmt.Errorf("scrape %s: %w", c.scraper.shown, err)
	}
	return fams, nil
}

func (c *expvarCollector) read(ctx context.Context) ([]metrics.Family, int64, promRead, error) {
	body, err := c.scraper.open(ctx, "application/json")
	if err != nil {
		return nil, 0, promRead{}, err
	}
	defer body.close()
	fams, read, err := c.rules.parse(body)
	var known *scrapeError
	switch {
	case err == nil || errors.As(err, &known):
	default:
		kind := cmp.Or(strings.TrimSpace(body.contentType), "text without a type")
		err = &scrapeError{"format", fmt.Errorf("got %s, want JSON: %w", strings.Trim(strconv.QuoteToASCII(kind), `"`), err)}
	}
	return fams, body.n, read, err
}
