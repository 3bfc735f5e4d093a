package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// An Item is one entry of a list of collectors, checks, exporters, sinks or
// remedies: a name and exactly one kind. A struct that embeds Item adds keys
// of its own, such as every or category.
type Item struct {
	Name   string // [a-z0-9][a-z0-9._-]{0,62}, unique in its list
	Kind   string // a key of the list's table
	Config any    // what the table's function returned, decoded
	Line   int    // where the item begins
	Key    string // its path: statesync.sinks[0]

	nameLine int
}

// itemIn returns the Item that v is or embeds; nil when it has none.
func itemIn(v reflect.Value) *Item {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if v.Type() == reflect.TypeFor[Item]() {
		return v.Addr().Interface().(*Item)
	}
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Anonymous && f.Type == reflect.TypeFor[Item]() {
			return v.Field(i).Addr().Interface().(*Item)
		}
	}
	return nil
}

// An itemReader fills one Item from the keys of its mapping.
type itemReader struct {
	d       *decoder
	item    *Item
	key     key
	table   Kinds
	kinds   []string // names of the table, sorted
	names   []string // name, and the kinds
	found   []string // kinds that the mapping has
	unknown bool     // it has a key that nobody knows, perhaps a misspelt kind
	named   bool
}

func (d *decoder) newItemReader(item *Item, k key) *itemReader {
	table, ok := d.kinds[k.list]
	if !ok {
		panic("BUG: no table of kinds for " + k.list)
	}
	kinds := slices.Sorted(maps.Keys(table))
	item.Line, item.Key, item.nameLine = k.line, k.path, k.line
	return &itemReader{d: d, item: item, key: k, table: table, kinds: kinds, names: append([]string{"name"}, kinds...)}
}

// take decodes the pair when it is the name or a kind.
func (r *itemReader) take(p pair) bool {
	if p.name == "name" {
		r.named, r.item.nameLine = true, p.key.line
		before := len(r.d.errs)
		r.d.value(p.node, reflect.ValueOf(&r.item.Name).Elem(), p.key)
		if len(r.d.errs) == before && !validName(r.item.Name) {
			r.d.fail(p.key, show(r.item.Name), "lower-case letters, digits, . _ and -, 63 at most")
			r.item.Name = ""
		}
		return true
	}
	kind, ok := r.table[p.name]
	if !ok {
		return false
	}
	config := kind()
	v := reflect.ValueOf(config)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("BUG: kind %s: configuration is a %T, want a pointer to a struct", p.name, config))
	}
	r.d.defaults(v.Elem(), p.key)
	r.d.value(p.node, v.Elem(), p.key)
	r.item.Kind, r.item.Config = p.name, config
	r.found = append(r.found, p.name)
	return true
}

func (r *itemReader) finish() {
	if !r.named {
		r.d.fail(r.key.child("name", r.key.line), "nothing", "a name")
	}
	switch {
	case len(r.found) > 1:
		r.d.fail(r.key, strings.Join(r.found, " and "), "exactly one kind of "+strings.Join(r.kinds, ", "))
	case len(r.found) == 0 && !r.unknown:
		r.d.fail(r.key, "no kind", "exactly one of "+strings.Join(r.kinds, ", "))
	}
}

// validName keeps names fit for tags, file names and lines of a status text.
func validName(s string) bool {
	if s == "" || len(s) > 63 || strings.ContainsRune("._-", rune(s[0])) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
}
