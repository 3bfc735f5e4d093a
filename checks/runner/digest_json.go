package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// The JSON form. The names up to output, and those up to links of a check, are the
// draft's; it wants clients to ignore the others, which are ours. Two things are
// not as it has them: unknown is a status, because a check that cannot tell neither
// passes nor fails, and a check that passes may have an output, because what it
// measured is worth a sentence.
type digestJSON struct {
	Status      verdict.Status `json:"status"`
	Version     string         `json:"version,omitempty"`
	ReleaseID   string         `json:"releaseId,omitempty"`
	Notes       []string       `json:"notes,omitempty"`
	Output      string         `json:"output,omitempty"`
	ServiceID   string         `json:"serviceId,omitempty"`
	Description string         `json:"description,omitempty"`

	Host        string     `json:"host"`
	PID         int        `json:"pid"`
	Time        time.Time  `json:"time"`
	Since       time.Time  `json:"since"`
	Fingerprint string     `json:"fingerprint"`
	Failing     []string   `json:"failing"`
	Checks      checksJSON `json:"checks"`
}

type checkJSON struct {
	Status verdict.Status    `json:"status"`
	Value  *float64          `json:"observedValue,omitempty"`
	Unit   string            `json:"observedUnit,omitempty"`
	Time   *time.Time        `json:"time,omitempty"`
	Output string            `json:"output,omitempty"`
	Links  map[string]string `json:"links,omitempty"`

	Found        verdict.Status       `json:"found"`
	Category     verdict.Category     `json:"category"`
	Groups       []string             `json:"groups"`
	Since        time.Time            `json:"since"`
	Took         float64              `json:"took"`
	Runs         uint64               `json:"runs"`
	Changes      uint64               `json:"changes"`
	History      string               `json:"history"`
	Stale        bool                 `json:"stale"`
	Flapping     bool                 `json:"flapping"`
	Runbook      string               `json:"runbook,omitempty"`
	DependsOn    []string             `json:"depends_on,omitempty"`
	Because      string               `json:"because,omitempty"`
	Acknowledged *verdict.Ack         `json:"acknowledged,omitempty"`
	Maintenance  *verdict.Maintenance `json:"maintenance,omitempty"`
	Healing      *verdict.Healing     `json:"healing,omitempty"`
	Measures     []verdict.Measure    `json:"measures,omitempty"`
}

// checksJSON is an object of one array a check, in the digest's own order: the
// worst is what a person reads first.
type checksJSON []CheckDigest

// MarshalJSON writes the digest as application/health+json.
func (d Digest) MarshalJSON() ([]byte, error) {
	return encode(digestJSON{
		d.Status, d.Version, d.ReleaseID, d.Notes, d.Output, d.ServiceID, d.Description,
		d.Host, d.PID, d.Time, d.Since, d.Fingerprint, d.Failing, d.Checks,
	})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *Digest) UnmarshalJSON(text []byte) error {
	j := digestJSON{Notes: []string{}}
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*d = Digest{
		j.Status, j.Version, j.ReleaseID, j.ServiceID, j.Description, j.Notes, j.Output,
		j.Host, j.PID, j.Time, j.Since, j.Fingerprint, j.Failing, j.Checks,
	}
	return nil
}

func (all checksJSON) MarshalJSON() ([]byte, error) {
	return object(all, func(c CheckDigest) any {
		j := checkJSON{
			Status: c.Status, Value: c.Value, Unit: c.Unit, Time: c.LastRun, Output: c.Message,
			Found: c.Found, Category: c.Category, Groups: c.Groups, Since: c.Since, Took: c.TookSeconds,
			Runs: c.Runs, Changes: c.Changes, History: c.History, Stale: c.Stale, Flapping: c.Flapping, Runbook: c.Runbook,
			DependsOn: c.DependsOn, Because: c.Because, Acknowledged: c.Acknowledged, Maintenance: c.Maintenance,
			Healing: c.Healing, Measures: c.Measures,
		}
		if c.Runbook != "" {
			j.Links = map[string]string{"runbook": c.Runbook}
		}
		return j
	})
}

// object writes checks as an object of one array of one object each, in order.
func object(checks []CheckDigest, of func(CheckDigest) any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, c := range checks {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := encode(c.Name)
		if err != nil {
			return nil, err
		}
		text, err := encode(of(c))
		if err != nil {
			return nil, fmt.Errorf("check %s: %w", c.Name, err)
		}
		b.Write(name)
		b.WriteString(":[")
		b.Write(text)
		b.WriteByte(']')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (all *checksJSON) UnmarshalJSON(text []byte) error {
	*all = checksJSON{}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("checks: got %v, want an object", t)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var list []checkJSON
		if err := d.Decode(&list); err != nil || len(list) != 1 {
			return errors.Join(fmt.Errorf("check %v: got %d objects, want an array of one", name, len(list)), err)
		}
		j := list[0]
		*all = append(*all, CheckDigest{
			Name: name.(string), Status: j.Status, Found: j.Found, Category: j.Category, Groups: j.Groups, Message: j.Output,
			Value: j.Value, Unit: j.Unit, Since: j.Since, LastRun: j.Time, TookSeconds: j.Took, Runs: j.Runs, Changes: j.Changes,
			History: j.History, Runbook: j.Runbook, Stale: j.Stale, Flapping: j.Flapping, DependsOn: j.DependsOn, Because: j.Because,
			Measures: j.Measures, Acknowledged: j.Acknowledged, Maintenance: j.Maintenance, Healing: j.Healing,
		})
	}
	return nil
}

// renderJSON writes a digest, or only names and statuses, on one line.
func renderJSON(d Digest, full bool) []byte {
	document := any(d)
	if !full {
		type status struct {
			Status verdict.Status `json:"status"`
		}
		checks, err := object(d.Checks, func(c CheckDigest) any { return status{c.Status} })
		if err != nil {
			panic(errors.Join(errors.New("BUG: names and statuses cannot be encoded"), err))
		}
		document = struct {
			Status verdict.Status  `json:"status"`
			Checks json.RawMessage `json:"checks"`
		}{d.Status, checks}
	}
	text, err := encode(document)
	if err != nil {
		panic(errors.Join(errors.New("BUG: a digest cannot be encoded"), err))
	}
	return append(text, '\n')
}

// encode is json.Marshal without the escapes of HTML: a digest is never shown as
// that, and <= reads better.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
