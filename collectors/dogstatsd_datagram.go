package collectors

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// A datagramIntake is a UDP or a unix datagram socket.
type datagramIntake struct {
	conn   datagramConn
	raw    syscall.RawConn
	file   *unixFile // nil: UDP
	buffer int64     // bytes that the kernel keeps for it
	batch  *packetBatch
	drops  uint32 // the kernel's counter when it was read last
}

type datagramConn interface {
	net.PacketConn
	syscall.Conn
}

// drainedBatches bounds what is taken from a socket that is about to be closed:
// who sends without end must not keep the agent from ending.
const drainedBatches = 1000

func newDatagramIntake(conn datagramConn, file *unixFile, c *DogStatsDConfig) (intake, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", conn.LocalAddr(), errors.Join(err, file.remove(), conn.Close()))
	}
	d := &datagramIntake{conn: conn, raw: raw, file: file}
	if err := d.adjust(c); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", conn.LocalAddr(), errors.Join(err, d.close()))
	}
	return d, nil
}

func (d *datagramIntake) adjust(c *DogStatsDConfig) (err error) {
	if d.buffer, err = setReceiveBuffer(d.raw, int(c.ReceiveBuffer)); err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	d.batch = newPacketBatch(int(c.MaxPacket), d.file == nil)
	return nil
}

// lost needs to be called by one goroutine at a time. The counter has 32 bits,
// and begins anew.
func (d *datagramIntake) lost() int64 {
	_, drops, ok := socketMemory(d.raw)
	if !ok {
		return 0
	}
	n := drops - d.drops
	d.drops = drops
	return int64(n)
}

func (d *datagramIntake) receive(stop <-chan struct{}, q *packetQueue) error {
	defer endReads(stop, d.conn)()
	for {
		packets, tooLong, err := d.batch.read(d.raw, true)
		d.put(q, packets, tooLong)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		default:
			return fmt.Errorf("receive on %s: %w", d.conn.LocalAddr(), err)
		}
	}
}

func (d *datagramIntake) drain(q *packetQueue) error {
	for range drainedBatches {
		packets, tooLong, err := d.batch.read(d.raw, false)
		if err != nil {
			return fmt.Errorf("receive on %s: %w", d.conn.LocalAddr(), err)
		}
		if len(packets) == 0 && tooLong == 0 {
			break
		}
		d.put(q, packets, tooLong)
	}
	return nil
}

func (d *datagramIntake) put(q *packetQueue, packets []packet, tooLong int64) {
	if len(packets) > 0 {
		q.put(packets)
	}
	if tooLong > 0 {
		q.drop("too_long", tooLong)
	}
}

// close also removes the name of a unix socket, unless another process has it.
func (d *datagramIntake) close() error { return errors.Join(d.file.remove(), d.conn.Close()) }
