package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Error is one mistake in a configuration file.
type Error struct {
	File   string
	Line   int    // from 1
	Column int    // in characters, from 1; 0: the line says enough
	Key    string // full path: statesync.sinks[0].webhook.url; empty when the file as a whole is wrong
	Got    string
	Want   string // empty when Got says it all
}

// Error gives file:line: key: got this, want that; with a column,
// file:line:column.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", e.File, e.Line)
	if e.Column > 0 {
		b.Reset()
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	if e.Want == "" {
		b.WriteString(e.Got)
		return b.String()
	}
	fmt.Fprintf(&b, "got %s, want %s", e.Got, e.Want)
	return b.String()
}

// Errors are all mistakes of one file, sorted by line.
type Errors []*Error

// Error gives one mistake a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each mistake.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, err := range e {
		out[i] = err
	}
	return out
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Got, b.Got))
	})
}

// A FieldError is what a Validate method returns, alone or through
// [errors.Join]; the decoder adds file, line and the path above Key.
type FieldError struct {
	Key  string // relative to the struct: url, tls.ca_file, headers[2]; empty means the struct itself
	Got  string // must hold no secret
	Want string

	// Line and Column are a place within the key's text, both from 1, Column
	// in characters. 0: the text as a whole.
	Line, Column int
}

// Error gives the mistake as it reads outside a file.
func (e *FieldError) Error() string {
	return fmt.Sprintf("%s: got %s, want %s", e.Key, e.Got, e.Want)
}

// show makes text fit in an error's one line.
func show(s string) string {
	const limit = 80
	if utf8.RuneCountInString(s) > limit {
		s = string([]rune(s)[:limit]) + "..."
	}
	if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// didYouMean returns a hint such as " (did you mean url?)" when a known word
// is near: at most a third of its letters differ.
func didYouMean(word string, known []string) string {
	best, nearest := "", len(word)/3+2
	if len(word) > 64 {
		return ""
	}
	for _, k := range known {
		if dist := distance(strings.ToLower(word), k); dist < nearest && dist <= max(1, len(k)/3) {
			best, nearest = k, dist
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
