package config

import (
	"errors"
	"reflect"
	"strconv"
	"strings"

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
			at.line = locate(n, f.Key, k.line)
		}
		d.fail(at, f.Got, f.Want)
	}
	if err := val.Validate(); err != nil {
		place(err)
	}
}

// locate finds the line of a key such as tls.ca or headers[2] below n.
func locate(n *yaml.Node, path string, line int) int {
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
	return line
}
