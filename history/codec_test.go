package history

import (
	"math"
	"math/rand/v2"
	"testing"
)

// A feed yields the values of a series, one a read.
type feed struct {
	name    string
	counter bool
	most    float64 // bits a sample, measured
	next    func(r *rand.Rand, i int, before float64) float64
}

// feeds are what series look like. Read-only.
var feeds = []feed{
	{"constant", false, 1.1, func(_ *rand.Rand, _ int, _ float64) float64 { return 8192 }},
	{"constant fraction", false, 1.1, func(_ *rand.Rand, _ int, _ float64) float64 { return 1.0 / 3 }},
	{"counter at a steady rate", true, 1.2, func(_ *rand.Rand, i int, _ float64) float64 { return float64(i * 1500) }},
	{"counter that hardly moves", true, 2.5, func(r *rand.Rand, _ int, v float64) float64 {
		if r.IntN(20) == 0 {
			v++
		}
		return v
	}},
	{"counter with noise, 100 a read", true, 6.5, func(r *rand.Rand, _ int, v float64) float64 { return v + math.Round(100+10*r.NormFloat64()) }},
	{"counter of bytes, a million a read", true, 20, func(r *rand.Rand, _ int, v float64) float64 { return v + math.Round(1e6+1e5*r.NormFloat64()) }},
	{"counter of seconds, two decimals", true, 5, func(r *rand.Rand, _ int, v float64) float64 {
		return math.Round(v*100+5+2*r.NormFloat64()) / 100
	}},
	{"gauge, whole, noise of 10", false, 7, func(r *rand.Rand, _ int, _ float64) float64 { return math.Round(500 + 10*r.NormFloat64()) }},
	{"gauge, two decimals", false, 6, func(r *rand.Rand, _ int, v float64) float64 { return math.Round(v*100+5*r.NormFloat64()) / 100 }},
	{"quantile of a timer", false, 6, func(r *rand.Rand, _ int, _ float64) float64 {
		return value(int64(math.Round(-400+4*r.NormFloat64())), modeMiddle)
	}},
	{"gauge, a ratio with noise", false, 60, func(r *rand.Rand, _ int, _ float64) float64 { return 0.5 + 0.01*r.NormFloat64() }},
	{"random", false, 66, func(r *rand.Rand, _ int, _ float64) float64 { return r.Float64() }},
}

func TestSamplesTakeFewBits(t *testing.T) {
	for _, f := range feeds {
		t.Run(f.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var c coder
			n, bytes, v := 3600, 0, 0.0
			for i := range n {
				v = f.next(r, i, v)
				if c.count == 0 || len(c.buf) > mostRoom-sampleMost {
					if c.count > 0 {
						bytes += len(c.chunk())
					}
					c.begin(uint32(i), v, f.counter)
					continue
				}
				c.add(uint32(i), v)
			}
			bits := float64(8*(bytes+len(c.chunk()))) / float64(n)
			t.Logf("%.2f bits a sample", bits)
			if bits > f.most {
				t.Errorf("%.2f bits a sample, want at most %.2f", bits, f.most)
			}
		})
	}
}

// odd are values that are hard to keep. Read-only.
var odd = []float64{
	0, math.Copysign(0, -1), math.NaN(), math.Float64frombits(0x7ff8000000000123), math.Inf(1), math.Inf(-1), 1, -1, 0.1, 1e-9, 1e22,
	math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, 1<<53 - 1, -(1 << 53), 1<<53 + 2, 1 << 63, 9007199.254740993,
	math.Pi, 123456.789, 0.30000000000000004, value(-700, modeMiddle), value(1<<16, modeMiddle),
}

// wild yields a series that changes its ways again and again.
func wild(r *rand.Rand) func() float64 {
	way, v := 0, 0.0
	return func() float64 {
		if r.IntN(30) == 0 {
			way = r.IntN(8)
		}
		switch way {
		case 0:
			v += float64(r.IntN(50))
		case 1:
			v = math.Round(v*100+r.NormFloat64()*300) / 100
		case 2:
			v = value(int64(r.IntN(40)-100), modeMiddle)
		case 3:
			v = r.NormFloat64()
		case 4:
			v = odd[r.IntN(len(odd))]
		case 5:
			v = math.Float64frombits(r.Uint64())
		case 6:
			v = 0
		}
		return v
	}
}

type sample struct {
	read uint32
	bits uint64
}

func checkChunk(t *testing.T, chunk string, want []sample) {
	t.Helper()
	d := decode(chunk)
	for i, w := range want {
		read, v, ok := d.next()
		if got := (sample{read, math.Float64bits(v)}); !ok || got != w {
			t.Fatalf("sample %d of %d: got %+v (%g) ok %t, want %+v (%g)", i, len(want), got, v, ok, w, math.Float64frombits(w.bits))
		}
	}
	if read, v, ok := d.next(); ok {
		t.Fatalf("a sample more than %d: %d %g", len(want), read, v)
	}
	if last := want[len(want)-1].read; chunkLast(chunk) != last || chunkCount(chunk) != int64(len(want)) {
		t.Fatalf("chunk of %d to read %d, want %d to %d", chunkCount(chunk), chunkLast(chunk), len(want), last)
	}
}

func TestEveryValueComesBackBitByBit(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		next, c, counter := wild(r), coder{}, seed%2 == 0
		read := r.Uint32() // it may wrap around
		var want []sample
		for range 2000 {
			read++
			if r.IntN(20) == 0 {
				read += 1 << r.IntN(12)
			}
			v := next()
			if len(want) > 0 && (len(c.buf) > mostRoom-sampleMost || read-c.first >= 1<<16) {
				checkChunk(t, c.chunk(), want)
				want = want[:0]
			}
			before := len(c.buf)
			if len(want) == 0 {
				if c.begin(read, v, counter); len(c.buf) > headMost {
					t.Fatalf("a head of %d bytes, want at most %d", len(c.buf), headMost)
				}
			} else if c.add(read, v); len(c.buf)-before > sampleMost {
				t.Fatalf("a sample of %d bytes, want at most %d", len(c.buf)-before, sampleMost)
			}
			want = append(want, sample{read, math.Float64bits(v)})
		}
		checkChunk(t, c.chunk(), want)
	}
}

func FuzzDecodeEndsAndDoesNotPanic(f *testing.F) {
	for seed := range uint64(4) {
		next, c := wild(rand.New(rand.NewPCG(seed, 2))), coder{}
		c.begin(7, next(), seed%2 == 0)
		for read := range uint32(100) {
			c.add(8+read, next())
		}
		f.Add([]byte(c.chunk()))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := decode(string(data))
		n := int64(0)
		for _, _, ok := d.next(); ok; _, _, ok = d.next() {
			n++
		}
		if len(data) > headMode && n > chunkCount(string(data)) {
			t.Fatalf("%d samples of %d", n, chunkCount(string(data)))
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, i := range []int{0, 4, 9, 10} {
		b.Run(feeds[i].name, func(b *testing.B) {
			r, c, v := rand.New(rand.NewPCG(1, 2)), coder{}, 0.0
			c.begin(0, 0, feeds[i].counter)
			n := uint32(1)
			for ; len(c.buf) < mostRoom && n < 1000; n++ {
				v = feeds[i].next(r, int(n), v)
				c.add(n, v)
			}
			chunk := c.chunk()
			for b.Loop() {
				d := decode(chunk)
				for _, _, ok := d.next(); ok; _, _, ok = d.next() {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
		})
	}
}
