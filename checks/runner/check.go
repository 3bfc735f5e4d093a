package runner

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// The groups a check can join.
const (
	LiveGroup    = "live"    // its failure asks for the process to be restarted
	ReadyGroup   = "ready"   // its failure takes the process out of service
	StartupGroup = "startup" // until it has passed once, the process is still starting
)

// A Check is one question about health, and how often to ask it.
type Check struct {
	// Name is unique in a runner: at most 200 of [a-z0-9._/-], such as
	// "stream/pods".
	Name string

	Category verdict.Category // default page

	// Groups are the Kubernetes probes that the check speaks for: "live",
	// "ready", "startup", several of them or, the default, none. A check of
	// group live also counts for readiness.
	Groups []string

	// DependsOn names the checks without which this one cannot pass: while one of
	// them fails, and somebody is told of it as loudly as of this check would be
	// (a failure of category page is not explained by one of category email), this
	// one is unknown, because of that one. A name that is not known, maybe not
	// yet, explains nothing. At most 20.
	DependsOn []string

	// Every is the longest time between the starts of two runs, default 10 s.
	// Timeout is the deadline of one run, at most Every; default 80 % of
	// Every, at most 5 s. StaleAfter is the age at which the last result
	// counts as a failure, at least Every and Timeout together; default three
	// times Every.
	Every, Timeout, StaleAfter time.Duration

	// FailAfter and PassAfter are how many results in a row change the
	// verdict for the worse and for the better. Default 1 each.
	FailAfter, PassAfter int

	Runbook string // where the on-call engineer reads on: a URL

	// Revision tells a check from one of its name that asks something else: it makes
	// [Runner.Renew] run it at once.
	Revision int

	// Run answers the question. It must return when ctx ends: if it does not,
	// it is unknown, then a failure, and it is not called again before it has
	// returned. It never runs twice at once. A panic is a failure. The
	// result's At and Took are filled in by the runner.
	Run func(ctx context.Context) verdict.Result
}

const (
	defaultEvery      = 10 * time.Second
	maxDefaultTimeout = 5 * time.Second
	maxNameLen        = 200
	maxDependsOn      = 20
)

func (c Check) withDefaults() Check {
	if c.Category == "" {
		c.Category = verdict.Page
	}
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.Timeout == 0 {
		c.Timeout = min(c.Every*8/10, maxDefaultTimeout)
	}
	if c.StaleAfter == 0 {
		c.StaleAfter = 3 * c.Every
	}
	if c.FailAfter == 0 {
		c.FailAfter = 1
	}
	if c.PassAfter == 0 {
		c.PassAfter = 1
	}
	c.Groups = slices.Compact(slices.Sorted(slices.Values(c.Groups)))
	c.DependsOn = slices.Compact(slices.Sorted(slices.Values(c.DependsOn)))
	return c
}

// validate expects the defaults to be filled in.
func (c Check) validate() error {
	if !validName(c.Name) {
		return fmt.Errorf("name, want 1 to %d of [a-z0-9._/-]", maxNameLen)
	}
	if c.Name == heartbeatName {
		return errors.New("name is taken by the runner's own heartbeat")
	}
	if c.Name == AllChecks {
		return errors.New("name stands for all checks")
	}
	if c.Run == nil {
		return errors.New("run: nil, want a function")
	}
	if c.Category != verdict.Page && c.Category != verdict.Email {
		return fmt.Errorf("category %q, want page or email", c.Category)
	}
	for _, g := range c.Groups {
		if g != LiveGroup && g != ReadyGroup && g != StartupGroup {
			return fmt.Errorf("group %q, want live, ready or startup", g)
		}
	}
	if n := len(c.DependsOn); n > maxDependsOn {
		return fmt.Errorf("depends on %d checks, want at most %d", n, maxDependsOn)
	}
	if c.Every < 0 {
		return fmt.Errorf("every %v, want more than 0", c.Every)
	}
	if c.Timeout < 0 || c.Timeout > c.Every {
		return fmt.Errorf("timeout %v, want at most every (%v)", c.Timeout, c.Every)
	}
	if least := c.Every + c.Timeout; c.StaleAfter < least {
		// With less, a slow run that is still in time would count as stale.
		return fmt.Errorf("stale_after %v, want at least every and timeout together (%v)", c.StaleAfter, least)
	}
	if c.FailAfter < 0 || c.PassAfter < 0 {
		return fmt.Errorf("fail_after %d, pass_after %d, want at least 1", c.FailAfter, c.PassAfter)
	}
	return nil
}

// same reports whether two checks are described alike, but for what they run.
func (c Check) same(o Check) bool {
	c.Run, o.Run = nil, nil
	return reflect.DeepEqual(c, o)
}

// String tells two checks of one name apart.
func (c Check) String() string {
	s := fmt.Sprintf("%s every %v", c.Category, c.Every)
	if len(c.Groups) > 0 {
		s += ", group " + strings.Join(c.Groups, " and ")
	}
	if c.Runbook != "" {
		s += ", runbook " + c.Runbook
	}
	return s
}

func (c Check) policy() verdict.Policy {
	return verdict.Policy{
		FailAfter: c.FailAfter, PassAfter: c.PassAfter, StaleAfter: c.StaleAfter,
		FlapHigh: verdict.FlapHigh, FlapLow: verdict.FlapLow,
	}
}

func validName(name string) bool {
	return name != "" && len(name) <= maxNameLen && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._/-", r)
	})
}

// An entry is a check with its verdict.
type entry struct {
	check  Check
	policy verdict.Policy
	state  atomic.Pointer[verdict.State] // written with Runner.mu held, read without

	cameUp atomic.Bool // it has passed once: for the startup probe

	// Guarded by Runner.mu.
	due     time.Time // when to run it next
	flight  *flight   // the run that holds the slot; nil when it is free
	removed bool
}

func newEntry(c Check, now time.Time) *entry {
	e := &entry{check: c, policy: c.policy(), due: now}
	s := verdict.New(now)
	e.state.Store(&s)
	return e
}

// at is the verdict at a moment. It takes no lock.
func (e *entry) at(now time.Time) verdict.State {
	return verdict.At(*e.state.Load(), e.policy, now)
}

func (e *entry) in(group string) bool { return slices.Contains(e.check.Groups, group) }
