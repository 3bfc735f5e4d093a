//go:build !linux

package collectors

import (
	"errors"
	"syscall"
)

// A packetBatch needs Linux.
type packetBatch struct{}

func newPacketBatch(int, bool) *packetBatch { return nil }

var errNotLinux = errors.New("DogStatsD datagrams need Linux")

func (*packetBatch) read(syscall.RawConn, bool) ([]packet, int64, error) { return nil, 0, errNotLinux }

func setReceiveBuffer(syscall.RawConn, int) (int64, error) { return 0, errNotLinux }

func socketMemory(syscall.RawConn) (waits, drops uint32, ok bool) { return 0, 0, false }
