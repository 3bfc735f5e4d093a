package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"outrider":     func() { os.Exit(run(commandLine(os.Args))) },
		"check_digest": func() { os.Exit(run(commandLine(os.Args))) },
	})
}

func TestCommand(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, UpdateScripts: os.Getenv("UPDATE") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitready": waitReady, "waitpage": waitPage, "hangup": hangUp,
			"post": postControl, "wrong": wrongUsage, "occupy": occupy, "empty": emptyFolder, "waitbytes": waitBytes,
		},
	})
}

// waitReady waits until the agent answers /livez on the unix socket public.
func waitReady(ts *testscript.TestScript, _ bool, _ []string) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", ts.MkAbs("public"))
		},
	}}
	deadline := time.Now().Add(20 * time.Second)
	for {
		resp, err := client.Get("http://agent/livez")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the agent was not ready in 20s: %v", err)
		}
	}
}
