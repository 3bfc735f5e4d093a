package history

import (
	"encoding/binary"

	"github.com/outrider-agent/outrider/metrics"
)

// parts are the series that are kept of a histogram: what is added to its name,
// and the quantile it is. Read-only.
var parts = [...]struct {
	suffix   string
	quantile float64
}{{"_count", 0}, {"_sum", 0}, {"_p50", 0.5}, {"_p95", 0.95}, {"_p99", 0.99}, {"_max", 1}}

const firstQuantile = 2 // of parts

// before is what a histogram was at the read before.
type before struct {
	count  uint64
	packed []byte
}

func (b *before) size() int64 { return 80 + int64(cap(b.packed)) } // with its place in the map

// scratch is where histograms are compared, one at a time.
type scratch struct{ was, since metrics.HistogramSnapshot }

// hasParts says that a source still has families of the parts of a histogram.
func (src *source) hasParts(f *family) bool {
	if f.parts != nil {
		for _, name := range f.parts {
			if src.families[name] != nil {
				return true
			}
		}
	}
	return false
}

// histogram takes in a histogram's parts.
func (w *writer) histogram(p *metrics.Point) {
	if w.parts[0] == nil && !w.findParts() {
		w.h.lose(dropRefused, 2)
		return
	}
	s := w.part(0, p.Tags, float64(p.Hist.Count))
	w.part(1, p.Tags, p.Hist.Sum)
	if s == nil {
		return
	}
	since := w.h.sinceBefore(w.src, s, p.Hist)
	if since == nil || since.Count == 0 {
		return
	}
	for i := firstQuantile; i < len(parts); i++ {
		w.part(i, p.Tags, since.Quantile(parts[i].quantile))
	}
}

func (w *writer) part(i int, tags []string, v float64) *series {
	s := w.series(w.parts[i], tags, &w.nextOf[i])
	if s != nil {
		w.h.append(w.src, s, w.read, v, i < firstQuantile)
	}
	return s
}

// findParts finds the families of a histogram's parts, or makes them.
func (w *writer) findParts() bool {
	if w.f.parts == nil {
		var names [len(parts)]string
		size := int64(16 * len(parts))
		for i, p := range parts {
			names[i] = w.f.name + p.suffix
			size += allocated(len(names[i]))
		}
		if !w.h.afford(w.src, size) {
			return false
		}
		w.f.size += size
		w.f.parts = &names
	}
	var found [len(parts)]*family
	for i, name := range w.f.parts {
		d := metrics.Desc{Name: name, Type: metrics.GaugeType, Unit: w.f.unit, Tags: w.f.given}
		if i < firstQuantile {
			d.Type = metrics.CounterType
		}
		if i == 0 {
			d.Unit = ""
		}
		if found[i] = w.h.family(w.src, &d); found[i] == nil {
			return false
		}
	}
	w.parts = found
	return true
}

// sinceBefore returns what a histogram has counted since the read before, as
// [metrics.HistogramSnapshot.Sub] does, but without allocating; nil if that is not
// known. It is good until the next call.
func (h *History) sinceBefore(src *source, of *series, now *metrics.HistogramSnapshot) *metrics.HistogramSnapshot {
	if len(now.Bounds) > 0 && len(now.Counts) != len(now.Bounds)+1 {
		return nil
	}
	b := src.before[of]
	known := b != nil
	switch {
	case !known:
		b = &before{}
		if !h.reserve(src, b.size(), true) {
			return nil
		}
		src.before[of] = b
	case b.count == now.Count:
		return nil
	}
	was, since := &h.buckets.was, &h.buckets.since
	unpack(b.packed, was)
	if now.Count < b.count || len(now.Counts) != len(was.Counts) && b.count > 0 {
		*was = metrics.HistogramSnapshot{Buckets: was.Buckets[:0], Negative: was.Negative[:0], Counts: was.Counts[:0]}
	}
	since.Zero = now.Zero - min(now.Zero, was.Zero)
	since.Buckets = less(since.Buckets[:0], now.Buckets, was.Buckets)
	since.Negative = less(since.Negative[:0], now.Negative, was.Negative)
	since.Bounds, since.Counts, since.Count = now.Bounds, since.Counts[:0], since.Zero
	for i, n := range now.Counts {
		if i < len(was.Counts) {
			n -= min(n, was.Counts[i])
		}
		since.Counts = append(since.Counts, n)
		since.Count += n
	}
	for _, bucket := range since.Buckets {
		since.Count += bucket.Count
	}
	for _, bucket := range since.Negative {
		since.Count += bucket.Count
	}
	if !h.remember(src, b, now) {
		h.release(src, b.size(), true)
		delete(src.before, of)
	}
	if !known {
		return nil
	}
	return since
}

// less appends to out the buckets of now less those of was.
func less(out, now, was []metrics.Bucket) []metrics.Bucket {
	for _, b := range now {
		for len(was) > 0 && was[0].Index < b.Index {
			was = was[1:]
		}
		if len(was) > 0 && was[0].Index == b.Index {
			b.Count -= min(b.Count, was[0].Count)
		}
		if b.Count > 0 {
			out = append(out, b)
		}
	}
	return out
}

// remember packs a histogram for the next read. False means that there is no room.
func (h *History) remember(src *source, b *before, s *metrics.HistogramSnapshot) bool {
	packed := b.packed[:0]
	pack := func(v uint64) bool {
		if cap(packed)-len(packed) < binary.MaxVarintLen64 {
			size := allocated(cap(packed) + cap(packed)/4 + 32)
			if !h.reserve(src, size, true) {
				return false
			}
			h.release(src, int64(cap(packed)), true)
			packed = append(make([]byte, 0, size), packed...)
			b.packed = packed
		}
		packed = binary.AppendUvarint(packed, v)
		return true
	}
	ok := pack(s.Zero) && pack(uint64(len(s.Buckets))) && pack(uint64(len(s.Negative))) && pack(uint64(len(s.Counts)))
	for _, side := range [...][]metrics.Bucket{s.Buckets, s.Negative} {
		index := int32(0)
		for _, bucket := range side {
			ok = ok && pack(zigzag(int64(bucket.Index-index))) && pack(bucket.Count)
			index = bucket.Index
		}
	}
	for _, n := range s.Counts {
		ok = ok && pack(n)
	}
	b.count, b.packed = s.Count, packed
	return ok
}

// unpack is the reverse of remember; of nothing it makes an empty histogram.
func unpack(b []byte, s *metrics.HistogramSnapshot) {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[max(n, 0):]
		return v
	}
	s.Zero = next()
	buckets, negative, counts := next(), next(), next()
	s.Buckets = unpackBuckets(s.Buckets[:0], buckets, next)
	s.Negative = unpackBuckets(s.Negative[:0], negative, next)
	s.Counts = s.Counts[:0]
	for range counts {
		s.Counts = append(s.Counts, next())
	}
}

func unpackBuckets(out []metrics.Bucket, n uint64, next func() uint64) []metrics.Bucket {
	index := int32(0)
	for range n {
		index += int32(unzigzag(next()))
		out = append(out, metrics.Bucket{Index: index, Count: next()})
	}
	return out
}
