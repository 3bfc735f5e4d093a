package collectors

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many packets one system call reads. Their buffers are memory
// only as far as packets reach into them.
const batchSize = 32

// A packetBatch reads packets, several at once, without asking for memory.
type packetBatch struct {
	heads   [batchSize]mmsghdr
	vectors [batchSize]unix.Iovec
	names   [batchSize]unix.RawSockaddrInet6
	space   []byte
	size    int
	named   bool
	packets [batchSize]packet

	wait bool
	n    int
	err  error
	call func(fd uintptr) bool // read, so that no closure is made for each
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr    unix.Msghdr
	length uint32
}

func newPacketBatch(size int, named bool) *packetBatch {
	b := &packetBatch{size: size, space: make([]byte, batchSize*size), named: named}
	for i := range b.heads {
		b.vectors[i].Base = &b.space[i*size]
		b.vectors[i].SetLen(size)
		b.heads[i].hdr.Iov = &b.vectors[i]
		b.heads[i].hdr.SetIovlen(1)
		if named {
			b.heads[i].hdr.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		}
	}
	b.call = b.receive
	return b
}

func (b *packetBatch) receive(fd uintptr) bool {
	for i := range b.heads {
		b.heads[i].hdr.Flags = 0
		if b.named {
			b.heads[i].hdr.Namelen = unix.SizeofSockaddrInet6
		}
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.heads[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN && b.wait:
			return false
		case errno == unix.EAGAIN:
		case errno != 0:
			b.err = os.NewSyscallError("recvmmsg", errno)
		default:
			b.n = int(n)
		}
		return true
	}
}

// read returns packets, which are valid until the next call, and how many were
// longer than the size. With wait, there is at least one.
func (b *packetBatch) read(conn syscall.RawConn, wait bool) (packets []packet, tooLong int64, err error) {
	b.n, b.err, b.wait = 0, nil, wait
	if err := errors.Join(conn.Read(b.call), b.err); err != nil {
		return nil, 0, err
	}
	packets = b.packets[:0]
	for i := range b.n {
		if b.heads[i].hdr.Flags&unix.MSG_TRUNC != 0 {
			tooLong++
			continue
		}
		p := packet{data: b.space[i*b.size:][:b.heads[i].length]}
		if b.named {
			p.sender = senderOf(&b.names[i])
		}
		packets = append(packets, p)
	}
	return packets, tooLong, nil
}

func senderOf(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := func(p *uint16) uint16 { // in network order
		b := (*[2]byte)(unsafe.Pointer(p))
		return uint16(b[0])<<8 | uint16(b[1])
	}
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port(&v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), port(&name.Port))
	}
	return netip.AddrPort{}
}

// setReceiveBuffer asks the kernel for a buffer, beyond net.core.rmem_max where
// the process may, and returns what it gave.
func setReceiveBuffer(conn syscall.RawConn, size int) (got int64, err error) {
	var inner error
	err = conn.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil { // needs CAP_NET_ADMIN
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size); err != nil {
				inner = fmt.Errorf("set to %d bytes: %w", size, err)
				return
			}
		}
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		got, inner = int64(n), err
	})
	return got, errors.Join(err, inner)
}

// socketMemory reads what waits in a socket, in the kernel's bytes, and its
// counter of dropped packets, as /proc/net/udp shows it. SO_RXQ_OVFL tells the
// same, but only with the next packet that arrives; SO_MEMINFO tells it now.
func socketMemory(conn syscall.RawConn) (waits uint32, drops uint32, ok bool) {
	const memAlloc, memDrops, memVars = 0, 8, 9 // of linux/sock_diag.h, since Linux 4.12
	err := conn.Control(func(fd uintptr) {
		var info [memVars]uint32
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		waits, drops, ok = info[memAlloc], info[memDrops], errno == 0 && size == uint32(unsafe.Sizeof(info))
	})
	return waits, drops, err == nil && ok
}
