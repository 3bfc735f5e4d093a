package collectors

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A ServiceCheck is the last that was heard of one check of a neighbour's.
type ServiceCheck struct {
	Name    string
	Tags    []string // name:value, or a name alone, sorted
	Status  int      // 0 OK, 1 warning, 2 critical, 3 unknown
	Message string   // at most 512 bytes
	Host    string
	At      time.Time // as the sender says, else when it came
}

const (
	maxServiceChecks = 1000
	maxCheckMessage  = 512
)

// alertTypes are those of events; one that is none of them counts as info, as in
// Datadog. Read-only.
var alertTypes = [...]string{"info", "error", "success", "warning"}

// statsdNews are the lines that are no metrics.
type statsdNews struct {
	events [len(alertTypes)]int64
	checks map[string]*keptCheck
	evicts int64
}

type keptCheck struct {
	ServiceCheck
	heard time.Time
}

func (n *statsdNews) event(l *DogStatsDLine) {
	n.events[max(0, slices.Index(alertTypes[:], string(l.Alert)))]++
}

// check keeps a service check. When there is no room, the one of which nothing
// was heard for the longest time goes.
func (n *statsdNews) check(l *DogStatsDLine, limits statsdLimits, now time.Time) {
	name := valid(cutText(l.Name, maxStatsDName))
	var tags []string
	for key, value := range EachTag(l.Tags) {
		if len(tags) == limits.tags {
			break
		}
		tag := valid(cutText(key, limits.tagLength))
		if value != nil {
			tag += ":" + valid(cutText(value, limits.tagLength))
		}
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	c := ServiceCheck{
		Name: name, Tags: tags, Status: int(l.Type), Host: valid(cutText(l.Host, limits.tagLength)), At: now,
		Message: strings.NewReplacer(`m\:`, "m:", `\n`, "\n").Replace(valid(cutText(l.Text, maxCheckMessage))),
	}
	if l.Stamp > 0 {
		c.At = time.Unix(l.Stamp, 0)
	}
	key := name + "\xff" + strings.Join(tags, "\xff")
	if n.checks == nil {
		n.checks = map[string]*keptCheck{}
	}
	if n.checks[key] == nil && len(n.checks) >= maxServiceChecks {
		oldest := ""
		for k, kept := range n.checks {
			if oldest == "" || kept.heard.Before(n.checks[oldest].heard) {
				oldest = k
			}
		}
		delete(n.checks, oldest)
		n.evicts++
	}
	n.checks[key] = &keptCheck{c, now}
}

// touched is when a service check of that name was heard last.
func (n *statsdNews) touched(name string) (at time.Time) {
	for _, c := range n.checks {
		if c.Name == name && c.heard.After(at) {
			at = c.heard
		}
	}
	return at
}

// last are the service checks, sorted by name and tags.
func (n *statsdNews) last() []ServiceCheck {
	out := make([]ServiceCheck, 0, len(n.checks))
	for _, kept := range n.checks {
		out = append(out, kept.ServiceCheck)
	}
	slices.SortFunc(out, func(a, b ServiceCheck) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), slices.Compare(a.Tags, b.Tags))
	})
	return out
}
