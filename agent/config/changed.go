package config

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
)

// Changed returns the full keys whose values differ between two
// configurations of one struct type, such as listen.public, sorted. Lists are
// compared as a whole; where in the file an item stands makes no difference.
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
		case !same(a, b):
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// same compares two values; of items only what they say.
func same(a, b reflect.Value) bool {
	if a.Kind() != reflect.Slice || a.Len() == 0 || a.Len() != b.Len() || a.Type().Elem().Kind() != reflect.Struct || itemIn(a.Index(0)) == nil {
		return reflect.DeepEqual(a.Interface(), b.Interface())
	}
	for i := range a.Len() {
		if !reflect.DeepEqual(placeless(a.Index(i)), placeless(b.Index(i))) {
			return false
		}
	}
	return true
}

// placeless is a copy of an item without its place in the file.
func placeless(v reflect.Value) any {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	item := itemIn(c)
	item.Line, item.Key, item.nameLine = 0, "", 0
	return c.Interface()
}
