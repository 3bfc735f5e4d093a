package controller

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// Config is the section statesync of the configuration.
type Config struct {
	Kubeconfig config.Path   `yaml:"kubeconfig"` // empty: in-cluster, then ~/.kube/config
	Namespaces []string      `yaml:"namespaces"` // empty: all
	Kinds      []string      `yaml:"kinds"`      // empty: all that are known
	Reasons    bool          `yaml:"reasons"`    // report a change of reason alone
	MaxPending int           `yaml:"max_pending" default:"50000"`
	Sinks      []config.Item `yaml:"sinks" required:"true"`
}

// namespaceName is how Kubernetes names namespaces (RFC 1123 label). Read-only.
var namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// SinksKey is the path of the list of sinks, under which their kinds are
// given to the configuration.
const SinksKey = "statesync.sinks"

// Validate implements the configuration's check.
func (c *Config) Validate() error {
	var errs []error
	known := slices.Sorted(maps.Keys(workload.Kinds))
	if len(c.Kinds) == 0 {
		c.Kinds = known
	}
	bad := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	for i, kind := range c.Kinds {
		key := fmt.Sprintf("kinds[%d]", i)
		if _, ok := workload.Kinds[kind]; !ok {
			bad(key, kind, "one of "+strings.Join(known, ", "))
		} else if slices.Index(c.Kinds, kind) != i {
			bad(key, kind+" a second time", "each kind once")
		}
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
	if len(c.Sinks) == 0 {
		bad("sinks", "none", "at least one sink, to which changes go")
	}
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
