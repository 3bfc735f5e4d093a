package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

const (
	wantURL = "http://HOST:PORT/PATH, https://HOST:PORT/PATH or unix:/PATH/OF.SOCK:/PATH"

	mostSmallFile = 1 << 20 // bytes of a file of certificates, or of a password
)

// A target is an address to ask.
type target struct {
	url    *url.URL
	socket string // path of a unix socket; empty: none
	shown  string // how messages name it: without a query
}

// parseTarget reads an address. One that has no path gets the one given.
func parseTarget(text, path string) (*target, error) {
	t := &target{}
	address := text
	if rest, ok := strings.CutPrefix(text, "unix:"); ok {
		var uri string
		t.socket, uri, _ = strings.Cut(strings.TrimPrefix(rest, "//"), ":")
		address = "http://localhost" + uri
		if t.socket == "" || uri != "" && uri[0] != '/' {
			return nil, fmt.Errorf("got %q, want %s", text, wantURL)
		}
	}
	u, err := url.Parse(address)
	switch {
	case err == nil && u.User != nil:
		// Everyone on this machine can read it in the list of processes.
		return nil, errors.New("got an address with a password in it, want that in a file")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		if strings.Contains(text, "@") {
			text = "something with @"
		}
		return nil, fmt.Errorf("got %q, want %s", text, wantURL)
	}
	if u.Path == "" {
		u.Path = path
	}
	t.url = u
	t.shown = u.Scheme + "://" + u.Host + u.EscapedPath()
	if t.socket != "" {
		t.shown = "unix:" + t.socket + ":" + u.EscapedPath()
	}
	return t, nil
}

// client asks the target and nobody else: without a proxy, and an answer that
// sends it elsewhere is the answer.
func (t *target) client(c *tls.Config) *http.Client {
	var dialer net.Dialer
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if t.socket != "" {
					network, address = "unix", t.socket
				}
				return dialer.DialContext(ctx, network, address)
			},
			TLSClientConfig:        c,
			DisableKeepAlives:      true,
			DisableCompression:     true, // what is read is bounded as it comes
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}

// credentials say whom to trust, and who asks.
type credentials struct {
	caFile, certFile, keyFile, authFile, serverName string

	insecure bool
}

func (c *credentials) needTLS() bool {
	return c.caFile != "" || c.certFile != "" || c.keyFile != "" || c.serverName != "" || c.insecure
}

func (c *credentials) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.serverName, InsecureSkipVerify: c.insecure}
	if c.caFile != "" {
		text, _, err := readSmallFile(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca-file: %s has no certificate in PEM", c.caFile)
		}
	}
	if (c.certFile == "") != (c.keyFile == "") {
		return nil, errors.New("got only one of --cert and --key, want both or none")
	}
	if c.certFile != "" {
		cert, _, err := readSmallFile(c.certFile)
		if err != nil {
			return nil, fmt.Errorf("--cert: %w", err)
		}
		key, _, err := readSmallFile(c.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("--cert and --key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// authorize adds what the file of credentials has. Messages never show it.
func (c *credentials) authorize(r *http.Request) error {
	if c.authFile == "" {
		return nil
	}
	text, mode, err := readSmallFile(c.authFile)
	if err != nil {
		return fmt.Errorf("--auth-file: %w", err)
	}
	if mode.Perm()&0o027 != 0 {
		return fmt.Errorf("--auth-file: %s has mode %04o, want 0640 or less: others can read or change it", c.authFile, mode.Perm())
	}
	line := strings.TrimSpace(string(text))
	if line == "" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("--auth-file: %s: got %d lines, want one with user:password or a bearer token", c.authFile, len(strings.Fields(line)))
	}
	if user, password, ok := strings.Cut(line, ":"); ok {
		r.SetBasicAuth(user, password)
		return nil
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimPrefix(line, "Bearer "))
	return nil
}

// readSmallFile reads a file that should be a small one. It asks before it opens:
// a pipe without a writer would hold it up.
func readSmallFile(path string) ([]byte, os.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() || info.Size() > mostSmallFile {
		return nil, 0, fmt.Errorf("%s: not a regular file of at most %d bytes", path, mostSmallFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostSmallFile))
	return text, info.Mode(), err
}
