package dashboards

import "github.com/outrider-agent/outrider/metrics/catalogue"

// A Backend draws boards in the words of something that shows them.
type Backend struct {
	Name string

	// Render makes the files of the back end: the same ones for the same board. It
	// refuses what [Lint] finds wrong. A rule that is not there, or judges something
	// else than the panel shows, leaves the panel without lines.
	Render func(*Board, catalogue.Catalogue, Rules) ([]File, error)
}

// A File is one that was rendered.
type File struct {
	Path string // within the folder of the back end
	Data []byte
}

// Backends is the table of back ends.
func Backends() []Backend {
	return []Backend{
		{"datadog", renderDatadog},
		{"grafana", renderGrafana},
	}
}
