package alerts

import "github.com/outrider-agent/outrider/metrics/catalogue"

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
