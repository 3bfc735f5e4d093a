package story

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

const (
	maxSeq  = 1 << 60 // of any seq or number: far from where adding to it goes wrong
	maxText = 1024    // bytes of an ID, a source, a subject or a gap's stream
	maxWord = 64      // bytes of a state, a cause or a reason
)

// An Event is what a receiver needs of one event to tell whether it has
// everything. The fields of the other types are empty; so are all but the
// first four of a type that is not known.
type Event struct {
	ID      string
	Type    string
	Source  string
	Subject string
	Time    time.Time

	// Of a change, and of a gap as far as it has them.
	Change

	Gap  *statesync.Gap  // of a gap
	Mark *statesync.Mark // of a mark
}

// A Change is what the proof needs of a change's data.
type Change struct {
	From     statesync.State  `json:"from"`
	To       statesync.State  `json:"to"`
	Seq      int64            `json:"seq"`
	Previous int64            `json:"previous"`
	Skipped  []statesync.Skip `json:"skipped"`
	Number   int64            `json:"number"`
	Epoch    int64            `json:"epoch"`
	Initial  bool             `json:"initial"`
	Replayed bool             `json:"replayed"`
}

// Decode reads one event in structured JSON. Fields and types that it does
// not know pass: later versions may have more.
func Decode(b []byte) (Event, error) {
	var raw struct {
		SpecVersion string          `json:"specversion"`
		ID          string          `json:"id"`
		Source      string          `json:"source"`
		Type        string          `json:"type"`
		Subject     string          `json:"subject"`
		Time        time.Time       `json:"time"`
		Data        json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return Event{}, fmt.Errorf("event: %w", err)
	}
	e := Event{ID: raw.ID, Type: raw.Type, Source: raw.Source, Subject: raw.Subject, Time: raw.Time}
	switch {
	case raw.SpecVersion != "1.0":
		return Event{}, fmt.Errorf("event: specversion %.20q, want 1.0", raw.SpecVersion)
	case e.ID == "" || e.Source == "" || e.Type == "":
		return Event{}, errors.New("event: no id, source or type")
	case len(e.ID) > maxText || len(e.Source) > maxText || len(e.Subject) > maxText:
		return Event{}, fmt.Errorf("event: an id, source or subject of more than %d bytes", maxText)
	}
	if err := e.decodeData(raw.Data); err != nil {
		return Event{}, fmt.Errorf("event %s: %w", e.ID, err)
	}
	return e, nil
}

func (e *Event) decodeData(data json.RawMessage) error {
	var err error
	switch e.Type {
	case statesync.EventType:
		if err = unmarshal(data, &e.Change); err == nil && e.To == "" {
			err = errors.New("no state")
		}
	case statesync.GapEventType:
		e.Gap = &statesync.Gap{}
		// Its own from and to are times under other names.
		if err = unmarshal(data, e.Gap); err == nil {
			err = unmarshal(data, &e.Change)
		}
		if err == nil && (e.Gap.Stream == "" || len(e.Gap.Stream) > maxText || len(e.Gap.Reason) > maxWord || e.Gap.FromNumber < 0 || e.Gap.ToNumber > maxSeq) {
			err = fmt.Errorf("gap of stream %.100q, numbers %d..%d", e.Gap.Stream, e.Gap.FromNumber, e.Gap.ToNumber)
		}
	case statesync.MarkEventType:
		e.Mark = &statesync.Mark{}
		if err = unmarshal(data, e.Mark); err != nil {
			return err
		}
		if m := *e.Mark; m.Previous < 0 || m.Number < m.Previous || m.Number > maxSeq || m.Changes < 0 || m.Skipped < 0 || m.Waiting < 0 {
			return fmt.Errorf("mark %+v", m)
		}
		return nil
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return e.check()
}

func unmarshal(data json.RawMessage, into any) error {
	if len(data) == 0 {
		return errors.New("no data")
	}
	return json.Unmarshal(data, into)
}

// check refuses numbers that no agent sends.
func (e *Event) check() error {
	switch {
	case e.Seq < 1 || e.Seq > maxSeq:
		return fmt.Errorf("seq %d, want 1 or more", e.Seq)
	case e.Previous < 0 || e.Previous >= e.Seq && !e.Initial:
		return fmt.Errorf("previous %d, want 0 to %d, below its seq", e.Previous, e.Seq-1)
	case e.Epoch < 1:
		return fmt.Errorf("epoch %d, want 1 or more", e.Epoch)
	case e.Number < 0 || e.Number > maxSeq:
		return fmt.Errorf("number %d, want 0 or more", e.Number)
	}
	if len(e.From) > maxWord || len(e.To) > maxWord {
		return fmt.Errorf("from %.40q to %.40q, want words of %d bytes at most", e.From, e.To, maxWord)
	}
	for _, s := range e.Skipped {
		if s.From < 1 || s.To < s.From || s.To > maxSeq || s.Cause == "" || len(s.Cause) > maxWord {
			return fmt.Errorf("skipped %d..%d (%.40q), want a run and its cause", s.From, s.To, s.Cause)
		}
	}
	return nil
}

// DecodeBatch reads a JSON array of events, and returns each also as it came.
// One that cannot be read makes the batch one that cannot, and ends the
// reading: a body of a million numbers is not a million events.
func DecodeBatch(b []byte) ([]Event, [][]byte, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, nil, errors.Join(errors.New("batch: want an array"), err)
	}
	var events []Event
	var texts [][]byte
	for d.More() {
		var raw json.RawMessage
		err := d.Decode(&raw)
		var e Event
		if err == nil {
			e, err = Decode(raw)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("batch: number %d: %w", len(events)+1, err)
		}
		events, texts = append(events, e), append(texts, bytes.TrimSpace(raw))
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, fmt.Errorf("batch: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("batch: more after its end")
	}
	return events, texts, nil
}

// clusterOf is the part of a source that names the cluster, /clusters/ID:
// numbers are of one cluster's log.
func clusterOf(source string) string {
	const prefix = "/clusters/"
	rest, ok := strings.CutPrefix(source, prefix)
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "/")
	return prefix + id
}
