package exporters

import (
	"errors"
	"strconv"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
)

// What is not configured.
const (
	defaultEvery  = 10 * time.Second
	defaultQueue  = 100_000
	defaultMaxAge = time.Hour
)

// Config is an item of the list of exporters that push.
type Config struct {
	config.Item
	Every  time.Duration `yaml:"every" default:"10s"`
	Series Selector      `yaml:"series"`                 // empty: all
	Queue  int           `yaml:"queue" default:"100000"` // points that may wait; beyond it the oldest are dropped
	MaxAge time.Duration `yaml:"max_age" default:"1h"`   // of a point that is still worth sending
}

// Validate implements the configuration's check.
func (c *Config) Validate() error {
	errs := []error{c.Series.check("series")}
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	if c.Every < time.Second || c.Every > time.Hour {
		wrong("every", c.Every.String(), "1s to 1h")
	}
	if c.Queue < 1000 || c.Queue > 10_000_000 {
		wrong("queue", strconv.Itoa(c.Queue), "1000 to 10000000 points")
	}
	if c.MaxAge < c.Every {
		wrong("max_age", c.MaxAge.String(), "at least every, which is "+c.Every.String())
	}
	return errors.Join(errs...)
}
