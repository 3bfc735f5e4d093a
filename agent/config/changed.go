package config

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
)

// Changed returns the full keys whose values differ between two
// configurations of one struct type, such as listen.public, sorted. Lists are
// compared as a whole.
func Changed(before, after any) []string {
	return changed(reflect.ValueOf(before), reflect.ValueOf(after), "")
}

func changed(before, after reflect.Value, path string) (keys []string) {
	s := shapeOf(before.Type())
	for _, name := range s.names {
		a, b := before.FieldByIndex(s.fields[name].index), after.FieldByIndex(s.fields[name].index)
		key := strings.TrimPrefix(path+"."+name, ".")
		isText := reflect.PointerTo(a.Type()).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
		switch {
		case a.Kind() == reflect.Struct && !isText && !isSecret(a.Type()):
			keys = append(keys, changed(a, b, key)...)
		case !reflect.DeepEqual(a.Interface(), b.Interface()):
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
