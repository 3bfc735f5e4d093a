package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/outrider-agent/outrider/statesync/ledger/inspect"
	"github.com/outrider-agent/outrider/statesync/ledger/replay"
)

// agentLedger asks the agent that has the data directory about its ledger,
// through its control socket.
type agentLedger struct{ client *http.Client }

// askAgent returns nil when no agent listens in the data directory, or when
// it has no ledger to ask about. The file can then be read directly, and even
// were an agent there, that would do no harm.
func askAgent(ctx context.Context, dir string) *agentLedger {
	a := &agentLedger{client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, "control"))
		},
	}}}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, actURL("stat", nil), nil)
	if err != nil {
		return nil
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	// An action wants POST, and says so; where there is none it is 404.
	if resp.StatusCode != http.StatusMethodNotAllowed {
		return nil
	}
	return a
}

func actURL(verb string, q url.Values) string {
	u := url.URL{Scheme: "http", Host: "agent", Path: "/act/ledger/" + verb, RawQuery: q.Encode()}
	return u.String()
}

// ask posts and hands the answer to read.
func (a *agentLedger) ask(ctx context.Context, verb string, q url.Values, read func(io.Reader) error) error {
	q.Set("json", "true")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, actURL(verb, q), nil)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if text = bytes.TrimSpace(text); resp.StatusCode == http.StatusConflict && len(text) > 0 {
			return errors.New(string(text)) // it says why not
		}
		return fmt.Errorf("ask the agent: status %d, want 200: %s", resp.StatusCode, text)
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}

// Stat implements [ledgerReader].
func (a *agentLedger) Stat(ctx context.Context) (*inspect.Stat, error) {
	s := &inspect.Stat{}
	err := a.ask(ctx, "stat", url.Values{}, func(r io.Reader) error { return json.NewDecoder(r).Decode(s) })
	return s, err
}

// Ls implements [ledgerReader].
func (a *agentLedger) Ls(ctx context.Context, q inspect.Query, yield func(inspect.Row) error) error {
	v := url.Values{
		"last": {strconv.Itoa(q.Last)}, "after": {strconv.FormatInt(q.After, 10)},
		"uid": {q.UID}, "gaps": {strconv.FormatBool(q.Gaps)},
	}
	if q.Workload != nil {
		v.Set("workload", q.Workload.String())
	}
	return a.ask(ctx, "ls", v, func(r io.Reader) error {
		for d := json.NewDecoder(r); ; {
			var row inspect.Row
			if err := d.Decode(&row); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := yield(row); err != nil {
				return err
			}
		}
	})
}

// Verify implements [ledgerReader].
func (a *agentLedger) Verify(ctx context.Context, o inspect.VerifyOptions) (report *inspect.Report, err error) {
	v := url.Values{"findings": {strconv.Itoa(o.Findings)}, "progress": {"true"}}
	err = a.ask(ctx, "verify", v, func(r io.Reader) error {
		d := json.NewDecoder(r)
		for report == nil {
			var m inspect.Message
			if err := d.Decode(&m); err != nil {
				return err
			}
			if m.Progress != nil && o.Progress != nil {
				o.Progress(*m.Progress)
			}
			report = m.Report
		}
		return nil
	})
	return report, err
}

// Letters implements [ledgerLists].
func (a *agentLedger) Letters(ctx context.Context, q inspect.LetterQuery) (out []inspect.Letter, all int64, err error) {
	v := url.Values{"last": {strconv.Itoa(q.Last)}, "sink": {q.Sink}, "uid": {q.UID}}
	if q.Workload != nil {
		v.Set("workload", q.Workload.String())
	}
	var list inspect.LetterList
	err = a.ask(ctx, "deadletters", v, func(r io.Reader) error { return json.NewDecoder(r).Decode(&list) })
	return list.Letters, list.All, err
}

// Sinks implements [ledgerLists].
func (a *agentLedger) Sinks(ctx context.Context) (out []inspect.SinkState, err error) {
	err = a.ask(ctx, "sinks", url.Values{}, func(r io.Reader) error { return json.NewDecoder(r).Decode(&out) })
	return out, err
}

// Replay implements [replayer]. What the agent says last is what it has done:
// when the line is cut, it may have put aside a little more.
func (a *agentLedger) Replay(ctx context.Context, q replay.Query, tell func(replay.Report)) (last replay.Report, err error) {
	last = replay.Report{Sink: q.Sink, Letters: q.Letters, DryRun: q.DryRun}
	err = a.ask(ctx, "replay", q.Values(), func(r io.Reader) error {
		for d := json.NewDecoder(r); ; {
			var now replay.Report
			err := d.Decode(&now)
			switch {
			case errors.Is(err, io.EOF):
				return errors.New("it ends before the replay: the agent has stopped")
			case err != nil:
				return err
			}
			if last = now; now.Ended || now.Error != "" {
				return nil
			}
			tell(now)
		}
	})
	if err == nil && last.Error != "" {
		err = errors.New(last.Error)
	}
	return last, err
}

// tellAgent has the agent do what needs no answer but yes.
func (a *agentLedger) tellAgent(ctx context.Context, verb, sink string) (said string, err error) {
	err = a.ask(ctx, verb, url.Values{"sink": {sink}}, func(r io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(r, 4096))
		said = string(b)
		return err
	})
	return said, err
}

// Close implements [ledgerReader].
func (a *agentLedger) Close() error {
	a.client.CloseIdleConnections()
	return nil
}
