package exporters

import (
	"maps"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

// targetInfo describes what all series of this process have in common, as
// OpenMetrics wants it ("Supporting Target Metadata in Both Push-based and
// Pull-based Systems"): what is pushed has the tags on each series instead.
// Its help is that of OpenTelemetry's exporter, which a program that embeds us may
// have too: two must not differ.
func targetInfo(tags map[string]string) metrics.Family {
	f := metrics.Family{Desc: metrics.Desc{Name: "target_info", Type: metrics.GaugeType, Help: "Target metadata"}}
	var values []string
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		name, value := labelName(tag), strings.ToValidUTF8(tags[tag], "\uFFFD")
		// A label twice would spoil the page.
		if value != "" && !slices.Contains(f.Desc.Tags, name) {
			f.Desc.Tags, values = append(f.Desc.Tags, name), append(values, value)
		}
	}
	if len(values) > 0 {
		f.Points = []metrics.Point{{Tags: values, Value: 1}}
	}
	return f
}

// labelName makes a tag's name one that every Prometheus takes for a label: what
// begins with two underscores, or with a digit, is none.
func labelName(tag string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, tag)
	if rest := strings.TrimLeft(name, "_"); rest != name || rest == "" || rest[0] <= '9' {
		return "_" + rest
	}
	return name
}
