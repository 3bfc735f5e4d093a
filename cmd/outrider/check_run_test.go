package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// fakeKind is a kind that answers as it is told.
type fakeKind struct {
	Say    string            `yaml:"say" required:"true"`
	Status verdict.Status    `yaml:"status"`
	Codes  []int             `yaml:"codes"`
	TLS    fakeTLS           `yaml:"tls"`
	Header map[string]string `yaml:"header"`
}

type fakeTLS struct {
	Name string `yaml:"name"`
}

func (k *fakeKind) Build(checks.Env) (checks.Checker, error) {
	if k.Say == "refuse" {
		return nil, errors.New("no such thing")
	}
	return k, nil
}

func (k *fakeKind) Check(ctx context.Context) verdict.Result {
	switch k.Say {
	case "panic":
		panic("oops | $x")
	case "hang":
		select {} // whatever ctx says
	case "wait":
		<-ctx.Done()
		return verdict.Result{Status: verdict.Fail, Message: "waited"}
	}
	v := float64(len(k.Codes))
	return verdict.Result{Status: k.Status, Message: k.Say + k.TLS.Name, Value: &v, Unit: "seconds"}
}

func TestAKindRunsOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"say=10:"}, 0, "PASS fake: 10: | fake=0s\n"},
		{[]string{"say=@a #b", "status=warn"}, 1, "WARN fake: @a #b | fake=0s\n"},
		{[]string{"say=x", "codes=[200, 204]", "tls.name=y"}, 0, "PASS fake: xy | fake=2s\n"},
		{[]string{"{say: x, status: fail}"}, 2, "FAIL fake: x | fake=0s\n"},
		{[]string{"{say: x}", "tls.name=y"}, 0, "PASS fake: xy | fake=0s\n"},
		{[]string{"say=a=b"}, 0, "PASS fake: a=b | fake=0s\n"},
		{[]string{"say=panic"}, 2, "FAIL fake: panic: oops / _x at outrider.(*fakeKind).Check:"},
		{[]string{"say=wait", "-t", "50ms"}, 2, "FAIL fake: waited\n"},
		{[]string{"say=hang", "-t", "50ms"}, 2, "FAIL fake: no answer in 50ms\n"},
		{[]string{"say=refuse"}, 3, "UNKNOWN fake: no such thing\n"},
		{nil, 3, "UNKNOWN say: got nothing, want text; see check fake --help\n"},
		{[]string{"say=x", "sya=x"}, 3, "sya: got an unknown key"},
		{[]string{"say=x", "status=good"}, 3, "status: got good, want pass, warn, fail or unknown"},
		{[]string{"say=x", "say=y"}, 3, "say: got"},
		{[]string{"say"}, 3, "got say, want key=value"},
		{[]string{"{say: x"}, 3, "got {say: x"},
		{[]string{"{say: x} {}"}, 3, "UNKNOWN got {say: x} {}"},
		{[]string{"say=[x]"}, 3, "say: got a list, want text"},
		{[]string{"tls=[", "say=x"}, 3, "tls: got ["},
		{[]string{"say=x", "-x"}, 3, "unknown shorthand flag"},
	} {
		out, code := runCheckCommand(t, append([]string{"fake"}, tt.args...)...)
		if code != tt.code || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("check fake %q: got exit code %d and %q, want %d and %q", tt.args, code, out, tt.code, tt.want)
		}
	}
}

func TestAFileRunsOnce(t *testing.T) {
	t.Parallel()
	var items []checks.Item
	for _, k := range []*fakeKind{{Say: "one"}, {Say: "two", Status: verdict.Unknown}, {Say: "panic"}, {Say: "four\nlines", Status: verdict.Warn}} {
		items = append(items, checks.Item{
			Item:     config.Item{Name: strings.Fields(k.Say)[0], Kind: "fake", Config: k},
			Category: verdict.Email, Every: time.Second,
		})
	}
	run := func(names ...string) (string, error) {
		c := checkRunCommand(func(path string) ([]checks.Item, error) {
			if path != "x.yaml" {
				return nil, usageError(errors.New(path + ": no such file"))
			}
			return items, nil
		})
		c.SilenceErrors, c.SilenceUsage = true, true
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetArgs(names)
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	out, err := run("-c", "x.yaml")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if !errors.Is(err, exitCode(2)) || len(lines) != 5 {
		t.Fatalf("got %v and\n%s, want exit code 2 and a line a check", err, out)
	}
	for i, want := range []string{"CHECK KIND CATEGORY STATUS", "panic fake email fail", "two fake email unknown", "four fake email warn", "one fake email pass"} {
		if got := strings.Join(strings.Fields(lines[i])[:4], " "); got != want {
			t.Errorf("line %d: got %q, want %q", i, got, want)
		}
	}
	if out, err = run("-c", "x.yaml", "one", "four"); !errors.Is(err, exitCode(1)) || strings.Count(out, "\n") != 3 {
		t.Errorf("two of them: got %v and\n%s, want exit code 1 and two checks", err, out)
	}
	if out, err = run("-c", "x.yaml", "nine"); !errors.Is(err, exitCode(3)) || !strings.Contains(out, "x.yaml: got check nine, want one of one, two, panic, four") {
		t.Errorf("one that is not there: got %v and %q", err, out)
	}
	if out, err = run(); !errors.Is(err, exitCode(3)) || !strings.HasPrefix(out, "UNKNOWN outrider.yaml: no such file") {
		t.Errorf("no file: got %v and %q", err, out)
	}
}
