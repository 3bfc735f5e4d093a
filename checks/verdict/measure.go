package verdict

import (
	"encoding/json"
	"math"
)

// MaxMeasures is how many measures one result has at most.
const MaxMeasures = 50

// maxLabel is the length of a measure's words, in bytes: Nagios wants labels to
// differ in their first 19 characters.
const maxLabel = 100

// A Measure is one figure of a result, in the terms of Nagios' performance data.
// In JSON a value that is not known is null.
type Measure struct {
	Label      string
	Value      float64  // NaN: not known
	Unit       string   // as Nagios writes it: s, ms, us, %, B, KB, MB, GB, TB, c or none
	Warn, Crit string   // ranges; empty: none
	Min, Max   *float64 // nil: none
}

type measureJSON struct {
	Label string   `json:"label"`
	Value *float64 `json:"value"`
	Unit  string   `json:"unit,omitempty"`
	Warn  string   `json:"warn,omitempty"`
	Crit  string   `json:"crit,omitempty"`
	Min   *float64 `json:"min,omitempty"`
	Max   *float64 `json:"max,omitempty"`
}

// MarshalJSON is what a digest shows.
func (m Measure) MarshalJSON() ([]byte, error) {
	return json.Marshal(measureJSON{m.Label, finite(&m.Value), m.Unit, m.Warn, m.Crit, finite(m.Min), finite(m.Max)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *Measure) UnmarshalJSON(text []byte) error {
	var j measureJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*m = Measure{Label: j.Label, Value: math.NaN(), Unit: j.Unit, Warn: j.Warn, Crit: j.Crit, Min: j.Min, Max: j.Max}
	if j.Value != nil {
		m.Value = *j.Value
	}
	return nil
}

// clean makes a result fit to be shown, and independent of the check's variables.
func (r Result) clean() Result {
	if !r.Status.valid() {
		r.Status = Unknown
	}
	r.Message = Clean(r.Message)
	r.Unit = short(r.Unit)
	r.Value = finite(r.Value)
	var kept []Measure
	for _, m := range r.Measures {
		if len(kept) == MaxMeasures {
			break
		}
		m.Label, m.Unit, m.Warn, m.Crit = short(m.Label), short(m.Unit), short(m.Warn), short(m.Crit)
		if m.Label == "" || math.IsInf(m.Value, 0) {
			continue
		}
		m.Min, m.Max = finite(m.Min), finite(m.Max)
		kept = append(kept, m)
	}
	r.Measures = kept
	return r
}

// finite is a copy of a number; nil for what JSON has no word for.
func finite(v *float64) *float64 {
	if v == nil || math.IsNaN(*v) || math.IsInf(*v, 0) {
		return nil
	}
	c := *v
	return &c
}

func short(s string) string { return Clean(s[:min(len(s), maxLabel)]) }
