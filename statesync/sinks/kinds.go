// Package sinks has the kinds of sink that need nothing heavy: where changes go.
package sinks

import (
	"fmt"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

// A Builder is the configuration of one kind of sink: it opens what it
// describes.
type Builder interface {
	// Open returns the sink. userAgent is how it introduces itself.
	Open(userAgent string) (statesync.Sink, error)
}

// Kinds is the table of kinds: the key in the configuration, and its struct.
func Kinds() config.Kinds {
	return config.Kinds{
		"file":    func() any { return &FileConfig{} },
		"webhook": func() any { return &WebhookConfig{} },
	}
}

// Open opens the sink that an item of the configuration describes.
func Open(item config.Item, userAgent string) (statesync.Sink, error) {
	b, ok := item.Config.(Builder)
	if !ok {
		return nil, fmt.Errorf("BUG: sink %s: %T is not a Builder", item.Name, item.Config)
	}
	s, err := b.Open(userAgent)
	if err != nil {
		return nil, fmt.Errorf("open sink %s: %w", item.Name, err)
	}
	return s, nil
}
