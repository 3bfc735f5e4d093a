package runner

import (
	"cmp"
	"slices"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// findCauses lists for each check the others whose failure explains its own: all
// that it depends on, at first or second hand, sorted by name.
func findCauses(entries []*entry) map[*entry][]*entry {
	byName := index(entries)
	causes := map[*entry][]*entry{}
	for _, e := range entries {
		if len(e.check.DependsOn) == 0 {
			continue
		}
		var all []*entry
		for todo := []*entry{e}; len(todo) > 0; todo = todo[1:] {
			for _, name := range todo[0].check.DependsOn {
				if d := byName[name]; d != nil && !slices.Contains(all, d) {
					all, todo = append(all, d), append(todo, d)
				}
			}
		}
		slices.SortFunc(all, byCheckName)
		causes[e] = all
	}
	return causes
}

// findCircle names checks that depend on each other in a circle: then each would
// explain away the next, and a failure would be nobody's. The first is named again
// at the end; nil when there is no circle.
func findCircle(entries []*entry) []string {
	byName := index(entries)
	const open, closed = 1, 2
	seen := map[*entry]int{}
	var path []string
	var visit func(*entry) []string
	visit = func(e *entry) []string {
		switch seen[e] {
		case open:
			return append(slices.Clone(path[slices.Index(path, e.check.Name):]), e.check.Name)
		case closed:
			return nil
		}
		seen[e] = open
		path = append(path, e.check.Name)
		for _, name := range e.check.DependsOn {
			if d := byName[name]; d != nil {
				if circle := visit(d); circle != nil {
					return circle
				}
			}
		}
		path = path[:len(path)-1]
		seen[e] = closed
		return nil
	}
	for _, e := range entries {
		if circle := visit(e); circle != nil {
			return circle
		}
	}
	return nil
}

func index(entries []*entry) map[string]*entry {
	byName := make(map[string]*entry, len(entries))
	for _, e := range entries {
		byName[e.check.Name] = e
	}
	return byName
}

// show is the state of a check and how it is shown, at a moment. It takes no lock.
func (r *Runner) show(s *set, e *entry, now time.Time) (verdict.State, verdict.Shown) {
	everything := *r.everything.Load()
	if e == r.beat {
		everything = verdict.Maintenance{} // whether anybody checks is always of interest
	}
	state := e.at(now)
	var cause verdict.Cause
	if verdict.Compare(state.Status, verdict.Warn) > 0 {
		cause = s.cause(e, now, everything)
	}
	return state, verdict.Show(state, now, cause, everything)
}

// cause is the check whose failure explains that of e: one that fails and that
// nothing else explains. One that nobody is told of, because it is in maintenance,
// explains only what no other does.
func (s *set) cause(e *entry, now time.Time, everything verdict.Maintenance) (found verdict.Cause) {
	for _, d := range s.causes[e] {
		state := d.at(now)
		if state.Status != verdict.Fail || !d.asLoudAs(e) || s.explained(d, now) {
			continue
		}
		c := verdict.Cause{
			Name: d.check.Name, Since: state.Since,
			Maintained: state.Maintenance.Active(now) || everything.Active(now),
		}
		if found.Name == "" || found.Maintained && !c.Maintained {
			found = c
		}
	}
	return found
}

func (s *set) explained(e *entry, now time.Time) bool {
	return slices.ContainsFunc(s.causes[e], func(d *entry) bool {
		return d.asLoudAs(e) && d.at(now).Status == verdict.Fail
	})
}

func (e *entry) asLoudAs(other *entry) bool {
	return e.check.Category == verdict.Page || other.check.Category == verdict.Email
}

func byCheckName(a, b *entry) int { return cmp.Compare(a.check.Name, b.check.Name) }
