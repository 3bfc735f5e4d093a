package controller

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/delivery"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// SinkConfig is an item of the list of sinks.
type SinkConfig struct {
	config.Item
	Filter      FilterConfig     `yaml:"filter"`
	OnFull      delivery.Policy  `yaml:"on_full" default:"detach"`
	DeadLetters delivery.Letters `yaml:"dead_letters" default:"skip"`
}

// FilterConfig says which changes a sink wants: those that are in every list
// that is given, and whose workload has the labels.
type FilterConfig struct {
	Kinds      []string          `yaml:"kinds"` // as changes call them; empty: all
	Namespaces []string          `yaml:"namespaces"`
	States     []statesync.State `yaml:"states"` // that a change leads to
	Labels     string            `yaml:"labels"` // a selector: app=x,tier!=dev
}

// Validate checks the policies.
func (c *SinkConfig) Validate() error {
	var errs []error
	if !slices.Contains([]delivery.Policy{delivery.Detach, delivery.Compact, delivery.Block}, c.OnFull) {
		errs = append(errs, &config.FieldError{Key: "on_full", Got: show(string(c.OnFull)), Want: "detach, compact or block"})
	}
	if !slices.Contains([]delivery.Letters{delivery.SkipLetters, delivery.ParkLetters}, c.DeadLetters) {
		errs = append(errs, &config.FieldError{Key: "dead_letters", Got: show(string(c.DeadLetters)), Want: "skip or park"})
	}
	return errors.Join(errs...)
}

// same reports whether a sink of the other configuration would be this one.
func (c *SinkConfig) same(o *SinkConfig) bool {
	return c.Kind == o.Kind && reflect.DeepEqual(c.Config, o.Config) &&
		reflect.DeepEqual(c.Filter, o.Filter) && c.OnFull == o.OnFull && c.DeadLetters == o.DeadLetters
}

// target is where the sink writes, as far as that matters to others.
func (c *SinkConfig) target() string {
	if t, ok := c.Config.(interface{ Target() string }); ok {
		return c.Kind + " " + t.Target()
	}
	return c.Kind
}

// Match returns the filter as a function that delivery asks of each change;
// nil: everything is wanted.
func (f FilterConfig) Match() (func(*statesync.Change) bool, error) {
	if len(f.Kinds)+len(f.Namespaces)+len(f.States) == 0 && f.Labels == "" {
		return nil, nil //nolint:nilnil // no filter is what most sinks have
	}
	labels, err := workload.Selects(f.Labels)
	if err != nil {
		return nil, fmt.Errorf("labels %q: %w", f.Labels, err)
	}
	f.Kinds, f.Namespaces, f.States = slices.Clone(f.Kinds), slices.Clone(f.Namespaces), slices.Clone(f.States)
	return func(c *statesync.Change) bool {
		return wants(f.Kinds, c.Workload.Kind) && wants(f.Namespaces, c.Workload.Namespace) &&
			wants(f.States, c.To) && labels(c.Workload.Labels)
	}, nil
}

// wants reports whether a list that may be left out has v.
func wants[T comparable](list []T, v T) bool { return len(list) == 0 || slices.Contains(list, v) }

// validateFilters checks each filter against what is watched, and writes its
// selector in one way: one that is only written otherwise selects nothing
// else, and a reload has nothing to do.
func (c *Config) validateFilters() (errs []error) {
	var kinds []string
	for _, k := range c.Kinds {
		kinds = append(kinds, k.Kind.String())
	}
	slices.Sort(kinds)
	for i := range c.Sinks {
		f, key := &c.Sinks[i].Filter, fmt.Sprintf("sinks[%d].filter", i)
		bad := func(below, got, want string) {
			errs = append(errs, &config.FieldError{Key: key + below, Got: got, Want: want})
		}
		for j, kind := range f.Kinds {
			if !slices.Contains(kinds, kind) {
				bad(fmt.Sprintf(".kinds[%d]", j), show(kind), "a kind that is reported: "+strings.Join(kinds, ", "))
			}
		}
		for j, ns := range f.Namespaces {
			at := fmt.Sprintf(".namespaces[%d]", j)
			switch {
			case !namespaceName.MatchString(ns):
				bad(at, strconv.Quote(ns), "the name of a namespace")
			case !wants(c.Namespaces, ns):
				bad(at, ns, "a namespace that is watched: "+strings.Join(c.Namespaces, ", "))
			}
		}
		for j, state := range f.States {
			if !slices.Contains(states, state) {
				bad(fmt.Sprintf(".states[%d]", j), show(string(state)), "one of "+joinStates())
			}
		}
		if f.Labels == "" {
			continue
		}
		text, err := workload.ParseSelector(f.Labels)
		if err != nil {
			bad(".labels", strconv.Quote(f.Labels), "labels such as app=web,tier!=dev")
			continue
		}
		f.Labels = text
	}
	return errs
}

// states are those that a change may lead to. Read-only.
var states = []statesync.State{
	statesync.Queued, statesync.Running, statesync.Succeeded, statesync.Failed,
	statesync.Cancelled, statesync.Deleted, statesync.Untracked,
}

func joinStates() string {
	words := make([]string, len(states))
	for i, s := range states {
		words[i] = string(s)
	}
	return strings.Join(words, ", ")
}
