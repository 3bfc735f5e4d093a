package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"help":            {[]string{"--help"}, 0, "receiver --secret-file hook.key"},
		"an unknown flag": {[]string{"--x"}, 2, "not defined"},
		"an argument":     {[]string{"x"}, 2, `got an argument "x"`},
		"a wrong forget":  {[]string{"--forget", "0s"}, 2, "more than 0"},
		"an old key only": {[]string{"--old-secret-file", "x"}, 2, "needs --secret-file"},
		"no key":          {[]string{"--secret-file", "does-not-exist"}, 1, "read key"},
		"no address":      {[]string{"--listen", "127.0.0.1:x"}, 1, "listen"},
		"no store":        {[]string{"--store", "does/not/exist"}, 1, "open store"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if got := run(t.Context(), tt.args, &out, &errs); got != tt.code || !strings.Contains(errs.String(), tt.want) {
				t.Errorf("code %d, want %d; got %s, want %q", got, tt.code, errs.String(), tt.want)
			}
		})
	}
}

// TestInterrupted runs the command until it is interrupted: it prints the
// report, and its code says whether something is missing.
func TestInterrupted(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		code int
		want string
	}{
		"whole":   {change("a", 1, 0, ""), 0, "whole: nothing is missing"},
		"missing": {change("a", 3, 2, ""), 1, "missing     n/Pod/a seq 1..2: NOT ACCOUNTED FOR"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			out, stdout := io.Pipe()
			code := make(chan int, 1)
			go func() {
				code <- run(ctx, []string{"--listen", "127.0.0.1:0", "--store", filepath.Join(t.TempDir(), "s")}, stdout, io.Discard)
				stdout.Close()
			}()
			lines := bufio.NewReader(out)
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			url := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
			resp, err := http.Post(url, oneEvent, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			interrupt()
			rest, err := io.ReadAll(lines)
			if got := <-code; err != nil || got != tt.code || !strings.Contains(string(rest), tt.want) {
				t.Errorf("code %d, error %v, want %d and %q in\n%s", got, err, tt.code, tt.want, rest)
			}
		})
	}
}
