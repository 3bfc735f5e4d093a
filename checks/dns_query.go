package checks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The standard library's resolver, given a server of ours, would still read
// /etc/hosts first; and it does not tell a server that refuses from one that is
// broken. So a server that is named is asked here: over UDP, again when nothing
// comes, over TCP when the answer is too long.

const (
	maxDatagram = 1232                   // what EDNS announces: fits every usual MTU
	firstWait   = 800 * time.Millisecond // for a datagram; doubled each time
)

// dnsCodes are the names of answers without records. Read-only.
var dnsCodes = map[dnsmessage.RCode]string{
	dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL",
	dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
}

// lookupServer asks one server. No such name, or none of that type, is no record.
func lookupServer(ctx context.Context, server, typ, name string) ([]string, error) {
	q, err := newQuestion(typ, name)
	if err != nil {
		return nil, err
	}
	id := uint16(rand.Uint32())
	query, err := packQuery(id, q)
	if err != nil {
		return nil, fmt.Errorf("pack question: %w", err)
	}
	records, truncated, err := askUDP(ctx, server, query, id, q)
	if err != nil || !truncated {
		return records, err
	}
	return askTCP(ctx, server, query, id, q)
}

func newQuestion(typ, name string) (dnsmessage.Question, error) {
	types := map[string]dnsmessage.Type{
		"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "CNAME": dnsmessage.TypeCNAME,
		"MX": dnsmessage.TypeMX, "TXT": dnsmessage.TypeTXT, "SRV": dnsmessage.TypeSRV,
	}
	n, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return dnsmessage.Question{}, fmt.Errorf("name %s: %w", snippet(name, 100), err)
	}
	return dnsmessage.Question{Name: n, Type: types[typ], Class: dnsmessage.ClassINET}, nil
}

func packQuery(id uint16, q dnsmessage.Question) ([]byte, error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{q}}
	var edns dnsmessage.ResourceHeader
	if err := edns.SetEDNS0(maxDatagram, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, err
	}
	m.Additionals = []dnsmessage.Resource{{Header: edns, Body: &dnsmessage.OPTResource{}}}
	return m.Pack()
}

func askUDP(ctx context.Context, server string, query []byte, id uint16, q dnsmessage.Question) (records []string, truncated bool, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return nil, false, withoutOperation(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer := make([]byte, maxDatagram)
	for wait := firstWait; ; wait *= 2 {
		if _, err := conn.Write(query); err != nil {
			return nil, false, withoutOperation(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, false, withoutOperation(err)
		}
		for {
			n, err := conn.Read(answer)
			if failed, ok := errors.AsType[net.Error](err); ok && failed.Timeout() && ctx.Err() == nil {
				break // it, or its answer, was lost: once more
			}
			if err != nil {
				return nil, false, withoutOperation(err)
			}
			records, truncated, ours, err := parseAnswer(answer[:n], id, q)
			if !ours {
				continue // a late one, or a forged one
			}
			return records, truncated, err
		}
	}
}

func askTCP(ctx context.Context, server string, query []byte, id uint16, q dnsmessage.Question) ([]string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, fmt.Errorf("over TCP: %w", withoutOperation(err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, fmt.Errorf("over TCP: %w", withoutOperation(err))
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, fmt.Errorf("over TCP: %w", withoutOperation(err))
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, fmt.Errorf("over TCP: %w", withoutOperation(err))
	}
	records, _, ours, err := parseAnswer(answer, id, q)
	if !ours {
		return nil, errors.New("over TCP: got the answer to another question")
	}
	return records, err
}

// parseAnswer reads an answer. It is ours when it has the question's number and
// the question.
func parseAnswer(data []byte, id uint16, q dnsmessage.Question) (records []string, truncated, ours bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(data)
	if err != nil || h.ID != id || !h.Response {
		return nil, false, false, nil //nolint:nilerr // what cannot be read may be anybody's
	}
	asked, err := p.AllQuestions()
	if err == nil && len(asked) == 1 && (asked[0].Type != q.Type || !strings.EqualFold(asked[0].Name.String(), q.Name.String())) {
		return nil, false, false, nil
	}
	switch {
	case h.RCode == dnsmessage.RCodeNameError:
		return nil, false, true, nil
	case h.RCode != dnsmessage.RCodeSuccess:
		name := dnsCodes[h.RCode]
		if name == "" {
			name = fmt.Sprintf("code %d", h.RCode)
		}
		return nil, false, true, fmt.Errorf("the server says %s", name)
	case h.Truncated:
		return nil, true, true, nil
	case err != nil:
		return nil, false, true, fmt.Errorf("read the answer: %w", err)
	}
	for {
		r, err := p.Answer()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return records, false, true, nil
		}
		if err != nil {
			return nil, false, true, fmt.Errorf("read the answer: record %d: %w", len(records)+1, err)
		}
		if r.Header.Type == q.Type { // beside addresses there are the aliases that led to them
			records = append(records, showRecord(r.Body))
		}
	}
}

func showRecord(body dnsmessage.ResourceBody) string {
	switch b := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(b.A).String()
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(b.AAAA).String()
	case *dnsmessage.CNAMEResource:
		return plainName(b.CNAME.String())
	case *dnsmessage.MXResource:
		return mxRecord(b.Pref, b.MX.String())
	case *dnsmessage.SRVResource:
		return srvRecord(b.Priority, b.Weight, b.Port, b.Target.String())
	case *dnsmessage.TXTResource:
		return strings.Join(b.TXT, "")
	}
	return ""
}
