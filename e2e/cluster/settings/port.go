package settings

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	lowestPort = 20000
	// Linux's own default, used where the kernel's range cannot be read.
	defaultEphemeralPort = 32768
	attempts             = 200
)

// freePort finds a port of 127.0.0.1 that nobody listens on. It stays below the kernel's range for outgoing connections: a server that is stopped for a while would otherwise find its port taken by some client, even by a client that dials that very port and meets itself.
func freePort(taken map[int]bool) (int, error) {
	top := ephemeralPort()
	for range attempts {
		port := lowestPort + rand.IntN(top-lowestPort)
		if taken[port] {
			continue
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return 0, fmt.Errorf("choose port: %w", err)
		}
		return port, nil
	}
	return 0, fmt.Errorf("choose port: got none free in %d attempts between %d and %d", attempts, lowestPort, top)
}

// ephemeralPort is the first port the kernel gives to outgoing connections.
func ephemeralPort() int {
	var low, high int
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return defaultEphemeralPort
	}
	if _, err := fmt.Sscan(string(data), &low, &high); err != nil || low <= lowestPort {
		return defaultEphemeralPort
	}
	return low
}
