package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// readPublic reads a page of the agent on the unix socket public.
func readPublic(ts *testscript.TestScript, path string) (string, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", ts.MkAbs("public"))
		},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://agent" + path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// waitPage waits until a page of the agent has what a pattern matches.
func waitPage(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: waitpage path pattern")
	}
	pattern, deadline := regexp.MustCompile(args[1]), time.Now().Add(20*time.Second)
	for {
		page, err := readPublic(ts, args[0])
		if err == nil && pattern.MatchString(page) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no %q on %s in 20s: %v\n%s", args[1], args[0], err, page)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// hangUp sends SIGHUP to the agent.
func hangUp(ts *testscript.TestScript, _ bool, _ []string) {
	page, err := readPublic(ts, "/healthz")
	ts.Check(err)
	var digest struct{ PID int }
	ts.Check(json.Unmarshal([]byte(page), &digest))
	agent, err := os.FindProcess(digest.PID)
	ts.Check(err)
	ts.Check(agent.Signal(syscall.SIGHUP))
}
