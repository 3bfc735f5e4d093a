package main

import "math/bits"

// table holds the fingerprints of the states seen, each with the state it was
// reached from. IDs count from 1.
type table struct {
	fingerprints []uint64
	parents      []uint32
	slots        []uint32 // IDs by fingerprint, open addressing; 0: free
}

func newTable() *table { return &table{slots: make([]uint32, 1<<16)} }

func (t *table) len() int { return len(t.fingerprints) }

// add returns the ID of a fingerprint and whether it is new.
func (t *table) add(f uint64, parent uint32) (id uint32, fresh bool) {
	i := t.slot(f)
	if t.slots[i] != 0 {
		return t.slots[i], false
	}
	t.fingerprints = append(t.fingerprints, f)
	t.parents = append(t.parents, parent)
	id = uint32(t.len())
	t.slots[i] = id
	if t.len()*3 > len(t.slots)*2 {
		t.slots = make([]uint32, 2*len(t.slots))
		for k, f := range t.fingerprints {
			t.slots[t.slot(f)] = uint32(k + 1)
		}
	}
	return id, true
}

// slot returns where the fingerprint is, or where it may go.
func (t *table) slot(f uint64) uint64 {
	mask := uint64(len(t.slots) - 1)
	i := f & mask
	for t.slots[i] != 0 && t.fingerprints[t.slots[i]-1] != f {
		i = (i + 1) & mask
	}
	return i
}

// frontier holds states to be visited. They are mostly zero, so each is
// stored as its bytes that are not, after a bitmap of where they are, which is
// stored in the same way.
type frontier struct {
	slabs [][]byte
	ids   []uint32
}

const (
	slabSize  = 1 << 22
	inner     = (stateSize + 7) / 8
	outer     = (inner + 7) / 8
	stateMost = outer + inner + stateSize
)

func (f *frontier) len() int { return len(f.ids) }

func (f *frontier) push(s *state, id uint32) {
	var bitmap [inner]byte
	var some [stateSize]byte
	k := 0
	for i, b := range stateBytes(s) {
		if b != 0 {
			bitmap[i>>3] |= 1 << (i & 7)
			some[k] = b
			k++
		}
	}
	n := len(f.slabs)
	if n == 0 || cap(f.slabs[n-1])-len(f.slabs[n-1]) < stateMost {
		f.slabs = append(f.slabs, make([]byte, 0, slabSize))
		n++
	}
	slab := f.slabs[n-1]
	at := len(slab)
	slab = append(slab, make([]byte, outer)...)
	for i, b := range bitmap {
		if b != 0 {
			slab[at+i>>3] |= 1 << (i & 7)
			slab = append(slab, b)
		}
	}
	f.slabs[n-1] = append(slab, some[:k]...)
	f.ids = append(f.ids, id)
}

// each visits the states in the order in which they were pushed, until visit
// returns false, and reports whether it never did. The memory of what was
// visited is released on the way.
func (f *frontier) each(visit func(s *state, id uint32) bool) bool {
	i := 0
	s := new(state)
	for k, slab := range f.slabs {
		for len(slab) > 0 {
			slab = unpack(s, slab)
			if !visit(s, f.ids[i]) {
				return false
			}
			i++
		}
		f.slabs[k] = nil
	}
	return true
}

// unpack fills s and returns what follows it.
func unpack(s *state, from []byte) []byte {
	*s = state{}
	bytes := stateBytes(s)
	where, from := from[:outer], from[outer:]
	var bitmap [inner]byte
	for i := range bitmap {
		if where[i>>3]>>(i&7)&1 == 1 {
			bitmap[i], from = from[0], from[1:]
		}
	}
	for i, b := range bitmap {
		for ; b != 0; b &= b - 1 {
			bytes[i*8+bits.TrailingZeros8(b)], from = from[0], from[1:]
		}
	}
	return from
}
