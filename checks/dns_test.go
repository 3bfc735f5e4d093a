package checks

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// zone answers a question as a DNS server of example.org does.
func zone(q dnsmessage.Question) (answers []dnsmessage.ResourceBody, code dnsmessage.RCode) {
	name := dnsmessage.MustNewName
	switch q.Name.String() + " " + q.Type.String() {
	case "a.example.org. TypeA":
		return []dnsmessage.ResourceBody{
			&dnsmessage.CNAMEResource{CNAME: name("b.example.org.")},
			&dnsmessage.AResource{A: [4]byte{10, 0, 0, 2}}, &dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}},
		}, 0
	case "a.example.org. TypeAAAA":
		return []dnsmessage.ResourceBody{&dnsmessage.AAAAResource{AAAA: [16]byte{0: 0xfd, 15: 1}}}, 0
	case "a.example.org. TypeCNAME":
		return []dnsmessage.ResourceBody{&dnsmessage.CNAMEResource{CNAME: name("B.example.org.")}}, 0
	case "example.org. TypeMX":
		return []dnsmessage.ResourceBody{&dnsmessage.MXResource{Pref: 10, MX: name("mail.example.org.")}}, 0
	case "example.org. TypeTXT":
		return []dnsmessage.ResourceBody{&dnsmessage.TXTResource{TXT: []string{"v=spf1 ", "-all"}}}, 0
	case "_db._tcp.example.org. TypeSRV":
		return []dnsmessage.ResourceBody{&dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 5432, Target: name("db.example.org.")}}, 0
	case "many.example.org. TypeA":
		for i := range 200 {
			answers = append(answers, &dnsmessage.AResource{A: [4]byte{10, 1, 0, byte(i)}})
		}
		return answers, 0
	case "broken.example.org. TypeA":
		return nil, dnsmessage.RCodeServerFailure
	case "refused.example.org. TypeA":
		return nil, dnsmessage.RCodeRefused
	}
	return nil, dnsmessage.RCodeNameError
}

// reply packs the answer to a query, cut to most bytes.
func reply(query []byte, most int) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	bodies, code := zone(q)
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RCode: code}
	m.Additionals = nil
	for _, b := range bodies {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}, Body: b})
	}
	out, err := m.Pack()
	if err == nil && len(out) > most {
		m.Truncated, m.Answers = true, nil
		out, _ = m.Pack()
	}
	return out
}

// nameServer serves the zone over UDP and TCP. Each question over UDP is answered
// by what answer makes of the right answer; nil says nothing.
func nameServer(t *testing.T, answer func(n int, right []byte) [][]byte) string {
	t.Helper()
	address := speak(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		out := reply(query, 65535)
		fmt.Fprintf(c, "%s%s", binary.BigEndian.AppendUint16(nil, uint16(len(out))), out)
	})
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		query := make([]byte, 1500)
		for n := 0; ; n++ {
			size, from, err := c.ReadFrom(query)
			if err != nil {
				return
			}
			for _, out := range answer(n, reply(query[:size], maxDatagram)) {
				_, _ = c.WriteTo(out, from) // who asked asks again
			}
		}
	}()
	return address
}

func rightly(_ int, right []byte) [][]byte { return [][]byte{right} }

