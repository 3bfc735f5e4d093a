package runner

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// AllCategories in a [Query] asks for the checks of every category.
const AllCategories = "all"

// A Query says which checks a digest shows and counts.
type Query struct {
	Category string    // page, email or all; empty means page, or all when Check is given
	Group    string    // live, ready (which live belongs to), startup or, empty, whatever group
	Check    string    // the name of one check; empty means all
	Now      time.Time // the moment to judge ages by; zero means now
}

// A Digest is the verdicts on many checks as one document. Its JSON form is that
// of draft-inadarei-api-health-check, media type application/health+json, with
// additions of ours, and an interface: docs/healthz.schema.json describes it.
type Digest struct {
	Status      verdict.Status // the worst of the checks: pass, warn, unknown, fail
	Version     string         // of the program
	ReleaseID   string         // the same
	ServiceID   string         // the name of the program
	Description string
	Notes       []string // what else to know, a sentence each
	Output      string   // which checks fail; empty when none does

	Host string
	PID  int
	Time time.Time // when the digest was made

	// Since is when the oldest of the checks with that status came to have it; for
	// pass, when the last check came to pass.
	Since time.Time

	// Fingerprint is 12 hexadecimal digits that stand for the set of checks that
	// fail or are unknown, so that a poller sees a second failure behind the first;
	// empty when there are none. Who acknowledged what makes no difference.
	Fingerprint string

	Failing []string      // the names of the checks that fail, the newest failure first
	Checks  []CheckDigest // all checks of the query, worst first, then by name
}

// A CheckDigest is the verdict on one check in a [Digest].
type CheckDigest struct {
	Name        string         // unique, such as stream/pods; "runner" is the runner itself
	Status      verdict.Status // what counts: see [verdict.Show]
	Found       verdict.Status // what the check itself came to
	Category    verdict.Category
	Groups      []string  // the probes it speaks for
	Message     string    // one sentence, at most 512 bytes
	Value       *float64  // what was measured; nil when nothing was
	Unit        string    // of Value
	Since       time.Time // when Status came to be
	LastRun     *time.Time
	TookSeconds float64 // how long the last run took
	Runs        uint64  // results so far
	Changes     uint64  // how often the verdict changed
	History     string  // the last 21 results, oldest first: p, w, f or u each
	Runbook     string  // where to read on
	Stale       bool    // the last result is late
	Flapping    bool
	DependsOn   []string
	Because     string // the check that this one fails because of
	Measures    []verdict.Measure

	Acknowledged *verdict.Ack
	Maintenance  *verdict.Maintenance
	Healing      *verdict.Healing

	busy time.Duration // how long all runs took
}

// Digest returns the verdicts that the query asks for. It takes no lock and
// runs no check. A category or group that it does not know asks for no fewer
// checks than all.
func (r *Runner) Digest(q Query) Digest {
	if q.Now.IsZero() {
		q.Now = r.now()
	}
	d := Digest{
		ServiceID: r.service, Version: r.version, ReleaseID: r.version, Description: q.describe(), Host: r.host, PID: r.pid,
		Time: stamp(q.Now), Since: stamp(q.Now), Notes: []string{}, Failing: []string{}, Checks: []CheckDigest{},
	}
	s := r.set.Load()
	for _, e := range s.entries {
		if q.wants(e) {
			d.Checks = append(d.Checks, r.digest(s, e, q.Now))
		}
	}
	slices.SortStableFunc(d.Checks, func(a, b CheckDigest) int { return verdict.Compare(b.Status, a.Status) })
	d.sum()
	return d
}

