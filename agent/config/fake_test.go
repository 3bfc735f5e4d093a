package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The structs below stand for those that the owners of sections bring.

type fakeStatesync struct {
	Kubeconfig Path         `yaml:"kubeconfig"`
	Namespaces []string     `yaml:"namespaces"`
	Kinds      []fakeKind   `yaml:"kinds" default:"[Pod]"`
	Sinks      []Item       `yaml:"sinks"`
	Ledger     fakeLedger   `yaml:"ledger"`
	Audit      *fakeAudit   `yaml:"audit"`
	Resync     []fakeResync `yaml:"resync"`
}

type fakeLedger struct {
	MaxSize Bytes         `yaml:"max_size" default:"2GiB"`
	Sync    bool          `yaml:"sync" default:"true"`
	Every   time.Duration `yaml:"every" default:"5ms"`
	Batch   int8          `yaml:"batch" default:"16"`
	Retries uint8         `yaml:"retries"`
	Ratio   float64       `yaml:"ratio" default:"0.5"`
}

type fakeAudit struct {
	Every time.Duration `yaml:"every" required:"true"`
}

type fakeResync struct {
	Every time.Duration `yaml:"every" default:"10m"`
}

// fakeKind is a name, or a mapping.
type fakeKind struct {
	Kind string `yaml:"kind" required:"true"`
	CEL  string `yaml:"cel"`
}

func (k *fakeKind) UnmarshalText(text []byte) error {
	if len(text) == 0 || text[0] < 'A' || text[0] > 'Z' {
		return fmt.Errorf("kind %q, want a kind such as Pod", text)
	}
	k.Kind = string(text)
	return nil
}

// Validate finds question marks, and says where they are, the last one first.
func (k *fakeKind) Validate() error {
	var errs []error
	for line, text := range strings.Split(k.CEL, "\n") {
		for column, r := range slices.Backward([]rune(text)) {
			if r == '?' {
				errs = append(errs, &FieldError{Key: "cel", Got: "a question", Want: "an answer", Line: line + 1, Column: column + 1})
			}
		}
	}
	return errors.Join(errs...)
}

type fakeWebhook struct {
	URL        string            `yaml:"url" required:"true"`
	SecretFile SecretFile        `yaml:"secret_file"`
	Token      Secret            `yaml:"token"`
	Headers    map[string]string `yaml:"headers"`
	Window     int               `yaml:"window" default:"64"`
	TLS        struct {
		CA Path `yaml:"ca_file"`
	} `yaml:"tls"`
}

func (w *fakeWebhook) Validate() error {
	var errs []error
	if len(w.URL) < 5 || w.URL[:4] != "http" {
		errs = append(errs, &FieldError{Key: "url", Got: w.URL, Want: "http:// or https://"})
	}
	if w.Window < 1 {
		errs = append(errs, fmt.Errorf("wrapped: %w", &FieldError{Key: "window", Got: fmt.Sprint(w.Window), Want: "1 or more"}))
	}
	if w.TLS.CA != "" {
		errs = append(errs, &FieldError{Key: "tls.ca_file", Got: "a file", Want: "none"})
	}
	if w.Headers["X-Bad"] != "" {
		errs = append(errs, errors.New("the headers disagree"))
	}
	return errors.Join(errs...)
}

type fakeFile struct {
	Path Path `yaml:"path" required:"true"`
}

// fakeCheck has keys beside its name and kind.
type fakeCheck struct {
	Item
	Every    time.Duration `yaml:"every" default:"30s"`
	Category string        `yaml:"category" default:"page"`
}

type fakeTCP struct {
	Address string `yaml:"address" required:"true"`
}

type fakeSections struct {
	statesync fakeStatesync
	checks    []fakeCheck
}

func (s *fakeSections) options(env map[string]string) Options {
	return Options{
		Sections: map[string]any{"statesync": &s.statesync, "checks": &s.checks},
		Kinds: map[string]Kinds{
			"statesync.sinks": {
				"webhook": func() any { return new(fakeWebhook) },
				"file":    func() any { return new(fakeFile) },
				"stdout":  func() any { return new(struct{}) },
			},
			"checks": {"tcp": func() any { return new(fakeTCP) }},
		},
		Getenv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
}
