package sinks

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		allow []string
		addr  string
		says  string // empty: it is connected to
	}{
		{nil, "127.0.0.1", ""},
		{nil, "::1", ""},
		{nil, "10.1.2.3", ""},
		{nil, "192.168.0.1", ""},
		{nil, "100.64.0.1", ""},
		{nil, "fd12:3456::1", ""},
		{nil, "93.184.216.34", ""},
		{nil, "2606:2800:220::1", ""},
		{nil, "64:ff9b::5db8:d822", ""},
		{nil, "64:ff9b:1::5db8:d822", ""},
		{nil, "64:ff9b:1:5db8:d8:2200::", ""},
		{nil, "2001:0:1::aa47:27dd", ""},
		{nil, "::93.184.216.34", ""},

		{nil, "169.254.169.254", "link-local"},
		{nil, "169.254.0.0", "link-local"},
		{nil, "169.254.255.255", "link-local"},
		{nil, "::ffff:169.254.169.254", "link-local"},
		{nil, "::ffff:a9fe:a9fe", "link-local"},
		{nil, "64:ff9b::a9fe:a9fe", "link-local"},
		{nil, "2002:a9fe:a9fe::1", "link-local"},
		{nil, "64:ff9b:1::a9fe:a9fe", "link-local"},
		{nil, "64:ff9b:1:a9fe:a9:fe00::", "link-local"},
		{nil, "64:ff9b:1:a9:fe:a9fe::", "link-local"},
		{nil, "64:ff9b:1::a9:fea9:fe00:0", "link-local"},
		{nil, "::ffff:0:a9fe:a9fe", "link-local"},
		{nil, "::169.254.169.254", "link-local"},
		{nil, "2001:0:1::5601:5601", "link-local"},
		{nil, "2001:0:a9fe:a9fe::1", "link-local"},
		{nil, "fe80::1", "link-local"},
		{nil, "fe80::1%eth0", "link-local"},
		{nil, "febf::1", "link-local"},
		{nil, "fd00:ec2::254", "metadata"},
		{nil, "fd00:ec2::23", "metadata"},
		{nil, "fd20:ce::254", "metadata"},
		{nil, "100.100.100.200", "metadata"},
		{nil, "::ffff:100.100.100.200", "metadata"},
		{nil, "168.63.129.16", "metadata"},
		{nil, "192.0.0.192", "metadata"},
		{nil, "224.0.0.1", "multicast"},
		{nil, "239.255.255.255", "multicast"},
		{nil, "ff02::1", "multicast"},
		{nil, "0.0.0.0", "unspecified"},
		{nil, "0.1.2.3", "unspecified"},
		{nil, "::", "unspecified"},
		{nil, "::ffff:0.0.0.0", "unspecified"},
		{nil, "255.255.255.255", "broadcast"},

		{[]string{"10.0.0.0/8", "fd00::/8"}, "10.255.0.1", ""},
		{[]string{"10.0.0.0/8", "fd00::/8"}, "::ffff:10.255.0.1", ""},
		{[]string{"10.0.0.0/8", "fd00::/8"}, "fd12::1", ""},
		{[]string{"10.0.0.0/8", "fd00::/8"}, "fd00:ec2::254", "metadata"},
		{[]string{"10.0.0.0/8", "fd00::/8"}, "11.0.0.1", "not in allow_addresses"},
		{[]string{"10.0.0.0/8", "fd00::/8"}, "127.0.0.1", "not in allow_addresses"},
		{[]string{"10.1.2.3"}, "10.1.2.3", ""},
		{[]string{"10.1.2.3"}, "10.1.2.4", "not in allow_addresses"},
		{[]string{"10.1.2.3/8"}, "10.9.9.9", ""},
		{[]string{"0.0.0.0/0"}, "169.254.169.254", "link-local"},
		{[]string{"0.0.0.0/0"}, "93.184.216.34", ""},
		{[]string{"::/0"}, "93.184.216.34", "not in allow_addresses"},
		{[]string{"169.254.169.254"}, "169.254.169.254", ""},
		{[]string{"169.254.0.0/16"}, "169.254.1.1", ""},
		{[]string{"169.254.169.0/24"}, "169.254.1.1", "not in allow_addresses"},
		{[]string{"0.0.0.0/0", "169.254.7.0/24"}, "169.254.7.7", ""},
		{[]string{"0.0.0.0/0", "169.254.7.0/24"}, "169.254.169.254", "link-local"},
		{[]string{"fd00:ec2::254"}, "fd00:ec2::254", ""},
	} {
		g, errs := newGuard(tt.allow)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		address := netip.AddrPortFrom(netip.MustParseAddr(tt.addr), 80).String()
		err := g.control("tcp", address, nil)
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%v, %s: %v", tt.allow, tt.addr, err)
		case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%v, %s: error %v, want %q", tt.allow, tt.addr, err, tt.says)
		}
	}
	g, _ := newGuard(nil)
	if g.control("tcp", "platform.example:80", nil) == nil {
		t.Error("a name was let pass, want an address")
	}
}

