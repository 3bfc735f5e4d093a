package alerts

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/outrider-agent/outrider/metrics/catalogue"
)

// A Backend renders rules in the words of something that pages people.
type Backend struct {
	Name string

	// Render makes the files of the back end: the same ones for the same rules.
	Render func(*Set, catalogue.Catalogue) ([]File, error)
}

// A File is one that was rendered.
type File struct {
	Path string // within the folder of the back end
	Data []byte
}

// Backends is the table of back ends.
func Backends() []Backend {
	return []Backend{
		{Datadog, renderDatadog},
		{Nagios, renderNagios},
		{Prometheus, renderPrometheus},
	}
}

// Render makes the files of back ends, a folder each, or says what they cannot do with
// the rules: such a rule says in only who can.
func Render(set *Set, own catalogue.Catalogue, backends ...Backend) ([]File, error) {
	var out []File
	var errs []error
	for _, b := range backends {
		files, err := b.Render(set, own)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w; a rule that is for some back ends alone says so with only", b.Name, err))
		}
		for _, f := range files {
			out = append(out, File{filepath.Join(b.Name, f.Path), f.Data})
		}
	}
	return out, errors.Join(errs...)
}