// sum fills in what follows from the checks, which are sorted.
func (d *Digest) sum() {
	hash := sha256.New()
	var failing []CheckDigest
	for i, c := range d.Checks {
		if i == 0 {
			d.Status, d.Since = c.Status, c.Since
		}
		switch {
		case c.Status != d.Status:
		case c.Status == verdict.Pass && c.Since.After(d.Since), c.Status != verdict.Pass && c.Since.Before(d.Since):
			d.Since = c.Since
		}
		if c.Status == verdict.Fail {
			failing = append(failing, c)
		}
		// What fails because of another adds nothing to that one's failure.
		if c.Status == verdict.Fail || c.Status == verdict.Unknown && c.Because == "" {
			fmt.Fprintf(hash, "%s %v\n", c.Name, c.Status)
			d.Fingerprint = hex.EncodeToString(hash.Sum(nil)[:6])
		}
	}
	slices.SortStableFunc(failing, func(a, b CheckDigest) int { return b.Since.Compare(a.Since) })
	for _, c := range failing {
		d.Failing = append(d.Failing, c.Name)
	}
	if len(failing) > 0 {
		d.Output = fmt.Sprintf("%d of %s: %s", len(failing), counted(len(d.Checks), "check fails", "checks fail"), listed(d.Failing))
	}
	d.note("acknowledged", func(c *CheckDigest) bool { return c.Acknowledged != nil })
	d.note("in maintenance", func(c *CheckDigest) bool { return c.Maintenance != nil })
	d.note("healing", func(c *CheckDigest) bool { return c.Healing != nil })
	d.note("flapping", func(c *CheckDigest) bool { return c.Flapping })
	d.note("failing because of others", func(c *CheckDigest) bool { return c.Because != "" })
}

// note adds a sentence when some checks are in that case.
func (d *Digest) note(what string, in func(*CheckDigest) bool) {
	var names []string
	for i := range d.Checks {
		if in(&d.Checks[i]) {
			names = append(names, d.Checks[i].Name)
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		d.Notes = append(d.Notes, what+": "+listed(names))
	}
}

// maxListed is how many names a sentence has at most; a list has them all.
const maxListed = 10

func listed(names []string) string {
	text := strings.Join(names[:min(len(names), maxListed)], ", ")
	if more := len(names) - maxListed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (q Query) wants(e *entry) bool {
	if q.Check != "" && q.Check != e.check.Name {
		return false
	}
	switch q.Category {
	case "":
		if e.check.Category != verdict.Page && q.Check == "" {
			return false
		}
	case string(verdict.Page), string(verdict.Email):
		if string(e.check.Category) != q.Category {
			return false
		}
	}
	switch q.Group {
	case LiveGroup, StartupGroup:
		return e.in(q.Group)
	case ReadyGroup:
		return e.in(LiveGroup) || e.in(ReadyGroup)
	}
	return true
}

// describe says in words what a digest is of.
func (q Query) describe() string {
	if q.Check != "" {
		return "the check " + q.Check
	}
	text := "the checks of category " + cmp.Or(q.Category, string(verdict.Page))
	if q.Category == AllCategories {
		text = "all checks"
	}
	if q.Group != "" {
		text += ", of group " + q.Group
	}
	return text
}

func (r *Runner) digest(set *set, e *entry, now time.Time) CheckDigest {
	s, v := r.show(set, e, now)
	c := CheckDigest{
		Name: e.check.Name, Status: v.Status, Found: v.Found, Category: e.check.Category,
		Groups: append([]string{}, e.check.Groups...), Message: v.Message,
		Value: s.Last.Value, Unit: s.Last.Unit, Measures: s.Last.Measures,
		Since: stamp(v.Since), TookSeconds: s.Last.Took.Seconds(),
		Runs: s.Runs, Changes: s.Changes, History: s.History,
		Runbook: e.check.Runbook, Stale: s.Stale, Flapping: s.Flapping,
		DependsOn: e.check.DependsOn, Because: v.Because, busy: s.Busy,
	}
	if !s.Last.At.IsZero() {
		at := stamp(s.Last.At)
		c.LastRun = &at
	}
	if a := v.Ack; a.Who != "" {
		a.At = stamp(a.At)
		c.Acknowledged = &a
	}
	if m := v.Maintenance; !m.Until.IsZero() {
		m.Since, m.Until = stamp(m.Since), stamp(m.Until)
		c.Maintenance = &m
	}
	if h := v.Healing; !h.Deadline.IsZero() {
		h.Since, h.Deadline = stamp(h.Since), stamp(h.Deadline)
		c.Healing = &h
	}
	return c
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// parseQuery reads what a request asks for.
func parseQuery(category, group, check string) (Query, error) {
	switch category {
	case "", string(verdict.Page), string(verdict.Email), AllCategories:
	default:
		return Query{}, fmt.Errorf("category %.50q, want page, email or all", category)
	}
	switch group {
	case "", LiveGroup, ReadyGroup, StartupGroup:
	default:
		return Query{}, fmt.Errorf("group %.50q, want live, ready or startup", group)
	}
	if check == "" {
		category = cmp.Or(category, string(verdict.Page))
	}
	return Query{Category: category, Group: group, Check: check}, nil
}
