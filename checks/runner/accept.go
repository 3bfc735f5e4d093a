package runner

import (
	"fmt"
	"strconv"
	"strings"
)

// A form is a way to render a digest.
type form int8

const (
	healthForm form = iota // application/health+json
	jsonForm               // the same bytes as application/json
	textForm
	nagiosForm
	openMetricsForm
	prometheusForm
	wordForm // one word
)

// formats are the values of ?format=. Read-only.
var formats = map[string]form{
	"json": healthForm, "text": textForm, "nagios": nagiosForm, "openmetrics": openMetricsForm, "prometheus": prometheusForm,
}

// offers are the forms to choose from by an Accept header, what is liked best
// first. Prometheus asks for its text with a version, people without. Read-only.
var offers = []struct {
	form               form
	kind, sub, version string
}{
	{healthForm, "application", "health+json", ""},
	{jsonForm, "application", "json", ""},
	{textForm, "text", "plain", ""},
	{openMetricsForm, "application", "openmetrics-text", ""},
	{prometheusForm, "text", "plain", "0.0.4"},
}

func (f form) contentType() string {
	switch f {
	case healthForm:
		return "application/health+json"
	case jsonForm:
		return "application/json; charset=utf-8"
	case openMetricsForm:
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	case prometheusForm:
		return "text/plain; version=0.0.4; charset=utf-8"
	}
	return "text/plain; charset=utf-8"
}

// parseFormat reads ?format= and ?verbose, which says text as the Kubernetes API
// server does; without them the Accept header decides.
func parseFormat(format string, verbose bool, accept []string) (form, error) {
	switch f, ok := formats[format]; {
	case ok:
		return f, nil
	case format != "":
		return 0, fmt.Errorf("format %.50q, want json, text, nagios, openmetrics or prometheus", format)
	case verbose:
		return textForm, nil
	}
	return negotiate(accept), nil
}

// A mediaRange is one item of an Accept header.
type mediaRange struct {
	kind, sub, version string
	quality            float64
}

// negotiate chooses the form that an Accept header likes best: the range that
// names an offer most exactly decides on its quality, as RFC 9110 has it. Who asks
// for nothing that there is gets the first: an answer is better than none.
func negotiate(accept []string) form {
	if len(accept) == 0 {
		return offers[0].form
	}
	ranges := parseAccept(accept)
	best, quality := offers[0].form, 0.0
	for _, o := range offers {
		exact, q := -1, 0.0
		for _, r := range ranges {
			if n := r.names(o.kind, o.sub, o.version); n > exact {
				exact, q = n, r.quality
			}
		}
		if q > quality {
			best, quality = o.form, q
		}
	}
	return best
}

// names tells how exactly the range names an offer; -1: not at all.
func (r mediaRange) names(kind, sub, version string) int {
	switch {
	case r.kind == "*" && r.sub == "*":
		return 0
	case r.kind != kind:
		return -1
	case r.sub == "*":
		return 1
	case r.sub != sub || version != "" && r.version != version || version == "" && r.version == "0.0.4":
		return -1
	}
	return 2
}

// maxRanges is how many items of a header are read.
const maxRanges = 32

// parseAccept leaves out what it cannot read.
func parseAccept(accept []string) (out []mediaRange) {
	for _, line := range accept {
		for item := range strings.SplitSeq(line, ",") {
			media, params, _ := strings.Cut(item, ";")
			kind, sub, ok := strings.Cut(strings.ToLower(strings.TrimSpace(media)), "/")
			if !ok || kind == "*" && sub != "*" {
				continue
			}
			r := mediaRange{kind: kind, sub: sub, quality: 1}
			for p := range strings.SplitSeq(params, ";") {
				key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
				switch strings.ToLower(key) {
				case "q":
					q, err := strconv.ParseFloat(value, 64)
					if err != nil || !(q >= 0 && q <= 1) { // not a number is neither
						q = 0
					}
					r.quality = q
				case "version":
					r.version = strings.Trim(value, `"`)
				}
			}
			if out = append(out, r); len(out) == maxRanges {
				return out
			}
		}
	}
	return out
}
