package history

import (
	"errors"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
)

// Config is how much of every series is remembered.
type Config struct {
	MaxBytes config.Bytes  `yaml:"max_bytes" default:"16MiB"`
	Keep     time.Duration `yaml:"keep" default:"1h"`
}

// Validate implements the configuration's check.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxBytes < leastBudget {
		errs = append(errs, &config.FieldError{Key: "max_bytes", Got: c.MaxBytes.String(), Want: "at least " + config.Bytes(leastBudget).String()})
	}
	if c.Keep < leastKeep || c.Keep > mostKeep {
		errs = append(errs, &config.FieldError{Key: "keep", Got: c.Keep.String(), Want: leastKeep.String() + " to " + mostKeep.String()})
	}
	return errors.Join(errs...)
}
