package runner

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// AllCategories in a [Query] asks for the checks of every category.
const AllCategories = "all"

// A Query says which checks a digest shows and counts.
type Query struct {
	Category string    // page, email or all; empty means page
	Group    string    // live, ready (which live belongs to) or, empty, whatever group
	Now      time.Time // the moment to judge ages by; zero means now
}

// A Digest is the verdicts on many checks as one document. Its JSON form is
// an interface: names are stable, every field is always there, lists are never
// null, times are RFC 3339 in UTC to the millisecond.
//
//	service      the name of the program
//	version      its version
//	host, pid    where it runs
//	status       the worst status of the checks below: pass, warn, unknown, fail
//	time         when the digest was made
//	since        when the oldest of the checks with that status came to have it;
//	             for pass, when the last check came to pass
//	fingerprint  12 hexadecimal digits that stand for the set of checks that
//	             fail or are unknown, so that a poller sees a second failure
//	             behind the first; empty when there are none
//	failing      the names of the checks that fail, sorted
//	checks       all checks of the query, worst first, then by name
//
// and for each check
//
//	name          unique, such as stream/pods; "runner" is the runner itself
//	status        pass, warn, unknown or fail, thresholds and age applied
//	category      page or email
//	groups        the probes it speaks for, of live and ready
//	message       one sentence, at most 512 bytes
//	value, unit   what was measured; null and "" when nothing was
//	since         when the status came to be
//	last_run      when the last result came; null before the first
//	took_seconds  how long the last run took
//	runs          results so far
//	changes       how often the status changed
//	history       the last 21 results, oldest first: p, w, f or u each
//	runbook       where to read on; may be empty
//	stale         true when the last result is late: the status tells of its
//	              age, not of what it found
type Digest struct {
	Service     string         `json:"service"`
	Version     string         `json:"version"`
	Host        string         `json:"host"`
	PID         int            `json:"pid"`
	Status      verdict.Status `json:"status"`
	Time        time.Time      `json:"time"`
	Since       time.Time      `json:"since"`
	Fingerprint string         `json:"fingerprint"`
	Failing     []string       `json:"failing"`
	Checks      []CheckDigest  `json:"checks"`
}

// A CheckDigest is the verdict on one check in a [Digest].
type CheckDigest struct {
	Name        string           `json:"name"`
	Status      verdict.Status   `json:"status"`
	Category    verdict.Category `json:"category"`
	Groups      []string         `json:"groups"`
	Message     string           `json:"message"`
	Value       *float64         `json:"value"`
	Unit        string           `json:"unit"`
	Since       time.Time        `json:"since"`
	LastRun     *time.Time       `json:"last_run"`
	TookSeconds float64          `json:"took_seconds"`
	Runs        uint64           `json:"runs"`
	Changes     uint64           `json:"changes"`
	History     string           `json:"history"`
	Runbook     string           `json:"runbook"`
	Stale       bool             `json:"stale"`
}

// Digest returns the verdicts that the query asks for. It takes no lock and
// runs no check. A category or group that it does not know asks for no fewer
// checks than all.
func (r *Runner) Digest(q Query) Digest {
	if q.Now.IsZero() {
		q.Now = r.now()
	}
	d := Digest{
		Service: r.service, Version: r.version, Host: r.host, PID: r.pid,
		Time: stamp(q.Now), Since: stamp(q.Now), Failing: []string{}, Checks: []CheckDigest{},
	}
	for _, e := range r.set.Load().entries {
		if q.wants(e) {
			d.Checks = append(d.Checks, e.digest(q.Now))
		}
	}
	slices.SortStableFunc(d.Checks, func(a, b CheckDigest) int { return verdict.Compare(b.Status, a.Status) })
	d.sum()
	return d
}

// sum fills in what follows from the checks, which are sorted.
func (d *Digest) sum() {
	hash := sha256.New()
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
			d.Failing = append(d.Failing, c.Name)
		}
		if c.Status == verdict.Fail || c.Status == verdict.Unknown {
			fmt.Fprintf(hash, "%s %v\n", c.Name, c.Status)
			d.Fingerprint = hex.EncodeToString(hash.Sum(nil)[:6])
		}
	}
}

func (q Query) wants(e *entry) bool {
	switch q.Category {
	case "":
		if e.check.Category != verdict.Page {
			return false
		}
	case string(verdict.Page), string(verdict.Email):
		if string(e.check.Category) != q.Category {
			return false
		}
	}
	switch q.Group {
	case LiveGroup:
		return e.in(LiveGroup)
	case ReadyGroup:
		return e.in(LiveGroup) || e.in(ReadyGroup)
	}
	return true
}

func (e *entry) digest(now time.Time) CheckDigest {
	s := e.view(now)
	c := CheckDigest{
		Name: e.check.Name, Status: s.Status, Category: e.check.Category,
		Groups: append([]string{}, e.check.Groups...), Message: s.Message(),
		Value: s.Last.Value, Unit: s.Last.Unit,
		Since: stamp(s.Since), TookSeconds: s.Last.Took.Seconds(),
		Runs: s.Runs, Changes: s.Changes, History: s.History,
		Runbook: e.check.Runbook, Stale: s.Stale,
	}
	if s.Runs > 0 {
		at := stamp(s.Last.At)
		c.LastRun = &at
	}
	return c
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// parseQuery reads what a request asks for.
func parseQuery(category, group string) (Query, error) {
	switch category {
	case "", string(verdict.Page), string(verdict.Email), AllCategories:
	default:
		return Query{}, fmt.Errorf("category %q, want page, email or all", category)
	}
	switch group {
	case "", LiveGroup, ReadyGroup:
	default:
		return Query{}, fmt.Errorf("group %q, want live or ready", group)
	}
	return Query{Category: cmp.Or(category, string(verdict.Page)), Group: group}, nil
}
