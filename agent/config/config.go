// Package config reads the agent's one strict YAML file into structs.
//
// The rules: an unknown or repeated key, a wrong type and a missing required
// key are errors; every error names file, line, the full key, what it got and
// what it wants; all of them are reported at once, sorted by line. Text values
// may hold ${NAME} and ${NAME:-default} from the environment; $$ is a dollar
// sign. A null value means that the key was not given. Merge keys and tags of
// one's own are refused: a configuration should read the same to everyone.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxFileBytes bounds a configuration file: a larger one is a mistake, or an
// attempt to make the parser work.
const MaxFileBytes = 1 << 20

// Kinds is a family's table: the name of a kind, and a function that returns a
// pointer to a new configuration struct of it.
type Kinds map[string]func() any

// Options say what a file may hold beyond the agent's own keys.
type Options struct {
	// Sections maps a top-level key to a pointer to the struct, slice or map
	// that receives it. Defaults are applied also when the key is missing;
	// Validate and required keys only count when it is there.
	Sections map[string]any

	// Kinds maps the path of a list of items, such as statesync.sinks, to its
	// table. A list of [Item] without a table is a bug and panics.
	Kinds map[string]Kinds

	// Getenv looks up an environment variable. Nil means [os.LookupEnv].
	Getenv func(string) (string, bool)
}

// Load reads the file at path. A file that cannot be read gives an error that
// wraps the cause; a file with mistakes gives [Errors].
func Load(path string, o Options) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, dir, o)
}

// Parse reads the text of a configuration file. Errors call it name; relative
// paths in it are relative to dir. Every error is of type [Errors].
func Parse(name string, data []byte, dir string, o Options) (*File, error) {
	d := &decoder{file: name, dir: dir, kinds: o.Kinds, getenv: o.Getenv, left: maxValues}
	if d.getenv == nil {
		d.getenv = os.LookupEnv
	}
	root := d.parse(data)
	d.lines = strings.Split(string(data), "\n")
	if root == nil {
		return nil, d.errs
	}
	file := &File{Path: name, Dir: dir, sections: map[string]bool{}}
	d.root(root, file, o.Sections)
	if len(d.errs) > 0 {
		d.errs.sort()
		return nil, d.errs
	}
	file.Warnings = d.warnings
	return file, nil
}

// root decodes the top level: the agent's own keys and the sections of others.
func (d *decoder) root(n *yaml.Node, file *File, sections map[string]any) {
	own := reflect.ValueOf(file).Elem()
	s := shapeOf(own.Type())
	for name := range sections {
		s.names = append(s.names, name)
	}
	slices.Sort(s.names)
	d.defaults(own, key{line: 1})
	for _, name := range s.names {
		if section, ok := sections[name]; ok {
			d.defaults(reflect.ValueOf(section).Elem(), key{path: name, line: 1})
		}
	}
	before := len(d.errs)
	for _, p := range d.pairs(n, key{line: 1}) {
		if section, ok := sections[p.name]; ok {
			file.sections[p.name] = true
			d.value(p.node, reflect.ValueOf(section).Elem(), p.key)
			continue
		}
		f, ok := s.fields[p.name]
		if !ok {
			d.unknown(p, s.names)
			continue
		}
		file.sections[p.name] = true
		d.value(p.node, own.FieldByIndex(f.index), p.key)
	}
	if file.Service == "" {
		file.Service = d.defaultService()
	}
	if len(d.errs) == before {
		d.validate(own, n, key{line: 1})
	}
}

// defaultService honours the variable with which Datadog names a service.
func (d *decoder) defaultService() string {
	if s, ok := d.getenv("DD_SERVICE"); ok && s != "" {
		return s
	}
	return "outrider"
}

// parse returns the one document's top mapping, or nil with an error recorded.
func (d *decoder) parse(data []byte) *yaml.Node {
	fail := func(line int, got, want string) *yaml.Node {
		d.errs = append(d.errs, &Error{File: d.file, Line: max(line, 1), Got: got, Want: want})
		return nil
	}
	if len(data) > MaxFileBytes {
		return fail(1, fmt.Sprintf("more than %d bytes", MaxFileBytes), "a file of 1 MiB at most")
	}
	var doc, next yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return fail(1, "an empty file", "a mapping of keys")
	case err != nil:
		return fail(syntaxError(err, data))
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		return fail(next.Line, "a second YAML document", "one document")
	case !errors.Is(err, io.EOF):
		return fail(syntaxError(err, data))
	}
	n := doc.Content[0]
	switch {
	case isNull(n):
		return fail(n.Line, "an empty document", "a mapping of keys")
	case n.Kind != yaml.MappingNode:
		return fail(n.Line, describe(n), "a mapping of keys")
	}
	return n
}

// syntaxError finds the line in the parser's message. A tab in the indentation
// is named as such: the parser's own words for it help nobody.
func syntaxError(err error, data []byte) (line int, got, want string) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = strings.TrimPrefix(msg, m[0])
	}
	var anchor string
	if m := regexp.MustCompile(`^unknown anchor '(.+)'`).FindStringSubmatch(msg); m != nil {
		anchor, msg = "*"+m[1], "unknown anchor "+m[1]
	}
	i := 0
	for text := range bytes.Lines(data) {
		i++
		indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if bytes.ContainsRune(indent, '\t') {
			return i, "a tab in the indentation", "spaces"
		}
		if line == 0 && anchor != "" && bytes.Contains(text, []byte(anchor)) {
			line = i
		}
	}
	return line, "invalid YAML: " + show(msg), "valid YAML"
}
