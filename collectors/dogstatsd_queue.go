package collectors

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/metrics"
)

// A packetQueue holds packets between who receives them and who counts them, so
// that a burst which the kernel's buffer could not take waits here. When it is
// full, put waits: then the kernel's buffer fills, or the sender waits.
type packetQueue struct {
	limit int
	lost  func() int64 // packets that the kernel dropped since it was asked last

	mu      sync.Mutex
	changed sync.Cond // with mu
	books   *metrics.Pipeline
	fill    []byte // records
	spare   []byte
	waiting int64 // packets in fill
	taken   int64 // packets that are being counted
	oldest  time.Time
	closed  bool
}

// A record is the length of a packet, its sender, and the packet.
const (
	recordHeader = 4 + 16 + 2
	keepQueue    = 256 << 10 // bytes of an empty queue that are kept
)

// A packet is what came at once. Its data is valid until the next call.
type packet struct {
	data   []byte
	sender netip.AddrPort // zero: not known
}

func newPacketQueue(limit int, lost func() int64) *packetQueue {
	q := &packetQueue{limit: limit, lost: lost}
	q.changed.L = &q.mu
	return q
}

// options are those of the queue's pipeline. A look at it counts what the kernel
// dropped until then, so that its books balance at rest.
func (q *packetQueue) options(collector string) metrics.PipelineOptions {
	return metrics.PipelineOptions{
		Name: "dogstatsd_packets", Target: collector, Unit: "packets", Lock: &q.mu,
		Reasons: []string{"kernel", "too_long", "incomplete"},
		Queue: func() metrics.Queue {
			if n := q.lost(); n > 0 && q.books != nil {
				q.books.In(n)
				q.books.Drop("kernel", n)
			}
			return metrics.Queue{Len: q.waiting + q.taken, Oldest: q.oldest}
		},
	}
}

// put adds packets. It waits for room as long as somebody takes.
func (q *packetQueue) put(packets []packet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range packets {
		for len(q.fill) > 0 && len(q.fill)+recordHeader+len(p.data) > q.limit {
			q.changed.Wait()
		}
		if q.waiting == 0 {
			q.changed.Broadcast()
			if q.taken == 0 {
				q.oldest = time.Now()
			}
		}
		q.books.In(1)
		q.waiting++
		q.fill = binary.LittleEndian.AppendUint32(q.fill, uint32(len(p.data)))
		address := p.sender.Addr().As16()
		q.fill = append(q.fill, address[:]...)
		q.fill = binary.LittleEndian.AppendUint16(q.fill, p.sender.Port())
		q.fill = append(q.fill, p.data...)
	}
}

// drop counts packets that came and go nowhere.
func (q *packetQueue) drop(reason string, n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.books.In(n)
	q.books.Drop(reason, n)
}

// take waits for records, and takes all. They belong to the caller until the
// next take, which also says that those from before are done.
func (q *packetQueue) take() (records []byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.books.Out(q.taken)
	q.taken, q.oldest = 0, time.Time{}
	if q.waiting > 0 {
		q.oldest = time.Now()
	}
	for q.waiting == 0 {
		if q.closed {
			return nil, false
		}
		if cap(q.fill) > keepQueue {
			q.fill = nil
		}
		if cap(q.spare) > keepQueue {
			q.spare = nil
		}
		q.changed.Wait()
	}
	records = q.fill
	q.fill, q.spare = q.spare[:0], records
	q.taken, q.waiting = q.waiting, 0
	q.changed.Broadcast()
	return records, true
}

// close lets take return when all is done. Nothing is put any more.
func (q *packetQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// nextRecord cuts the first record off.
func nextRecord(records []byte) (p packet, rest []byte) {
	n := binary.LittleEndian.Uint32(records)
	address, port := netip.AddrFrom16([16]byte(records[4:20])), binary.LittleEndian.Uint16(records[20:])
	if port != 0 {
		p.sender = netip.AddrPortFrom(address.Unmap(), port)
	}
	p.data = records[recordHeader : recordHeader+n]
	return p, records[recordHeader+n:]
}

// settle counts what the kernel dropped for the last time: from now on the socket
// is somebody else's, or closed.
func (q *packetQueue) settle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.options("").Queue()
	q.lost = func() int64 { return 0 }
}
