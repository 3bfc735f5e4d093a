package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// postControl posts a form to the agent's control socket, and wants a status.
func postControl(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 || neg {
		ts.Fatalf("usage: post status path form")
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", ts.MkAbs("outrider-data/control"))
		},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://agent"+args[1], "application/x-www-form-urlencoded", strings.NewReader(args[2]))
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("POST %s: status %d, want %s: %s", args[1], resp.StatusCode, args[0], body)
	}
}

// TestVerdictsAsServiceChecks is of what Datadog gets.
func TestVerdictsAsServiceChecks(t *testing.T) {
	t.Parallel()
	r := runner.New(runner.Options{Log: slog.New(slog.DiscardHandler)})
	says := func(name string, category verdict.Category, v verdict.Result) runner.Check {
		return runner.Check{Name: name, Category: category, Run: func(context.Context) verdict.Result { return v }}
	}
	if err := r.Add(says("db", verdict.Page, verdict.Result{Message: "fine"}), says("cache", verdict.Email, verdict.Result{Status: verdict.Fail, Message: "refused"})); err != nil {
		t.Fatal(err)
	}
	if err := r.RunNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range told(r) {
		key := v.Name
		for _, tag := range v.Tags {
			key += " " + tag.Name + ":" + tag.Value
		}
		got[key] = v.Status.String() + " " + v.Message
	}
	delete(got, "outrider.check category:page check:runner") // it has not begun
	delete(got, "outrider.digest category:page")
	want := map[string]string{
		"outrider.check category:page check:db":     "pass fine",
		"outrider.check category:email check:cache": "fail refused",
		"outrider.digest category:email":            "fail 1 of 1 check fails: cache",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("service checks (-want +got):\n%s", diff)
	}
}