// TestWebhookRefusesAddresses where it connects: whatever they are called.
func TestWebhookRefusesAddresses(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, port, err := net.SplitHostPort(rec.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := webhook(t, "http://platform.example:"+port+"/"+token)
	var answer atomic.Value
	// A resolver that says something else each time.
	d := (&guard{refused: refusedRanges()}).dialer()
	d.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go resolve(theirs, answer.Load().(netip.Addr))
		return ours, nil
	}}
	s.transport.DialContext = d.DialContext
	for _, addr := range []string{"127.0.0.1", "169.254.169.254", "0.0.0.0", "100.100.100.200", "127.0.0.1"} {
		answer.Store(netip.MustParseAddr(addr))
		s.transport.CloseIdleConnections()
		err := post(t.Context(), s, delivery("a", 1))
		if addr == "127.0.0.1" {
			if err != nil {
				t.Errorf("%s: %v", addr, err)
			}
			continue
		}
		if e := refusal(t, err, "address"); e.Rejected || !strings.Contains(e.Error(), addr+", ") {
			t.Errorf("%s: rejected %t: %v, want it to be tried again, and to name the address", addr, e.Rejected, e)
		}
	}
	if n := len(rec.seen()); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}

	only := webhook(t, strings.Replace(rec.URL, "127.0.0.1", "localhost", 1), func(c *WebhookConfig) { c.AllowAddresses = []string{"10.0.0.0/8"} })
	refusal(t, post(t.Context(), only, delivery("a", 1)), "address")
}

// resolve answers one question of DNS over a stream: the A of any name.
func resolve(c net.Conn, addr netip.Addr) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		q := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, q); err != nil {
			return
		}
		end := 12
		for q[end] != 0 {
			end += int(q[end]) + 1
		}
		end += 5 // the root, type and class
		a := append([]byte{}, q[:end]...)
		a[2], a[3] = 0x81, 0x80                         // an answer
		copy(a[6:12], []byte{0, 0, 0, 0, 0, 0})         // of nothing
		if isA := q[end-4] == 0 && q[end-3] == 1; isA { // of one record
			a[7] = 1
			ip := addr.As4()
			a = append(append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), ip[:]...)
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)); err != nil {
			return
		}
	}
}

// TestWebhookProxy: only one that is configured, and it is the proxy whose
// address counts.
func TestWebhookProxy(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	var mu sync.Mutex
	var seen []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.RequestURI+" "+r.Header.Get("Proxy-Authorization"))
		mu.Unlock()
		if r.Method == http.MethodConnect {
			http.Error(w, "no "+token, http.StatusForbidden)
			return
		}
		r.RequestURI = ""
		resp, err := rec.Client().Transport.RoundTrip(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
	}))
	t.Cleanup(proxy.Close)
	address := strings.Replace(proxy.URL, "http://", "http://user:"+token+"@", 1)
	through := func(c *WebhookConfig) { c.Proxy = config.NewSecret(address) }
	if err := post(t.Context(), webhook(t, rec.URL+"/changes", through), delivery("a", 1)); err != nil {
		t.Fatal(err)
	}
	refusal(t, post(t.Context(), webhook(t, "https://platform.example/changes", through), delivery("a", 1)), "network")
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+token))
	if diff := cmp.Diff([]string{"POST " + rec.URL + "/changes " + auth, "CONNECT platform.example:443 " + auth}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// Nobody answers there: the error tells of the proxy without its password.
	proxy.Close()
	refusal(t, post(t.Context(), webhook(t, rec.URL, through), delivery("a", 1)), "network")
	guarded := webhook(t, rec.URL, func(c *WebhookConfig) {
		c.Proxy = config.NewSecret(strings.Replace(address, "127.0.0.1", "localhost", 1))
		c.AllowAddresses = []string{"10.0.0.0/8"}
	})
	refusal(t, post(t.Context(), guarded, delivery("a", 1)), "address")
}

// TestWebhookIgnoresTheEnvironmentsProxies cannot be parallel: net/http reads
// them once.
func TestWebhookIgnoresTheEnvironmentsProxies(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://169.254.169.254:1")
	t.Setenv("http_proxy", "http://169.254.169.254:1")
	s := webhook(t, "http://platform.example")
	if s.transport.Proxy != nil {
		u, err := s.transport.Proxy(&http.Request{URL: &url.URL{Scheme: "http", Host: "platform.example"}})
		t.Errorf("proxy %v (%v), want none", u, err)
	}
}

func TestWebhookConnectionConfigRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := newAuthority(t)
	cert, key := a.issue(t, "agent")
	_, otherKey := a.issue(t, "other")
	for name, text := range map[string][]byte{"ca.pem": a.pem, "cert.pem": cert, "key.pem": key, "other.pem": otherKey, "not.pem": []byte("T0PSECRET")} {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		sink, want string // DIR stands for the folder; want is empty when it is accepted
	}{
		{"url: https://h, batch: 1000", ""},
		{"url: https://h, batch: 0", "batch: got 0, want 1 to 1000"},
		{"url: https://h, batch: 1001", "batch: got 1001"},
		{"url: https://h, secret_file: DIR/cert.pem, old_secret_file: DIR/key.pem", ""},
		{"url: https://h, old_secret_file: DIR/key.pem", "old_secret_file: got an old key without a new one, want the new one as secret_file"},
		{"url: https://h, tls: {}", ""},
		{"url: https://h, tls: {ca_file: DIR/ca.pem, cert_file: DIR/cert.pem, key_file: DIR/key.pem, server_name: x}", ""},
		{"url: http://h, tls: {server_name: x}", "tls: got settings for an address that begins with http://"},
		{"url: https://h, tls: {ca_file: DIR/none}", "tls.ca_file: got DIR/none: no such file, want a readable file of certificates in PEM"},
		{"url: https://h, tls: {ca_file: DIR/folder}", "tls.ca_file: got DIR/folder: not a regular file"},
		{"url: https://h, tls: {ca_file: DIR/not.pem}", "tls.ca_file: got DIR/not.pem: no certificate"},
		{"url: https://h, tls: {cert_file: DIR/cert.pem}", "tls.key_file: got nothing beside cert_file, want both or none"},
		{"url: https://h, tls: {key_file: DIR/key.pem}", "tls.cert_file: got nothing beside key_file, want both or none"},
		{"url: https://h, tls: {cert_file: DIR/cert.pem, key_file: DIR/other.pem}", "private key does not match public key"},
		{"url: https://h, tls: {cert_file: DIR/cert.pem, key_file: DIR/not.pem}", "tls.cert_file: got DIR/cert.pem: "},
		{"url: https://h, tls: {cert_file: DIR/none, key_file: DIR/key.pem}", "tls.cert_file: got client certificate: DIR/none: no such file"},
		{"url: https://h, tls: {insecure: true}", "insecure"},
		{"url: https://h, proxy: http://user:T0PSECRET@proxy:3128", ""},
		{"url: https://h, proxy: socks5://proxy:1080", ""},
		{"url: https://h, proxy: https://user:T0PSECRET@proxy", "proxy: got an address that does not begin with http:// or socks5://"},
		{"url: https://h, proxy: http:///T0PSECRET", "proxy: got an address without a host"},
		{"url: https://h, allow_addresses: [10.0.0.0/8, 'fd00::1']", ""},
		{"url: https://h, allow_addresses: [10.0.0.0/8, platform.example]", `allow_addresses[1]: got "platform.example", want an address or a range such as 10.0.0.0/8`},
		{"url: https://h, allow_addresses: [10.0.0.0/33]", "allow_addresses[0]"},
		{"url: https://h, allow_addresses: ['::ffff:10.0.0.0/104']", "allow_addresses[0]"},
		{"url: https://h, allow_addresses: ['fe80::1%eth0']", "allow_addresses[0]"},
		{"url: http://169.254.169.254/T0PSECRET", "url: got 169.254.169.254, a link-local address that allow_addresses does not name, want an address that is allowed"},
		{"url: 'http://[::ffff:169.254.169.254]/T0PSECRET'", "url: got 169.254.169.254"},
		{"url: http://169.254.169.254/T0PSECRET, allow_addresses: [169.254.169.254]", ""},
		{"url: http://10.0.0.1/, allow_addresses: [10.2.0.0/16]", "url: got 10.0.0.1, which is not in allow_addresses"},
		{"url: http://10.0.0.1/, allow_addresses: [10.2.0.0/16], proxy: http://10.2.0.1:3128", ""},
		{"url: http://10.0.0.1/, proxy: http://169.254.0.1:3128", "proxy: got 169.254.0.1"},
	} {
		_, err := parse(t, "webhook: {"+strings.ReplaceAll(tt.sink, "DIR", dir)+"}")
		want := strings.ReplaceAll(tt.want, "DIR", dir)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", tt.sink, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want %q", tt.sink, err, want)
		case err != nil && strings.Contains(err.Error(), "T0PSECRET"):
			t.Errorf("%s: the error holds the secret: %v", tt.sink, err)
		}
	}
}
