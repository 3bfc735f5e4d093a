package checks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An object is the fields of a JSON object in their order: maps would lose it, and
// decoding a foreign document whole may take fifty times its length.
type object []objectField

type objectField struct {
	key   string
	value json.RawMessage // never empty
}

const maxFields = 10_000 // of one object, or elements of one list

// objectOf reads an object.
func objectOf(raw []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	var out object
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		if len(out) == maxFields {
			return nil, fmt.Errorf("more than %d fields", maxFields)
		}
		f := objectField{key: key.(string)}
		if err := d.Decode(&f.value); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	return out, nil
}

// listOf reads a list.
func listOf(raw []byte) ([]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var out []json.RawMessage
	for d.More() {
		if len(out) == maxFields {
			return nil, fmt.Errorf("more than %d elements", maxFields)
		}
		var e json.RawMessage
		if err := d.Decode(&e); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// raw is the value of a key, in whatever case; nil when there is none.
func (o object) raw(key string) json.RawMessage {
	for _, f := range o {
		if strings.EqualFold(f.key, key) {
			return f.value
		}
	}
	return nil
}

// text is the value of a key when it is text.
func (o object) text(key string) (string, bool) { return textOf(o.raw(key)) }

func textOf(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

// first is the first text or number that one of the keys has.
func (o object) first(keys ...string) string {
	for _, key := range keys {
		if s, _ := o.text(key); s != "" {
			return s
		}
		if raw := o.raw(key); len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9') {
			return string(raw)
		}
	}
	return ""
}

// message is what a check says of itself.
func (o object) message() string {
	if said := o.first("output", "message", "exception", "error", "description"); said != "" {
		return said
	}
	if details, err := objectOf(o.raw("details")); err == nil {
		if said := details.first("error", "message", "reason"); said != "" {
			return said
		}
	}
	if value := o.first("observedValue"); value != "" {
		return strings.TrimSpace("observed " + value + " " + o.first("observedUnit"))
	}
	return ""
}

// areChecks reports whether each field is a check.
func (o object) areChecks() bool {
	return len(o) > 0 && !slices.ContainsFunc(o, func(f objectField) bool { return !isCheck(f.value) })
}

// listed reports whether each element of a list is a check.
func listed(raw json.RawMessage) bool {
	elements, err := listOf(raw)
	return err == nil && len(elements) > 0 && !slices.ContainsFunc(elements, func(e json.RawMessage) bool { return !isCheck(e) })
}

// isCheck reports whether a value is an object with one of the words for a status.
func isCheck(raw json.RawMessage) bool {
	fields, err := objectOf(raw)
	if err != nil {
		return false
	}
	word, _ := fields.text("status")
	_, known := statusWords[strings.ToLower(word)]
	return known
}
