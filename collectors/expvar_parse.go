package collectors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/metrics"
)

const (
	expvarMaxDepth   = 8    // of maps in maps; deeper ones are left out
	expvarMaxNesting = 1000 // of what is left out: more is no text of variables
	expvarMaxName    = 1024 // bytes of a name, and of a tag's value
)

// Reasons for which numbers are dropped, beside those of texts of metrics.
const (
	expvarDropDeep = "too_deep" // a map with all that is in it
	expvarDropName = "name"
)

// expvarCounters are the counts in memstats. Read-only.
var expvarCounters = []string{
	"memstats_TotalAlloc", "memstats_Lookups", "memstats_Mallocs", "memstats_Frees",
	"memstats_PauseTotalNs", "memstats_NumGC", "memstats_NumForcedGC",
}

// expvarRules say what becomes of variables.
type expvarRules struct {
	limit    int
	tags     map[string][]string
	counters []string
}

// An expvarSample is one number.
type expvarSample struct {
	name         string
	rule         string   // the name of the map that gave the tags
	names, tags  []string // of tags, and their values
	value        float64
	isCumulative bool
}

// An expvarReader reads one text.
type expvarReader struct {
	expvarRules
	dec    *json.Decoder
	vars   map[string][]expvarSample // by variable
	counts map[string]int            // numbers in each; more than limit are not kept
	kept   int
	read   promRead
}

// parse reads the variables to the end. An error says what the text has that is
// no JSON, or why it was not read whole; what is complete by then is returned
// beside it. Of too many numbers the variables with most of them are left out.
func (r expvarRules) parse(text io.Reader) ([]metrics.Family, promRead, error) {
	p := &expvarReader{
		expvarRules: r, dec: json.NewDecoder(text), vars: map[string][]expvarSample{}, counts: map[string]int{},
		read: promRead{dropped: map[string]int64{}, cut: map[string]int64{}},
	}
	p.dec.UseNumber()
	err := p.variables()
	return p.families(), p.read, err
}

func (p *expvarReader) variables() error {
	token, err := p.dec.Token()
	if err != nil {
		return expvarEnd(err)
	}
	if token != json.Delim('{') {
		return fmt.Errorf("got %s, want an object", promShow(fmt.Sprint(token)))
	}
	for p.dec.More() {
		key, err := p.dec.Token()
		if err != nil {
			return expvarEnd(err)
		}
		name, _ := key.(string)
		if err := p.value(name, expvarSample{name: promSanitize(name, false)}, 1); err != nil {
			p.leave(name) // it may be half read
			p.read.dropped[promDropTruncated] += int64(p.counts[name])
			delete(p.counts, name)
			return expvarEnd(err)
		}
	}
	_, err = p.dec.Token()
	return expvarEnd(err)
}

func expvarEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &scrapeError{"truncated", errors.New("got the end of the text within it, want JSON to its end")}
	}
	return err
}

// value reads one value, and keeps the numbers in it. at is its place.
func (p *expvarReader) value(variable string, at expvarSample, depth int) error {
	token, err := p.dec.Token()
	if err != nil {
		return err
	}
	switch v := token.(type) {
	case json.Number:
		// One that no float can hold is read as infinite.
		f, err := v.Float64()
		if err != nil && !math.IsInf(f, 0) {
			return err
		}
		p.keep(variable, at, f)
	case bool:
		f := 0.0
		if v {
			f = 1
		}
		p.keep(variable, at, f)
	case json.Delim:
		if v == '[' || depth > expvarMaxDepth {
			if v == '{' {
				p.drop(expvarDropDeep, fmt.Errorf("%s: got maps within maps more than %d deep, want less", promShow(at.name), expvarMaxDepth))
			}
			return p.skip()
		}
		for p.dec.More() {
			key, err := p.dec.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if err := p.value(variable, p.below(at, name), depth+1); err != nil {
				return err
			}
		}
		_, err := p.dec.Token()
		return err
	}
	return nil
}

// below is the place of a key in a map: one more tag, if the map is one of those
// that Tags names, or a longer name.
func (p *expvarReader) below(at expvarSample, key string) expvarSample {
	if names := p.tags[at.name]; len(at.tags) < len(names) && (at.rule == "" || at.rule == at.name) {
		at.rule, at.names = at.name, names[:len(at.tags)+1]
		at.tags = append(slices.Clone(at.tags), key)
		return at
	}
	at.name += promSanitize("_"+key, false)
	return at
}

