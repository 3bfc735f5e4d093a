package kube

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// A part is what is read of a field in protobuf: all of it; the entries of a
// map that have one key; or some fields of the message that it is.
type part struct {
	all    bool
	key    string
	fields []*part // by number; nil: not read
}

// add adds the field at a path: the names of fields in protobuf, which are
// those in JSON too. In a list it is that field of all elements. "[key]" ends
// the path to a map of strings.
func (p *part) add(t reflect.Type, path string) error {
	path, key, _ := strings.Cut(strings.TrimSuffix(path, "]"), "[")
	for name := range strings.SplitSeq(path, ".") {
		f, number, err := field(t, name)
		if err != nil {
			return err
		}
		for len(p.fields) <= number {
			p.fields = append(p.fields, nil)
		}
		if p.fields[number] == nil {
			p.fields[number] = &part{}
		}
		p, t = p.fields[number], f
	}
	switch {
	case key == "":
		p.all = true
	case t.Kind() != reflect.Map:
		return fmt.Errorf("%s is no map", t)
	default:
		p.key = key
	}
	return nil
}

// field finds a field of a struct, or of a pointer to one, or of a list of
// them, by its name in protobuf.
func field(t reflect.Type, name string) (reflect.Type, int, error) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil, 0, fmt.Errorf("%s has no fields", t)
	}
	for f := range t.Fields() {
		// "bytes,2,opt,name=spec"
		tag := strings.Split(f.Tag.Get("protobuf"), ",")
		if len(tag) < 4 || tag[3] != "name="+name {
			continue
		}
		number, err := strconv.Atoi(tag[1])
		return f.Type, number, err
	}
	return nil, 0, fmt.Errorf("%s has no %s", t, name)
}

// cut appends to out what is read of a message; false: the message is not
// well-formed. What is cut down keeps as many bytes for its length as it had:
// a number with zeros at its end is the same number.
func (p *part) cut(out, message []byte) ([]byte, bool) {
	for len(message) > 0 {
		number, typ, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return out, false
		}
		size := protowire.ConsumeFieldValue(number, typ, message[tag:])
		if size < 0 {
			return out, false
		}
		whole := message[:tag+size]
		message = message[tag+size:]
		if int(number) >= len(p.fields) || p.fields[number] == nil {
			continue
		}
		of := p.fields[number]
		if of.all {
			out = append(out, whole...)
			continue
		}
		value, n := protowire.ConsumeBytes(whole[tag:])
		if typ != protowire.BytesType || n < 0 {
			return out, false
		}
		if of.key != "" {
			if mayBe(value, of.key) {
				out = append(out, whole...)
			}
			continue
		}
		out = append(out, whole[:len(whole)-len(value)]...)
		start, ok := len(out), false
		if out, ok = of.cut(out, value); !ok {
			return out, false
		}
		putLength(out[start-(size-len(value)):start], len(out)-start)
	}
	return out, true
}

// putLength writes a number with as many bytes as there are in b.
func putLength(b []byte, n int) {
	for i := range b {
		b[i] = byte(n)&0x7f | 0x80
		n >>= 7
	}
	b[len(b)-1] &= 0x7f
}

// mayBe reports whether the entry of a map may have the key: false only for
// one that is another key and its value, and nothing else.
func mayBe(entry []byte, want string) bool {
	key, rest, ok := cutField(entry, 1)
	if !ok || string(key) == want {
		return true
	}
	_, rest, ok = cutField(rest, 2)
	return !ok || len(rest) > 0
}
