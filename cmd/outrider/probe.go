package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/checks/verdict"
)

func probeCommand() *cobra.Command {
	within := seconds(time.Second)
	var who credentials
	c := &cobra.Command{
		Use:   "probe URL",
		Short: "Ask a URL once, for an exec probe where there is no shell",
		Long: `Ask a URL once and say the answer's status in one line, for an exec probe in an
image without a shell. Exit code 0: the status is 200 to 399, as kubelet has it of
its own probes; 1: it is another, or there is no answer in time; 2: a wrong command
line. A redirect is an answer and not followed. A path is / when there is none.`,
		Example: `  outrider probe http://127.0.0.1:9610/livez
  outrider probe unix:/run/outrider.sock:/readyz --timeout 500ms`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			t, err := parseTarget(args[0], "/")
			if err != nil {
				return usageError(err)
			}
			trust, err := who.tls()
			if err != nil {
				return usageError(err)
			}
			ctx, cancel := context.WithTimeout(c.Context(), time.Duration(within))
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url.String(), nil)
			if err != nil {
				return usageError(err)
			}
			said, err := probe(t.client(trust), req, time.Duration(within))
			if err != nil {
				return fmt.Errorf("probe %s: %w", t.shown, err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", t.shown, said)
			return err
		},
	}
	c.Flags().Var(&within, "timeout", "seconds, or a duration, for all of it")
	c.Flags().StringVar(&who.caFile, "ca-file", "", "certificates to trust, in PEM, instead of the system's")
	c.Flags().BoolVar(&who.insecure, "insecure", false, "trust any certificate, as kubelet does")
	return c
}

// probe returns the status, and how the answer begins.
func probe(client *http.Client, r *http.Request, within time.Duration) (string, error) {
	r.Header.Set("User-Agent", "outrider-probe/"+version)
	resp, err := client.Do(r)
	if err != nil {
		return "", noAnswer(r.Context(), err, within)
	}
	defer resp.Body.Close()
	// The status is the answer: a body that breaks off, or has no end, changes
	// nothing about it.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	said := verdict.Clean(fmt.Sprintf("status %d%s", resp.StatusCode, beginning(body)))
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return "", fmt.Errorf("%s, want 200 to 399", said)
	}
	return said, nil
}
