package nagios

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A Message is one notification of Nagios' log.
type Message struct {
	At                                  time.Time // whole seconds
	Contact, Host, Service, State, Text string
}

// An Alert is a line of Nagios' log about a new state of a service, or about a further
// attempt at one.
type Alert struct {
	At      time.Time // whole seconds
	State   string    // OK, WARNING, CRITICAL or UNKNOWN
	Hard    bool
	Attempt int
	Text    string
}

// A State is what Nagios thinks of one service.
type State struct {
	Code string // 0 to 3
	Hard bool
	Text string // what the plugin said

	// Every and Again are the intervals from one poll to the next, and to the next
	// attempt, in Nagios' minutes.
	Every, Again float64
}

// Messages are those so far about one service of a host, to one contact.
func (n *Nagios) Messages(contact, host, service string) (out []Message) {
	// contact;host;service;state;command;text
	for at, f := range n.lines("SERVICE NOTIFICATION: ", 6) {
		if f[0] == contact && f[1] == host && f[2] == service {
			out = append(out, Message{at, f[0], f[1], f[2], f[3], f[5]})
		}
	}
	return out
}

// Alerts are those so far of one service of a host.
func (n *Nagios) Alerts(host, service string) (out []Alert) {
	// host;service;state;type;attempt;text
	for at, f := range n.lines("SERVICE ALERT: ", 6) {
		if f[0] == host && f[1] == service {
			attempt, _ := strconv.Atoi(f[4])
			out = append(out, Alert{at, f[2], f[3] == "HARD", attempt, f[5]})
		}
	}
	return out
}

// lines are those of the log that begin so, as so many fields. One that Nagios is still
// writing is left out.
func (n *Nagios) lines(begin string, fields int) func(yield func(time.Time, []string) bool) {
	return func(yield func(time.Time, []string) bool) {
		for line := range strings.Lines(n.Log()) {
			text, whole := strings.CutSuffix(line, "\n")
			stamp, rest, _ := strings.Cut(strings.TrimPrefix(text, "["), "] ")
			rest, ours := strings.CutPrefix(rest, begin)
			f := strings.SplitN(rest, ";", fields)
			unix, err := strconv.ParseInt(stamp, 10, 64)
			if whole && ours && err == nil && len(f) == fields && !yield(time.Unix(unix, 0), f) {
				return
			}
		}
	}
}

// States are those of all services that have been checked, by host/service.
func (n *Nagios) States() map[string]State {
	out := map[string]State{}
	for block := range strings.SplitSeq(n.read("status.dat"), "\n\n") {
		if !strings.Contains(block, "servicestatus {") {
			continue
		}
		f := map[string]string{}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			f[key] = value
		}
		if f["has_been_checked"] == "1" {
			every, _ := strconv.ParseFloat(f["check_interval"], 64)
			again, _ := strconv.ParseFloat(f["retry_interval"], 64)
			out[f["host_name"]+"/"+f["service_description"]] = State{f["current_state"], f["state_type"] == "1", f["plugin_output"], every, again}
		}
	}
	return out
}

// Told waits until a contact has been told of just these states of a service, the last
// time with that text; without states it must not have been told anything. That a state
// is told again counts as once.
func (n *Nagios) Told(t testing.TB, contact, host, service, text string, states ...string) (last Message) {
	t.Helper()
	if len(states) == 0 {
		if got := n.Messages(contact, host, service); len(got) > 0 {
			t.Errorf("%s was told of %s of %s: got %+v, want nothing", contact, service, host, got)
		}
		return Message{}
	}
	waitFor(t, fmt.Sprintf("%s to be told of %s of %s: %s %s", contact, service, host, states, text), func() bool {
		var got []string
		for _, m := range n.Messages(contact, host, service) {
			got, last = append(got, m.State), m
		}
		return slices.Equal(slices.Compact(got), states) && strings.Contains(last.Text, text)
	})
	return last
}

// Delivered wants each notification of the log to have reached its command, and Nagios
// to have no complaint about a plugin.
func (n *Nagios) Delivered(t testing.TB) {
	t.Helper()
	waitFor(t, "each notification of Nagios' log to reach its command", func() bool {
		logged := strings.Count(n.Log(), "SERVICE NOTIFICATION: ")
		return logged > 0 && strings.Count(n.read("told"), "\n") == logged
	})
	n.Content(t)
}

// Content wants Nagios to have no complaint about a plugin.
func (n *Nagios) Content(t testing.TB) {
	t.Helper()
	log := n.Log()
	for _, bad := range []string{"out of bounds", "timed out", "Caught SIGSEGV", "job exited"} {
		if strings.Contains(log, bad) {
			t.Errorf("Nagios' log says %q", bad)
		}
	}
}
