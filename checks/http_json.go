package checks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/nagios"
)

// HTTPJSON is what a value in a body must be. Without a condition it must be there.
type HTTPJSON struct {
	// Path leads to the value: keys and indexes, such as data.items[0].state; a key
	// with a dot in it is written ["a.b"].
	Path string `yaml:"path" required:"true"`

	Equals  *string       `yaml:"equals"`  // text, a number, true, false or null
	Matches string        `yaml:"matches"` // a regular expression
	Range   *nagios.Range `yaml:"range"`   // of a number
}

// A step of a path is a key, or an index when index is not negative.
type step struct {
	key   string
	index int
}

const maxSteps = 64

// A jsonWant is an [HTTPJSON] that was read.
type jsonWant struct {
	*HTTPJSON
	path    []step
	matches *regexp.Regexp
}

func (j *HTTPJSON) build() (*jsonWant, error) {
	w := &jsonWant{HTTPJSON: j}
	var err error
	if w.path, err = parsePath(j.Path); err != nil {
		return nil, &config.FieldError{Key: "json.path", Got: snippet(j.Path, 100) + ": " + err.Error(), Want: "a path such as data.items[0].state"}
	}
	if j.Matches != "" {
		if w.matches, err = regexp.Compile(j.Matches); err != nil {
			return nil, &config.FieldError{Key: "json.matches", Got: err.Error(), Want: "a regular expression"}
		}
	}
	return w, nil
}

func (w *jsonWant) limit() string {
	if w.Range == nil {
		return ""
	}
	return w.Range.String()
}

// judge holds the value to its conditions, and returns it when it is a number.
func (w *jsonWant) judge(body []byte) (*float64, error) {
	got, err := findJSON(body, w.path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.Path, err)
	}
	number, isNumber := jsonNumber(got)
	var v *float64
	if isNumber {
		v = &number
	}
	switch {
	case w.Equals != nil && !jsonEquals(got, *w.Equals):
		return v, fmt.Errorf("%s is %s, want %s", w.Path, snippet(got, 100), snippet(*w.Equals, 100))
	case w.matches != nil && !w.matches.MatchString(got):
		return v, fmt.Errorf("%s is %s, want a match of %s", w.Path, snippet(got, 100), snippet(w.Matches, 60))
	case w.Range != nil && !isNumber:
		return v, fmt.Errorf("%s is %s, want a number", w.Path, snippet(got, 100))
	case w.Range != nil && w.Range.Alerts(number):
		return v, fmt.Errorf("%s is %s, want %s", w.Path, snippet(got, 100), w.Range)
	}
	return v, nil
}

func jsonEquals(got, want string) bool {
	if got == want {
		return true
	}
	a, ok := jsonNumber(got)
	b, ok2 := jsonNumber(want)
	return ok && ok2 && a == b
}

func jsonNumber(text string) (float64, bool) {
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil && !math.IsInf(v, 0) && !math.IsNaN(v)
}

// parsePath reads a path. A $ at its beginning is left out.
func parsePath(text string) ([]step, error) {
	rest := strings.TrimPrefix(strings.TrimPrefix(text, "$"), ".")
	var out []step
	for rest != "" {
		if len(out) == maxSteps {
			return nil, fmt.Errorf("more than %d steps", maxSteps)
		}
		var s step
		var err error
		if s, rest, err = nextStep(rest); err != nil {
			return nil, err
		}
		out = append(out, s)
		if rest != "" && rest[0] != '[' {
			if rest[0] != '.' || len(rest) == 1 {
				return nil, fmt.Errorf("got %q, want . or [ and a step", rest)
			}
			rest = rest[1:]
		}
	}
	if len(out) == 0 {
		return nil, errors.New("it has no step")
	}
	return out, nil
}

func nextStep(rest string) (s step, after string, err error) {
	if rest[0] != '[' {
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		if end == 0 {
			return s, "", fmt.Errorf("got %q, want a key", rest)
		}
		return step{rest[:end], -1}, rest[end:], nil
	}
	if strings.HasPrefix(rest, `["`) {
		key, err := strconv.QuotedPrefix(rest[1:])
		if err != nil || !strings.HasPrefix(rest[1+len(key):], "]") {
			return s, "", fmt.Errorf(`got %q, want ["key"]`, rest)
		}
		after = rest[len(key)+2:]
		if key, err = strconv.Unquote(key); err != nil {
			return s, "", fmt.Errorf(`got %q, want ["key"]`, rest)
		}
		return step{key, -1}, after, nil
	}
	digits, after, ok := strings.Cut(rest[1:], "]")
	index, err := strconv.ParseUint(digits, 10, 31)
	if !ok || err != nil {
		return s, "", fmt.Errorf("got %q, want an index such as [0]", rest)
	}
	return step{index: int(index)}, after, nil
}

// findJSON returns the text, number, true, false or null at the end of a path. It
// walks the body token by token, because decoding it whole may take fifty times
// its length.
func findJSON(body []byte, path []step) (string, error) {
	if !json.Valid(body) {
		return "", fmt.Errorf("got what is no JSON%s", begins(body))
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	for i, s := range path {
		token, err := d.Token()
		if err != nil {
			return "", err
		}
		if err := enter(d, token, s); err != nil {
			return "", fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	token, err := d.Token()
	if err != nil {
		return "", err
	}
	switch v := token.(type) {
	case json.Delim:
		return "", fmt.Errorf("got %s, want text, a number, true, false or null", kindOf(token))
	case nil:
		return "null", nil
	default:
		return fmt.Sprint(v), nil
	}
}

// enter moves the decoder, which has read token, to the value that the step leads to.
func enter(d *json.Decoder, token json.Token, s step) error {
	want, name := json.Delim('{'), fmt.Sprintf("key %q", snippet(s.key, 60))
	if s.index >= 0 {
		want, name = '[', fmt.Sprintf("index %d", s.index)
	}
	if token != want {
		return fmt.Errorf("got %s, want one with %s", kindOf(token), name)
	}
	for n := 0; d.More(); n++ {
		if want == '[' {
			if n == s.index {
				return nil
			}
		} else {
			key, err := d.Token()
			if err != nil {
				return err
			}
			if key == s.key {
				return nil
			}
		}
		if err := skip(d); err != nil {
			return err
		}
	}
	return fmt.Errorf("got no %s", name)
}

// skip passes over one value.
func skip(d *json.Decoder) error {
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func kindOf(token json.Token) string {
	switch v := token.(type) {
	case json.Delim:
		if v == '{' {
			return "an object"
		}
		return "a list"
	case string:
		return "text"
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	}
	return "null"
}
