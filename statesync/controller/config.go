package controller

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// Config is the section statesync of the configuration.
type Config struct {
	Kubeconfig config.Path   `yaml:"kubeconfig"` // empty: in-cluster, then ~/.kube/config
	Namespaces []string      `yaml:"namespaces"` // empty: all
	Kinds      []KindConfig  `yaml:"kinds"`      // empty: all that are built in
	Reasons    bool          `yaml:"reasons"`    // report a change of reason alone
	MaxPending int           `yaml:"max_pending" default:"50000"`
	Audit      time.Duration `yaml:"audit" default:"10m"` // between two comparisons with the API server; 0: never
	Ledger     LedgerConfig  `yaml:"ledger"`
	Sinks      []SinkConfig  `yaml:"sinks" required:"true"`
}

// LedgerConfig is how much the ledger may hold.
type LedgerConfig struct {
	MaxBytes config.Bytes  `yaml:"max_bytes" default:"2GiB"` // on disk, its write-ahead log included
	Keep     time.Duration `yaml:"keep" default:"24h"`       // changes that every sink has acknowledged
}

const (
	minAudit  = time.Second
	minLedger = 8 << 20 // below it the write-ahead log alone would be too much
)

// namespaceName is how Kubernetes names namespaces (RFC 1123 label). Read-only.
var namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Section is the component's key in the configuration, and its name.
const Section = "statesync"

// SinksKey is the path of the list of sinks, under which their kinds are
// given to the configuration.
const SinksKey = Section + ".sinks"

// Validate implements the configuration's check.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Kinds) == 0 {
		for _, name := range slices.Sorted(maps.Keys(workload.Kinds)) {
			c.Kinds = append(c.Kinds, KindConfig{Kind: KindName{Name: name}})
		}
	}
	errs = append(errs, c.validateKinds()...)
	bad := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	for i, ns := range c.Namespaces {
		key := fmt.Sprintf("namespaces[%d]", i)
		if !namespaceName.MatchString(ns) {
			bad(key, strconv.Quote(ns), "the name of a namespace; for all of them, leave namespaces out")
		} else if slices.Index(c.Namespaces, ns) != i {
			bad(key, ns+" a second time", "each namespace once")
		}
	}
	if c.Kubeconfig != "" {
		if _, err := os.Stat(string(c.Kubeconfig)); err != nil {
			bad("kubeconfig", errors.Unwrap(err).Error()+": "+string(c.Kubeconfig), "a readable file; empty for in-cluster, then ~/.kube/config")
		}
	}
	if c.MaxPending < 100 {
		bad("max_pending", fmt.Sprint(c.MaxPending), "100 or more")
	}
	if c.Audit != 0 && c.Audit < minAudit {
		bad("audit", c.Audit.String(), minAudit.String()+" or more, or 0 for no audits")
	}
	if c.Ledger.MaxBytes < minLedger {
		bad("ledger.max_bytes", c.Ledger.MaxBytes.String(), config.Bytes(minLedger).String()+" or more")
	}
	if c.Ledger.Keep <= 0 {
		bad("ledger.keep", c.Ledger.Keep.String(), "more than 0s")
	}
	if len(c.Sinks) == 0 {
		bad("sinks", "none", "at least one sink, to which changes go")
	}
	errs = append(errs, c.validateFilters()...)
	return errors.Join(append(errs, c.samePath()...)...)
}

// samePath refuses two sinks that would write to one file.
func (c *Config) samePath() (errs []error) {
	first := map[string]string{}
	for i, item := range c.Sinks {
		t, ok := item.Config.(interface{ Target() string })
		if !ok || t.Target() == "" {
			continue
		}
		if other, taken := first[t.Target()]; taken {
			errs = append(errs, &config.FieldError{
				Key: fmt.Sprintf("sinks[%d]", i), Got: "the file of sink " + other + " again", Want: "a file of its own for each sink",
			})
		}
		first[t.Target()] = item.Name
	}
	return errs
}
