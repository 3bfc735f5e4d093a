package config

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A File is a configuration file, decoded: the keys that every agent has. The
// sections are in the structs that [Options] named.
type File struct {
	Path     string   // as given to Load
	Dir      string   // what relative paths are relative to; absolute when loaded by Load
	Warnings []string // file:line: what is allowed, yet unwise

	// Service names what the agent rides with. Default: DD_SERVICE, else outrider.
	Service string `yaml:"service"`

	// DataDir is where the ledger and the history live; empty keeps
	// everything in memory.
	DataDir Path `yaml:"data_dir" default:"/var/lib/outrider"`

	Listen Listen `yaml:"listen"`
	Log    Log    `yaml:"log"`

	sections map[string]bool
}

// Listen says where the agent listens. Each listener takes host:port, :port
// (on loopback), unix:/path or off.
type Listen struct {
	Public string `yaml:"public" default:"127.0.0.1:9610"`
	Debug  string `yaml:"debug" default:"127.0.0.1:9611"`
	Status string `yaml:"status" default:"127.0.0.1:9612"`

	// WebConfig is a Prometheus web configuration: TLS, and users with bcrypt hashes.
	WebConfig Path `yaml:"web_config_file"`

	// BearerTokens is a file with the SHA-256 of one token a line, in hex.
	BearerTokens Path `yaml:"bearer_tokens_file"`

	// AllowUnauthenticated opens healthz (names and states only) or metrics
	// to everyone who can reach a listener that is not on loopback.
	AllowUnauthenticated []string `yaml:"allow_unauthenticated"`
}

// Log says what the agent logs, and how.
type Log struct {
	Level  string `yaml:"level" default:"info"`
	Format string `yaml:"format" default:"text"`
}

// Has reports whether the file has the top-level key.
func (f *File) Has(section string) bool { return f.sections[section] }

// Validate checks the service's name, which goes into tags and status lines,
// and places relative unix sockets beside the file.
func (f *File) Validate() error {
	for _, spec := range []*string{&f.Listen.Public, &f.Listen.Debug, &f.Listen.Status} {
		if path, ok := strings.CutPrefix(*spec, "unix:"); ok && !filepath.IsAbs(path) {
			*spec = "unix:" + filepath.Join(f.Dir, path)
		}
	}
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$`).MatchString(f.Service) {
		return &FieldError{Key: "service", Got: show(f.Service), Want: "letters, digits, . _ / and -, 100 at most"}
	}
	return nil
}

// Validate checks the form of the addresses and that the files are there.
func (l *Listen) Validate() error {
	var errs []error
	for _, a := range []struct{ key, spec string }{{"public", l.Public}, {"debug", l.Debug}, {"status", l.Status}} {
		if !validSpec(a.spec) {
			errs = append(errs, &FieldError{Key: a.key, Got: show(a.spec), Want: "host:port, :port, unix:/path or off"})
		}
	}
	for _, f := range []struct {
		key  string
		path Path
	}{{"web_config_file", l.WebConfig}, {"bearer_tokens_file", l.BearerTokens}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(string(f.path)); err != nil {
			errs = append(errs, &FieldError{Key: f.key, Got: show(string(f.path)) + ": " + reason(err), Want: "a readable file"})
		}
	}
	for i, name := range l.AllowUnauthenticated {
		if name != "healthz" && name != "metrics" {
			key := "allow_unauthenticated[" + strconv.Itoa(i) + "]"
			errs = append(errs, &FieldError{Key: key, Got: show(name), Want: "healthz or metrics"})
		}
	}
	return errors.Join(errs...)
}

// Validate checks level and format.
func (l *Log) Validate() error {
	var errs []error
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level) {
		errs = append(errs, &FieldError{Key: "level", Got: show(l.Level), Want: "debug, info, warn or error"})
	}
	if l.Format != "text" && l.Format != "json" {
		errs = append(errs, &FieldError{Key: "format", Got: show(l.Format), Want: "text or json"})
	}
	return errors.Join(errs...)
}

func validSpec(spec string) bool {
	if path, ok := strings.CutPrefix(spec, "unix:"); ok {
		return path != ""
	}
	if spec == "off" {
		return true
	}
	_, port, err := net.SplitHostPort(spec)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}
