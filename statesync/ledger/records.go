package ledger

import (
	"encoding/binary"
	"math"
)

// Kinds of pages, by their first byte.
const (
	indexInner = 0x02
	indexLeaf  = 0x0a
	tableLeaf  = 0x0d
)

// A cell is a row of a table or an entry of an index. A value is an int64, a
// string, a []byte, a float64 or nil.
type cell struct {
	table  bool  // of a table with a rowid, else of one without or an index
	rowid  int64 // of a table's row
	values []any
}

// cells yields the cells of one page. A cell that cannot be read is left
// out. broken tells that there was one, or that the page is none that SQLite
// writes.
func (p *pages) cells(n uint32, b []byte, yield func(cell) error) (broken bool, err error) {
	start := 0
	if n == 1 {
		start = 100
	}
	kind, head := b[start], 8
	switch kind {
	case indexLeaf, tableLeaf:
	case indexInner:
		head = 12
	case 0x05, 0x00:
		// An inner page of a table holds no rows. One of zeros may be an
		// overflow page: those begin with the number of the next.
		return kind == 0 && allZero(b), nil
	default:
		return true, nil
	}
	count := int(binary.BigEndian.Uint16(b[start+3:]))
	if start+head+2*count > p.usable {
		return true, nil
	}
	for i := range count {
		at := int(binary.BigEndian.Uint16(b[start+head+2*i:]))
		r, ok := p.readCell(kind, b, at)
		if !ok {
			broken = true
			continue
		}
		if err := yield(r); err != nil {
			return broken, err
		}
	}
	return broken, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// readCell decodes the cell at an offset of a page.
func (p *pages) readCell(kind byte, b []byte, at int) (r cell, ok bool) {
	if kind == indexInner {
		at += 4 // the child's number
	}
	if at < 8 || at >= p.usable {
		return r, false
	}
	size, n := varint(b[at:p.usable])
	if at += n; n == 0 || size < 0 || size > 1<<30 {
		return r, false
	}
	if r.table = kind == tableLeaf; r.table {
		if r.rowid, n = varint(b[at:p.usable]); n == 0 {
			return r, false
		}
		at += n
	}
	payload, ok := p.payload(b, at, int(size), r.table)
	if !ok {
		return r, false
	}
	r.values, ok = decode(payload)
	return r, ok
}

// payload returns the bytes of a record that begins at an offset of a page,
// with those on overflow pages.
func (p *pages) payload(b []byte, at, size int, table bool) ([]byte, bool) {
	u := p.usable
	most, least := (u-12)*64/255-23, (u-12)*32/255-23
	if table {
		most = u - 35
	}
	local := size
	if size > most {
		if local = least + (size-least)%(u-4); local > most {
			local = least
		}
	}
	if at+local > u {
		return nil, false
	}
	if local == size {
		return b[at : at+size], true
	}
	if at+local+4 > u {
		return nil, false
	}
	out := append([]byte(nil), b[at:at+local]...)
	next := binary.BigEndian.Uint32(b[at+local:])
	buf := make([]byte, p.pageSize)
	for len(out) < size {
		if next < 2 || next > p.count || p.page(next, buf) != nil {
			return nil, false
		}
		out = append(out, buf[4:min(u, 4+size-len(out))]...)
		next = binary.BigEndian.Uint32(buf)
	}
	return out, true
}

// decode splits a record into its values.
func decode(b []byte) (out []any, ok bool) {
	head, n := varint(b)
	if n == 0 || head < int64(n) || head > int64(len(b)) {
		return nil, false
	}
	types, body := b[n:head], b[head:]
	for len(types) > 0 {
		t, n := varint(types)
		if n == 0 {
			return nil, false
		}
		types = types[n:]
		size := valueSize(t)
		if size < 0 || size > int64(len(body)) {
			return nil, false
		}
		out = append(out, value(t, body[:size]))
		body = body[size:]
	}
	return out, len(body) == 0
}

// valueSize is -1 for a type that does not exist.
func valueSize(t int64) int64 {
	switch {
	case t >= 12:
		return (t - 12) / 2
	case t >= 0 && t < 10:
		return [10]int64{0, 1, 2, 3, 4, 6, 8, 8, 0, 0}[t]
	}
	return -1
}

func value(t int64, b []byte) any {
	switch {
	case t == 0:
		return nil
	case t == 7:
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	case t == 8 || t == 9:
		return t - 8
	case t >= 12 && t%2 == 0:
		return append([]byte(nil), b...)
	case t >= 12:
		return string(b)
	}
	var v int64
	if b[0]&0x80 != 0 {
		v = -1
	}
	for _, c := range b {
		v = v<<8 | int64(c)
	}
	return v
}

// varint decodes SQLite's: big endian, nine bytes at most, of which the last
// counts whole. n is 0 when b ends too early.
func varint(b []byte) (v int64, n int) {
	var u uint64
	for i, c := range b {
		if i == 8 {
			return int64(u<<8 | uint64(c)), 9
		}
		u = u<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return int64(u), i + 1
		}
	}
	return 0, 0
}

// shape is the types of a cell's values, one letter each: N none, I a
// number, T a text, B bytes.
func (r cell) shape() string {
	out := make([]byte, len(r.values))
	for i, v := range r.values {
		switch v.(type) {
		case nil:
			out[i] = 'N'
		case int64:
			out[i] = 'I'
		case string:
			out[i] = 'T'
		default:
			out[i] = 'B'
		}
	}
	return string(out)
}
