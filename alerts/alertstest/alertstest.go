// Package alertstest has recorded series by which tests judge rules, in the agent and in the back ends alike.
package alertstest

import (
	"bytes"
	"cmp"
	_ "embed" // the histories
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outrider-agent/outrider/alerts/rule"
)

// Step is the time between two samples, and between two evaluations.
const Step = 15 * time.Second

// Start is when histories begin. Read-only.
var Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

//go:embed histories.yaml
var histories []byte

// A History is a series, a rule on it, and when the rule raises.
type History struct {
	Name   string            `yaml:"name"`
	Rule   rule.Spec         `yaml:"rule"`
	Series map[string]string `yaml:"series"` // name and tags, as Prometheus writes them, to values, as promtool does
	Want   []Episode         `yaml:"want"`   // in the agent

	// Differs are back ends whose episodes are others, and why: a row of docs/alerts.md
	// each.
	Differs map[string]Difference `yaml:"differs"`
}

// A Difference is what a back end makes of a history that it sees differently.
type Difference struct {
	Why  string    `yaml:"why"`
	Want []Episode `yaml:"want"`
}

// An Episode is the time for which a rule had one level, such as "fail 3m-10m15s" from
// the history's start; without an end it goes on.
type Episode string

// Histories are all of them.
func Histories(t testing.TB) []History {
	t.Helper()
	var out []History
	d := yaml.NewDecoder(bytes.NewReader(histories))
	d.KnownFields(true)
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	for _, h := range out {
		if err := h.Rule.Validate(); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
	}
	return out
}

// Input is what a rule reads of series.
func Input(t testing.TB, r rule.Rule, series map[string]string, step time.Duration) (in rule.Input) {
	t.Helper()
	for id, values := range series {
		name, tags, err := parseID(id)
		if err != nil {
			t.Fatal(err)
		}
		points, err := Points(values, step)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		s := &rule.Recorded{Labels: tags, Grows: strings.HasSuffix(name, "_total"), Points: points}
		if selects(r.Series, name, tags) {
			in.Series = append(in.Series, s)
		}
		if r.All.Name != "" && selects(r.All, name, tags) {
			in.All = append(in.All, s)
		}
	}
	return in
}

func selects(s rule.Selector, name string, tags map[string]string) bool {
	for tag, v := range s.Tags {
		if tags[tag] != v {
			return false
		}
	}
	return s.Name == name && !s.Excepts(tags)
}

// Play replays a history through the agent's evaluator, at every step until it ends.
func Play(t testing.TB, h History) []Episode {
	t.Helper()
	r := h.Rule.Rule(h.Name)
	return Show(rule.Replay(r, Input(t, r, h.Series, Step), Start, Start.Add(Length(t, h.Series)), Step))
}

// Length is how long the longest of series is.
func Length(t testing.TB, series map[string]string) (d time.Duration) {
	t.Helper()
	for id, values := range series {
		n, err := Values(values)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		d = max(d, time.Duration(len(n)-1)*Step)
	}
	return d
}

// Show writes episodes.
func Show(episodes []rule.Episode) (out []Episode) {
	for _, e := range episodes {
		end := ""
		if !e.Ended.IsZero() {
			end = Short(e.Ended.Sub(Start))
		}
		out = append(out, Episode(fmt.Sprintf("%s %s-%s", e.Level, Short(e.Began.Sub(Start)), end)))
	}
	return out
}

// Short writes a time as episodes have it.
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Points are the samples of a series; those that are not there are left out, and a
// series that ends has a NaN there.
func Points(text string, step time.Duration) ([]rule.Point, error) {
	values, err := Values(text)
	if err != nil {
		return nil, err
	}
	var out []rule.Point
	for i, v := range values {
		if v != nil {
			out = append(out, rule.Point{At: Start.Add(time.Duration(i) * step), Value: *v})
		}
	}
	return out, nil
}

// sample is one or several values: 7, 0+10x5 (six of them), 5-1x3, 3x4, _ and _x4 for
// none, stale for the end of a series. Read-only.
var sample = regexp.MustCompile(`^(_|stale|-?[0-9.]+(?:e-?[0-9]+)?)(?:([+-][0-9.]+(?:e-?[0-9]+)?))?(?:x([0-9]+))?$`)

// Values reads promtool's notation of a series; nil is no sample.
func Values(text string) (out []*float64, err error) {
	for word := range strings.FieldsSeq(text) {
		m := sample.FindStringSubmatch(word)
		if m == nil {
			return nil, fmt.Errorf("got %q, want a value, 0+10x5, 3x4, _, _x4 or stale", word)
		}
		n, err := strconv.Atoi(cmp.Or(m[3], "0"))
		if err != nil {
			return nil, fmt.Errorf("got %q: %w", word, err)
		}
		switch m[1] {
		case "_":
			out = append(out, make([]*float64, max(1, n))...)
			continue
		case "stale":
			out = append(out, new(math.NaN()))
			continue
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, fmt.Errorf("got %q: %w", word, err)
		}
		step, err := strconv.ParseFloat(cmp.Or(m[2], "0"), 64)
		if err != nil {
			return nil, fmt.Errorf("got %q: %w", word, err)
		}
		for i := range n + 1 {
			out = append(out, new(v+step*float64(i)))
		}
	}
	return out, nil
}

// Read-only.
var (
	identity = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?$`)
	label    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

func parseID(id string) (name string, tags map[string]string, err error) {
	m := identity.FindStringSubmatch(id)
	if m == nil {
		return "", nil, fmt.Errorf("got the series %q, want name{tag=\"value\"}", id)
	}
	tags = map[string]string{}
	for _, l := range label.FindAllStringSubmatch(m[2], -1) {
		if l[1] == "job" || l[1] == "instance" { // which only a scraper adds
			continue
		}
		if tags[l[1]], err = strconv.Unquote(`"` + l[2] + `"`); err != nil {
			return "", nil, fmt.Errorf("got the series %q: %s: %w", id, l[1], err)
		}
	}
	return m[1], tags, nil
}

// Agree reports whether there are the same episodes, each beginning and ending at the
// same time, give or take.
func Agree(t testing.TB, want, got []Episode, give time.Duration) bool {
	t.Helper()
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		a, b := want[i].parts(t), got[i].parts(t)
		if a.level != b.level || (a.ended < 0) != (b.ended < 0) || (a.began-b.began).Abs() > give || (a.ended-b.ended).Abs() > give {
			return false
		}
	}
	return true
}

type parts struct {
	level        string
	began, ended time.Duration // since the start; ended is negative: it goes on
}

func (e Episode) parts(t testing.TB) parts {
	t.Helper()
	level, times, _ := strings.Cut(string(e), " ")
	from, to, ok := strings.Cut(times, "-")
	p := parts{level: level, ended: -1}
	var err error
	if p.began, err = time.ParseDuration(from); err != nil || !ok {
		t.Fatalf("got the episode %q, want one such as fail 3m-10m15s", e)
	}
	if to != "" {
		if p.ended, err = time.ParseDuration(to); err != nil {
			t.Fatalf("got the episode %q: %v", e, err)
		}
	}
	return p
}
