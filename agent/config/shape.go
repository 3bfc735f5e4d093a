package config

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A shape is what the decoder needs to know of a struct type.
type shape struct {
	names  []string // sorted
	fields map[string]field
}

type field struct {
	index    []int
	def      string
	required bool
}

// shapeOf reads a struct's tags. Only fields with a yaml tag are keys; the
// fields of an embedded struct count as the struct's own.
func shapeOf(t reflect.Type) shape {
	s := shape{fields: map[string]field{}}
	for _, f := range reflect.VisibleFields(t) {
		name := f.Tag.Get("yaml")
		if !f.IsExported() || name == "" || name == "-" || len(f.Index) > 1 && !onlyEmbedded(t, f.Index) {
			continue
		}
		s.names = append(s.names, name)
		s.fields[name] = field{f.Index, f.Tag.Get("default"), f.Tag.Get("required") == "true"}
	}
	slices.Sort(s.names)
	return s
}

// onlyEmbedded reports whether the way to a field leads through structs only:
// an embedded pointer may be nil.
func onlyEmbedded(t reflect.Type, index []int) bool {
	for i := range len(index) - 1 {
		if t.FieldByIndex(index[:i+1]).Type.Kind() != reflect.Struct {
			return false
		}
	}
	return true
}

func isNull(n *yaml.Node) bool {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// describe says what a node is, for the got of an error.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if isNull(n) {
		return "nothing"
	}
	return show(n.Value)
}

// wantOf says what a type takes, for the want of an error.
func wantOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a duration such as 5s"
	case reflect.TypeFor[Bytes]():
		return "an amount of bytes such as 2GiB"
	case reflect.TypeFor[Path](), reflect.TypeFor[SecretFile]():
		return "the path of a file"
	case reflect.TypeFor[Secret]():
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return wantOf(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "a mapping"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "text"
	case reflect.Struct:
		switch isText := reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()); {
		case isText && len(shapeOf(t).names) > 0:
			return "text or a mapping"
		case isText:
			return "text"
		}
		return "a mapping"
	}
	if t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64 {
		return "a whole number"
	}
	panic("BUG: configuration of type " + t.String())
}

func oneOf(words []string) string {
	switch len(words) {
	case 0:
		return "no keys at all"
	case 1:
		return words[0]
	}
	return "one of " + strings.Join(words, ", ")
}