func TestDNS(t *testing.T) {
	t.Parallel()
	server := nameServer(t, rightly)
	const pass, warn, fail = verdict.Pass, verdict.Warn, verdict.Fail
	tests := []struct {
		name, config string
		status       verdict.Status
		message      string
	}{
		{"addresses pass, without the alias", `{name: a.example.org}`, pass, "A of a.example.org from 127.0.0.1:...: 10.0.0.1, 10.0.0.2 in "},
		{"an address that is expected passes", `{name: a.example.org, expect: [10.0.0.2]}`, pass, "10.0.0.1, 10.0.0.2"},
		{"one that is missing fails", `{name: a.example.org, expect: [10.0.0.2, 10.0.0.3]}`, fail, "got 10.0.0.1, 10.0.0.2, want 10.0.0.3 among them"},
		{"too few fail", `{name: a.example.org, min: 3}`, fail, "got 10.0.0.1, 10.0.0.2, want at least 3"},
		{"an address is compared as one", `{name: a.example.org., type: AAAA, expect: ["FD00:0::1"]}`, pass, "fd00::1"},
		{"an alias passes", `{name: a.example.org, type: CNAME, expect: [b.Example.org.]}`, pass, "CNAME of a.example.org from ...: b.example.org"},
		{"a mail server passes by its name", `{name: example.org, type: MX, expect: [mail.example.org]}`, pass, "10 mail.example.org"},
		{"and by all of it", `{name: example.org, type: MX, expect: [10 mail.example.org.]}`, pass, "10 mail.example.org"},
		{"another preference fails", `{name: example.org, type: MX, expect: [5 mail.example.org]}`, fail, "want 5 mail"},
		{"a text in parts is one", `{name: example.org, type: TXT, expect: [v=spf1 -all]}`, pass, "v=spf1 -all"},
		{"a service passes by name and port", `{name: _db._tcp.example.org, type: SRV, expect: ["db.example.org:5432", db.example.org, 1 2 5432 db.example.org]}`, pass, "1 2 5432 db.example.org"},
		{"another port fails", `{name: _db._tcp.example.org, type: SRV, expect: ["db.example.org:5433"]}`, fail, "want db.example.org:5433"},
		{"an answer that is too long comes over TCP", `{name: many.example.org, min: 100}`, pass, "10.1.0.0, ... and 195 more in "},
		{"no such name fails", `{name: none.example.org}`, fail, "got no record, want at least 1"},
		{"no such record fails", `{name: a.example.org, type: MX}`, fail, "got no record, want at least 1"},
		{"a server in trouble fails", `{name: broken.example.org}`, fail, "the server says SERVFAIL"},
		{"one that refuses fails", `{name: refused.example.org}`, fail, "the server says REFUSED"},
		{"a slow one warns", `{name: a.example.org, warn: "100:"}`, warn, "want 100: s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(tt.config, "{", `{server: "`+server+`", `, 1)
			wantResult(t, ask(t, checker[DNSConfig](t, text, nil)), tt.status, tt.message)
		})
	}
}

func TestDNSOverABadLine(t *testing.T) {
	t.Parallel()
	lossy := nameServer(t, func(n int, right []byte) [][]byte {
		if n == 0 {
			return nil
		}
		forged := slices.Clone(right)
		forged[0]++                                // the question's number
		forged[3] |= byte(dnsmessage.RCodeRefused) // which would be told
		return [][]byte{[]byte("junk"), forged, right}
	})
	wantResult(t, ask(t, checker[DNSConfig](t, `{name: a.example.org, server: "`+lossy+`"}`, nil)), verdict.Pass, "10.0.0.1, 10.0.0.2")
	silent := nameServer(t, func(int, []byte) [][]byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantResult(t, checker[DNSConfig](t, `{name: a.example.org, server: "`+silent+`"}`, nil).Check(ctx), verdict.Fail, "no whole answer by the deadline")
	cut := nameServer(t, func(_ int, right []byte) [][]byte { return [][]byte{right[:len(right)-2]} })
	wantResult(t, ask(t, checker[DNSConfig](t, `{name: a.example.org, server: "`+cut+`"}`, nil)), verdict.Fail, "read the answer: record ")
}

func TestDNSOfTheSystem(t *testing.T) {
	t.Parallel()
	// Every system knows this one name without asking anybody.
	wantResult(t, ask(t, checker[DNSConfig](t, `{name: localhost, expect: [127.0.0.1]}`, nil)), verdict.Pass, "A of localhost: 127.0.0.1 in ")
}

func TestDNSConfigIsStrict(t *testing.T) {
	t.Parallel()
	wantMistakes[DNSConfig](t, map[string]string{
		`{}`:                       "check.name: got nothing",
		`{name: "a b"}`:            `check.name: got a b`,
		`{name: a..b}`:             "check.name: got a..b",
		`{name: a, type: a}`:       "check.type: got a, want one of A, AAAA",
		`{name: a, server: "b:x"}`: "check.server: got b:x",
		`{name: a, min: 0}`:        "check.min: got 0, want 1 to 100",
	})
	for text, want := range map[string]string{"10.0.0.2": "10.0.0.2:53", "fd00::1": "[fd00::1]:53", "[fd00::1]:5353": "[fd00::1]:5353", "ns.example": "ns.example:53"} {
		if got, ok := dnsServer(text); got != want || !ok {
			t.Errorf("server %s: got %s, %v, want %s", text, got, ok, want)
		}
	}
}

func FuzzDNSAnswer(f *testing.F) {
	q, err := newQuestion("A", "a.example.org")
	if err != nil {
		f.Fatal(err)
	}
	query, err := packQuery(7, q)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reply(query, 512))
	f.Add([]byte("junk"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, truncated, ours, err := parseAnswer(data, 7, q)
		if !ours && (records != nil || truncated || err != nil) || err != nil && records != nil {
			t.Errorf("got %v, %v, %v, %v", records, truncated, ours, err)
		}
		for _, r := range records {
			if net.ParseIP(r) == nil {
				t.Errorf("record %q, want an address", r)
			}
		}
	})
}
