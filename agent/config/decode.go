package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxValues bounds how many values are decoded, so that aliases of aliases
// cannot multiply a small file into a large configuration.
const maxValues = 20_000

// A decoder walks the parsed YAML and the structs side by side. It never stops
// at the first mistake.
type decoder struct {
	file, dir string
	lines     []string // of the file
	kinds     map[string]Kinds
	getenv    func(string) (string, bool)
	errs      Errors
	warnings  []string
	left      int // values that may still be decoded
}

// A key is where in the file a value stands.
type key struct {
	path string // statesync.sinks[0].webhook
	list string // the same without indexes: what tables of kinds are named by
	line int
}

func (k key) child(name string, line int) key {
	quoted := show(name)
	if quoted == name && !plainKey(name) {
		quoted = strconv.Quote(name)
	}
	if k.path == "" {
		return key{quoted, name, line}
	}
	return key{k.path + "." + quoted, k.list + "." + name, line}
}

func (k key) index(i, line int) key {
	return key{k.path + "[" + strconv.Itoa(i) + "]", k.list, line}
}

func plainKey(s string) bool {
	return s != "" && len(s) <= 80 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-/", r)
	})
}

func (d *decoder) fail(k key, got, want string) {
	d.errs = append(d.errs, &Error{File: d.file, Line: max(k.line, 1), Key: k.path, Got: got, Want: want})
}

// value decodes n into v, which is settable.
func (d *decoder) value(n *yaml.Node, v reflect.Value, k key) {
	if d.left--; d.left < 0 {
		if d.left == -1 {
			d.fail(k, fmt.Sprintf("more than %d values", maxValues), "fewer, or fewer aliases")
		}
		return
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if !slices.Contains([]string{"!!map", "!!seq", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp"}, n.ShortTag()) {
		d.fail(k, "the tag "+show(n.Tag), "a value without a tag")
		return
	}
	if v.Kind() == reflect.Pointer {
		if !isNull(n) {
			p := reflect.New(v.Type().Elem())
			d.defaults(p.Elem(), k)
			d.value(n, p.Elem(), k)
			v.Set(p)
		}
		return
	}
	_, isText := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	switch {
	case takesMapping(v, isText) && (n.Kind == yaml.MappingNode || isNull(n)):
		d.structure(n, v, k)
	case isNull(n):
	case v.Kind() == reflect.Struct && !isText && !isSecret(v.Type()):
		d.fail(k, describe(n), "a mapping")
	case isText || isSecret(v.Type()) || v.Kind() != reflect.Slice && v.Kind() != reflect.Map:
		d.scalar(n, v, k)
	case v.Kind() == reflect.Slice:
		d.slice(n, v, k)
	default:
		d.mapping(n, v, k)
	}
}

// takesMapping reports whether v is a struct with keys: one that reads text
// needs tagged fields to take a mapping too.
func takesMapping(v reflect.Value, isText bool) bool {
	return v.Kind() == reflect.Struct && !isSecret(v.Type()) && (!isText || len(shapeOf(v.Type()).names) > 0)
}

func (d *decoder) slice(n *yaml.Node, v reflect.Value, k key) {
	if n.Kind != yaml.SequenceNode {
		d.fail(k, describe(n), "a list")
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, min(len(n.Content), 64))
	taken := map[string]int{}
	for i, c := range n.Content {
		at := k.index(i, c.Line)
		if isNull(c) {
			d.fail(at, "an empty item", wantOf(v.Type().Elem()))
			continue
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		d.defaults(elem, at)
		d.value(c, elem, at)
		if item := itemIn(elem); item != nil && item.Name != "" {
			if line, dup := taken[item.Name]; dup {
				d.fail(at.child("name", item.nameLine), fmt.Sprintf("%s, which is the name in line %d too", item.Name, line), "a name of its own")
			} else {
				taken[item.Name] = item.nameLine
			}
		}
		out = reflect.Append(out, elem)
		if d.left < 0 {
			return
		}
	}
	v.Set(out)
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, k key) {
	if n.Kind != yaml.MappingNode {
		d.fail(k, describe(n), wantOf(v.Type()))
		return
	}
	out := reflect.MakeMap(v.Type())
	for _, p := range d.pairs(n, k) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.defaults(elem, p.key)
		d.value(p.node, elem, p.key)
		out.SetMapIndex(reflect.ValueOf(p.name).Convert(v.Type().Key()), elem)
	}
	v.Set(out)
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, k key) {
	before := len(d.errs)
	s := shapeOf(v.Type())
	known, given := s.names, map[string]bool{}
	var it *itemReader
	if item := itemIn(v); item != nil {
		it = d.newItemReader(item, k)
		known = append(slices.Clone(s.names), it.names...)
	}
	for _, p := range d.pairs(n, k) {
		given[p.name] = !isNull(p.node)
		if f, ok := s.fields[p.name]; ok {
			d.value(p.node, v.FieldByIndex(f.index), p.key)
		} else if it == nil || !it.take(p) {
			d.unknown(p, known)
			if it != nil {
				it.unknown = true
			}
		}
	}
	for _, name := range s.names {
		if f := s.fields[name]; f.required && !given[name] {
			d.fail(k.child(name, k.line), "nothing", wantOf(v.Type().FieldByIndex(f.index).Type))
		}
	}
	if it != nil {
		it.finish()
	}
	if len(d.errs) == before {
		d.validate(v, n, k)
	}
}

// defaults decodes the default tags of v's fields that are still zero.
func (d *decoder) defaults(v reflect.Value, k key) {
	if v.Kind() != reflect.Struct {
		return
	}
	s := shapeOf(v.Type())
	for _, name := range s.names {
		f := s.fields[name]
		field := v.FieldByIndex(f.index)
		if f.def == "" {
			d.defaults(field, k.child(name, k.line))
			continue
		}
		if !field.IsZero() {
			continue
		}
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(f.def), &doc); err != nil || len(doc.Content) == 0 {
			panic(fmt.Sprintf("BUG: default %q of %s: not YAML", f.def, name))
		}
		before, left := len(d.errs), d.left
		d.left = maxValues
		d.value(doc.Content[0], field, k.child(name, k.line))
		d.left = left
		if len(d.errs) > before {
			panic(fmt.Sprintf("BUG: default of a field of %s: %v", v.Type(), d.errs[before:]))
		}
	}
}

type pair struct {
	name string
	node *yaml.Node
	key  key
}

// pairs returns a mapping's keys with their values, each key once.
func (d *decoder) pairs(n *yaml.Node, k key) []pair {
	var out []pair
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		c := n.Content[i]
		switch {
		case c.Kind != yaml.ScalarNode || c.ShortTag() == "!!null":
			d.fail(key{path: k.path, line: c.Line}, describe(c)+" as a key", "text")
			continue
		case c.ShortTag() == "!!merge":
			d.fail(k.child("<<", c.Line), "a merge key", "the keys themselves")
			continue
		}
		at := k.child(c.Value, c.Line)
		if line, dup := lines[c.Value]; dup {
			d.fail(at, fmt.Sprintf("a key that line %d has too", line), "each key once")
			continue
		}
		lines[c.Value] = c.Line
		out = append(out, pair{c.Value, n.Content[i+1], at})
	}
	return out
}

func (d *decoder) unknown(p pair, known []string) {
	known = slices.Sorted(slices.Values(known))
	d.fail(p.key, "an unknown key", oneOf(known)+didYouMean(p.name, known))
}