// skip reads to the end of a map or list whose beginning was read.
func (p *expvarReader) skip() error {
	for depth := 1; depth > 0; {
		token, err := p.dec.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > expvarMaxNesting {
				return fmt.Errorf("got lists and maps more than %d deep, want less", expvarMaxNesting)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
	return nil
}

func (p *expvarReader) drop(reason string, err error) {
	p.read.bad++
	p.read.dropped[reason]++
	if p.read.first == nil {
		p.read.first = err
	}
}

func (p *expvarReader) keep(variable string, s expvarSample, v float64) {
	p.read.samples++
	tooLong := func(s string) bool { return len(s) > expvarMaxName }
	if s.name == "" || tooLong(s.name) || slices.ContainsFunc(s.tags, tooLong) {
		p.drop(expvarDropName, fmt.Errorf("got the name %s, want one of 1 to %d bytes", promShow(s.name), expvarMaxName))
		return
	}
	if _, known := p.counts[variable]; !known && len(p.counts) >= p.limit {
		p.read.cut[promOthers]++
		p.read.dropped[promDropLimit]++
		return
	}
	if p.counts[variable]++; p.counts[variable] > len(p.vars[variable])+1 {
		return // left out already
	}
	s.value = v
	s.isCumulative = slices.Contains(expvarCounters, s.name) || slices.ContainsFunc(p.counters, func(c string) bool { return expvarMatch(c, s.name) })
	p.vars[variable] = append(p.vars[variable], s)
	if p.kept++; p.kept > p.limit {
		p.leave(p.largest())
	}
}

// largest is the variable with the most numbers kept.
func (p *expvarReader) largest() (name string) {
	for v, samples := range p.vars {
		if n := len(p.vars[name]); len(samples) > n || len(samples) == n && v < name {
			name = v
		}
	}
	return name
}

// leave leaves a variable out.
func (p *expvarReader) leave(variable string) {
	p.kept -= len(p.vars[variable])
	delete(p.vars, variable)
}

// expvarMatch holds a name to a pattern in which * stands for any text.
func expvarMatch(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	last := len(parts) - 1
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for _, part := range parts[1:last] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return strings.HasSuffix(name, parts[last])
}

// families returns what was kept, sorted. Of two numbers in one place the first
// counts, and so does the first type of a name.
func (p *expvarReader) families() []metrics.Family {
	for variable, n := range p.counts {
		if _, kept := p.vars[variable]; !kept {
			p.read.cut[variable] += int64(n)
			p.read.dropped[promDropLimit] += int64(n)
		}
	}
	byName := map[string]*promFamily{}
	var shared promShared
	for _, variable := range slices.Sorted(maps.Keys(p.vars)) {
		for _, s := range p.vars[variable] {
			typ := metrics.GaugeType
			if s.isCumulative {
				typ, s.name = metrics.CounterType, strings.TrimSuffix(s.name, "_total")+"_total"
			}
			f := byName[s.name]
			if f == nil {
				group := &promGroup{help: "Variable " + promCut(variable) + " of the neighbour."}
				f = &promFamily{name: s.name, typ: typ, group: group}
				byName[s.name] = f
			}
			var labels []promLabel
			for i, v := range s.tags {
				if v != "" {
					labels = append(labels, promLabel{s.names[i], v})
				}
			}
			slices.SortFunc(labels, func(a, b promLabel) int { return strings.Compare(a.name, b.name) })
			switch {
			case f.typ != typ:
				p.drop(promDropConflict, fmt.Errorf("%s: got it as %s and as %s, want one type", s.name, f.typ, typ))
			case f.find(labels) != nil:
				p.drop(promDropDuplicate, fmt.Errorf("%s: got it twice, want it once", s.name))
			default:
				if added := f.add(&shared, labels); added != nil {
					added.value = s.value
					continue
				}
				p.drop(promDropLabels, fmt.Errorf("%s: got more than %d tags on its series, want at most so many", s.name, promMaxLabels))
			}
		}
	}
	out := make([]metrics.Family, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		f := byName[name]
		f.order(&shared)
		f.describe(p.limit)
		out = append(out, metrics.Family{Desc: f.desc, Points: f.points(0)})
	}
	return out
}
