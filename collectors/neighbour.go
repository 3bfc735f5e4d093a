package collectors

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
)

// A Neighbour is what the agent rides beside, named once: what is read of it goes
// by that name.
type Neighbour struct {
	Name    string        `yaml:"name" required:"true"`
	Metrics string        `yaml:"metrics"` // URL of its series, in Prometheus' text format
	Health  string        `yaml:"health"`  // URL of its health, whose checks are shown as its own
	Every   time.Duration `yaml:"every" default:"10s"`
}

// neighbourName is what fits into tags, paths and lines of the status text.
// Read-only.
var neighbourName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Validate checks the name and the URL.
func (n *Neighbour) Validate() error {
	if !neighbourName.MatchString(n.Name) {
		return &config.FieldError{Key: "name", Got: fmt.Sprintf("%q", n.Name), Want: "lower-case letters, digits, . _ and -, 63 at most"}
	}
	item, ok := n.item()
	if !ok {
		return nil
	}
	if err := item.Validate(); err != nil {
		return err
	}
	err := item.Config.(*PrometheusConfig).Validate()
	var f *config.FieldError
	if errors.As(err, &f) && f.Key == "url" {
		f.Key = "metrics"
	}
	return err
}

// item is the collector that reads the neighbour's series; false: it shows none.
func (n *Neighbour) item() (Item, bool) {
	if n.Metrics == "" {
		return Item{}, false
	}
	c := &PrometheusConfig{ScrapeConfig: ScrapeConfig{URL: n.Metrics}, BodyLimit: promBodyLimit, SampleLimit: scrapeSampleLimit}
	return Item{
		Item:  config.Item{Name: n.Name, Kind: "prometheus", Config: c},
		Every: n.Every, Timeout: min(n.Every, mostWait),
	}, true
}
