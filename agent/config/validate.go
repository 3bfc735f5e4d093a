package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// validate asks the struct itself, and puts what it finds at the key's line.
func (d *decoder) validate(v reflect.Value, n *yaml.Node, k key) {
	val, ok := reflect.TypeAssert[interface{ Validate() error }](v.Addr())
	if !ok {
		return
	}
	var place func(err error)
	place = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				place(e)
			}
			return
		}
		var f *FieldError
		if !errors.As(err, &f) {
			d.fail(k, show(err.Error()), "")
			return
		}
		at := k
		if f.Key != "" {
			at.path = strings.TrimPrefix(k.path+"."+f.Key, ".")
		}
		var text *yaml.Node
		text, at.line = locate(n, f.Key, k.line)
		if f.Line < 1 {
			d.fail(at, f.Got, f.Want)
			return
		}
		line, column, ok := d.place(text, f.Line, f.Column)
		if !ok {
			d.fail(at, fmt.Sprintf("%s (line %d, column %d of the text)", f.Got, f.Line, f.Column), f.Want)
			return
		}
		d.errs = append(d.errs, &Error{File: d.file, Line: line, Column: column, Key: at.path, Got: f.Got, Want: f.Want})
	}
	if err := val.Validate(); err != nil {
		place(err)
	}
}

// place finds in the file a place within a text. It is not found where the
// file's own text is another: folded lines, escapes, the environment's values.
func (d *decoder) place(n *yaml.Node, line, column int) (int, int, bool) {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.ScalarNode || strings.Contains(n.Value, "$$") || strings.Contains(n.Value, "${") {
		return 0, 0, false
	}
	texts := strings.Split(n.Value, "\n")
	at := n.Line + line - 1 // of the first line that counts, from 0
	block := n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if !block {
		at = n.Line - 1
	}
	if line > len(texts) || at >= len(d.lines) || !block && len(texts) > 1 {
		return 0, 0, false
	}
	text, source := texts[line-1], strings.TrimRight(d.lines[at], "\r")
	if block {
		indent, ok := strings.CutSuffix(source, text)
		return at + 1, len(indent) + column, ok && text != "" && strings.Trim(indent, " ") == ""
	}
	runes := []rune(source)
	if n.Column < 1 || n.Column > len(runes) {
		return 0, 0, false
	}
	rest := string(runes[n.Column-1:])
	if n.Anchor != "" {
		rest = strings.TrimLeft(strings.TrimPrefix(rest, "&"+n.Anchor), " \t")
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		rest = rest[min(len(rest), 1):]
	}
	return at + 1, len(runes) - utf8.RuneCountInString(rest) + column, strings.HasPrefix(rest, text)
}

// locate finds a key such as tls.ca or headers[2] below n, and its line; where
// it is not, nil and the line of the nearest above it.
func locate(n *yaml.Node, path string, line int) (*yaml.Node, int) {
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		for n != nil && n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		switch i, err := strconv.Atoi(step); {
		case n == nil:
		case n.Kind == yaml.SequenceNode && err == nil && i >= 0 && i < len(n.Content):
			next = n.Content[i]
			line = next.Line
		case n.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					next, line = n.Content[i+1], n.Content[i].Line
				}
			}
		}
		n = next
	}
	return n, line
}
