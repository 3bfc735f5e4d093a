package sinks

// The address of a receiver comes from a configuration that may be anybody's
// in the company, and the agent sits where the cloud hands out credentials to
// whoever asks. So addresses that no receiver has are refused, and they are
// looked at where the connection is made: a name may stand for another address
// each time it is asked for.

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
)

// A refusedRange is one in which no receiver is.
type refusedRange struct {
	prefix netip.Prefix
	what   string
}

// refusedRanges are refused unless they are allowed by name.
func refusedRanges() []refusedRange {
	const metadata = "an address of a cloud's metadata service"
	var rs []refusedRange
	for _, r := range []struct{ prefix, what string }{
		{"0.0.0.0/8", "an unspecified address"},
		{"169.254.0.0/16", "a link-local address"},
		{"224.0.0.0/4", "a multicast address"},
		{"255.255.255.255/32", "the broadcast address"},
		{"::/128", "an unspecified address"},
		{"fe80::/10", "a link-local address"},
		{"ff00::/8", "a multicast address"},
		{"100.100.100.200/32", metadata}, // Alibaba
		{"168.63.129.16/32", metadata},   // Azure
		{"192.0.0.192/32", metadata},     // Oracle
		{"fd00:ec2::254/128", metadata},  // AWS
		{"fd00:ec2::23/128", metadata},   // AWS, credentials of pods
		{"fd20:ce::254/128", metadata},   // Google
	} {
		rs = append(rs, refusedRange{netip.MustParsePrefix(r.prefix), r.what})
	}
	return rs
}

// A guard decides which addresses are connected to.
type guard struct {
	refused []refusedRange
	allowed []netip.Prefix // empty: all that are not refused
}

// newGuard returns also, for each text that it could not read, a
// [config.FieldError].
func newGuard(allow []string) (*guard, []error) {
	g := &guard{refused: refusedRanges()}
	var errs []error
	for i, text := range allow {
		p, err := netip.ParsePrefix(text)
		if ip, isAddr := netip.ParseAddr(text); isAddr == nil && ip.Zone() == "" {
			p, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			errs = append(errs, &config.FieldError{Key: fmt.Sprintf("allow_addresses[%d]", i), Got: fmt.Sprintf("%.50q", text), Want: "an address or a range such as 10.0.0.0/8"})
			continue
		}
		g.allowed = append(g.allowed, p.Masked())
	}
	return g, errs
}

func (g *guard) dialer() *net.Dialer {
	return &net.Dialer{Timeout: connectTime, KeepAlive: 15 * time.Second, Control: g.control}
}

// control is asked before each connection, once its address is known.
func (g *guard) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return &addressError{"got " + address + ", want an IP address with a port"}
	}
	return g.check(at.Addr())
}

func (g *guard) check(addr netip.Addr) error {
	addr = addr.WithZone("").Unmap()
	contains := func(p netip.Prefix) bool { return p.Contains(addr) }
	if len(g.allowed) > 0 && !slices.ContainsFunc(g.allowed, contains) {
		return &addressError{addr.String() + ", which is not in allow_addresses"}
	}
	for _, form := range append(embedded(addr), addr) {
		for _, r := range g.refused {
			if r.prefix.Contains(form) && !g.names(r.prefix, form) {
				return &addressError{addr.String() + ", " + r.what + " that allow_addresses does not name"}
			}
		}
	}
	return nil
}

// names reports whether addr, of a refused range, is allowed by a range within
// that: one that merely covers it, such as 0.0.0.0/0, does not mean it.
func (g *guard) names(refused netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool {
		return p.Contains(addr) && p.Bits() >= refused.Bits()
	})
}

// embedded returns the IPv4 addresses that a gateway or a tunnel would take an
// IPv6 address for; none: it is none of their forms.
func embedded(addr netip.Addr) (out []netip.Addr) {
	b := addr.As16()
	in := func(prefix string) bool { return netip.MustParsePrefix(prefix).Contains(addr) }
	add := func(at ...int) {
		out = append(out, netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]}))
	}
	mayAdd := func(at ...int) {
		if b[at[0]] != 0 { // else it is in another place, or there is none
			add(at...)
		}
	}
	switch {
	case in("64:ff9b::/96"), in("::ffff:0:0:0/96"): // NAT64 (RFC 6052), SIIT (RFC 7915)
		add(12, 13, 14, 15)
	case in("64:ff9b:1::/48"): // NAT64 of one's own (RFC 8215): the address is behind a prefix of 48, 56, 64 or 96 bits
		mayAdd(6, 7, 9, 10)
		mayAdd(7, 9, 10, 11)
		mayAdd(9, 10, 11, 12)
		mayAdd(12, 13, 14, 15)
	case in("2002::/16"): // 6to4 (RFC 3056)
		add(2, 3, 4, 5)
	case in("2001::/32"): // Teredo (RFC 4380): the server, and the client with its bits turned over
		mayAdd(4, 5, 6, 7)
		for i := 12; i < 16; i++ {
			b[i] = ^b[i]
		}
		add(12, 13, 14, 15)
	case in("::/96"): // IPv4-compatible (RFC 4291); ::1 is not
		mayAdd(12, 13, 14, 15)
	}
	return out
}

// An addressError is why no connection was made.
type addressError struct{ text string }

func (e *addressError) Error() string { return e.text }

func isAddressError(err error) bool {
	_, ok := errors.AsType[*addressError](err)
	return ok
}
