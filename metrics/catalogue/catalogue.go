// Package catalogue is the list of all metrics that the agent can have of its own.
//
// It is written from the descriptions in the code, by the test that writes
// docs/metrics.md, so that alerts and dashboards can be made where no agent runs.
package catalogue

import (
	_ "embed" // the list
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

//go:embed catalogue.json
var list []byte

// A Catalogue is the descriptions of metrics, sorted by name.
type Catalogue []metrics.Desc

// Own is the catalogue of the agent's own metrics.
func Own() Catalogue {
	var c Catalogue
	if err := json.Unmarshal(list, &c); err != nil {
		panic(fmt.Sprintf("BUG: the catalogue: %v", err))
	}
	return c
}

// Find returns the description of a metric by its name in Prometheus.
func (c Catalogue) Find(name string) (metrics.Desc, bool) {
	i, ok := slices.BinarySearchFunc(c, name, func(d metrics.Desc, name string) int { return strings.Compare(d.Name, name) })
	if !ok {
		return metrics.Desc{}, false
	}
	return c[i], true
}
