// Package checks has the kinds of check: each answers "is it healthy?" of one thing.
package checks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/runner"
	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/metrics"
)

// A Checker answers its question. It returns soon after ctx ends, and is called by
// one goroutine at a time. What it cannot find out is unknown; what does not answer
// fails.
type Checker interface {
	Check(ctx context.Context) verdict.Result
}

// A Builder is the configuration of one kind: it makes the checker that it
// describes.
type Builder interface {
	// Build makes the checker. It opens nothing that must be closed.
	Build(Env) (Checker, error)
}

// Env is what a checker is made in.
type Env struct {
	Name string // of the item in the configuration
	Log  *slog.Logger
	Now  func() time.Time

	// Series finds series in the last hour; nil where there is none.
	Series Series

	Pipelines func() []metrics.PipelineSnapshot // all that the agent knows

	Heartbeats *Heartbeats // nil: nobody listens for signs of life
	Workloads  Workloads   // nil: there is no state sync
}

// An Item is one entry of the configuration's checks.
type Item struct {
	config.Item
	Category verdict.Category `yaml:"category" default:"page"`

	// Every is the time between the starts of two runs, and Timeout the deadline
	// of one; default 80 % of Every, 5 s at most. A result older than StaleAfter
	// is a failure; default three times Every.
	Every      time.Duration `yaml:"every" default:"10s"`
	Timeout    time.Duration `yaml:"timeout"`
	StaleAfter time.Duration `yaml:"stale_after"`

	// FailAfter and PassAfter are how many results in a row change the verdict for
	// the worse and for the better.
	FailAfter int `yaml:"fail_after" default:"1"`
	PassAfter int `yaml:"pass_after" default:"1"`

	// DependsOn are checks without which this one says nothing: while one of them
	// fails, its own failure does not count.
	DependsOn []string `yaml:"depends_on"`

	Groups  []string `yaml:"groups"`  // the probes it speaks for: live, ready, startup
	Runbook string   `yaml:"runbook"` // where to read on: a URL
}

// itemName leaves / to the agent's own checks and to those of neighbours.
// Read-only.
var itemName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// ownNames are those of the agent's own checks that have no /, and what stands for
// all of them. Read-only.
var ownNames = []string{"all", "cluster", "ledger", "runner", "sinks"}

// Validate checks what all kinds have in common.
func (i *Item) Validate() error {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	switch {
	case !itemName.MatchString(i.Name):
		wrong("name", fmt.Sprintf("%q", i.Name), "lower-case letters, digits, . _ and -, 63 at most")
	case slices.Contains(ownNames, i.Name):
		wrong("name", i.Name, "another one: the agent has a check of this name")
	}
	if i.Category != verdict.Page && i.Category != verdict.Email {
		wrong("category", string(i.Category), "page or email")
	}
	if i.Every < 100*time.Millisecond || i.Every > 24*time.Hour {
		wrong("every", i.Every.String(), "100ms to 24h")
	}
	if i.Timeout < 0 || i.Timeout > i.Every {
		wrong("timeout", i.Timeout.String(), "1ms to every, which is "+i.Every.String())
	}
	timeout := i.Timeout
	if timeout == 0 {
		timeout = min(i.Every*8/10, 5*time.Second)
	}
	if least := i.Every + timeout; i.StaleAfter != 0 && i.StaleAfter < least {
		wrong("stale_after", i.StaleAfter.String(), "at least every and timeout together, which is "+least.String())
	}
	for key, n := range map[string]int{"fail_after": i.FailAfter, "pass_after": i.PassAfter} {
		if n < 1 || n > 100 {
			wrong(key, fmt.Sprint(n), "1 to 100 results")
		}
	}
	for n, g := range i.Groups {
		if g != runner.LiveGroup && g != runner.ReadyGroup && g != runner.StartupGroup {
			wrong(fmt.Sprintf("groups[%d]", n), g, "live, ready or startup")
		}
	}
	if u, err := url.Parse(i.Runbook); i.Runbook != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		wrong("runbook", i.Runbook, "a URL such as https://runbooks.example/volume")
	}
	return errors.Join(errs...)
}
