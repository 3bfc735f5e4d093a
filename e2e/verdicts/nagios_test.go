package verdicts

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// installed is the folder of Debian's packages, and plugins that of Nagios'
// plugins, below the cache.
const (
	installed = "verdicts"
	plugins   = installed + "/usr/lib/nagios/plugins/"
)

// TestNagios has Nagios poll agents over TLS, with what deploy/nagios ships, and
// reads in its log who was told what.
func TestNagios(t *testing.T) {
	t.Parallel()
	need(t, installed)
	c := newCertificate(t)
	one, two := startAgent(t, freeAddress(t, "0.0.0.0"), c), startAgent(t, freeAddress(t, "0.0.0.0"), c)
	auth, wrong := filepath.Join(t.TempDir(), "auth"), filepath.Join(t.TempDir(), "auth")
	for file, text := range map[string]string{auth: poller + ":" + password, wrong: poller + ":guessed"} {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := fmt.Sprintf("-S --ca-file %s --auth-file %s", c.certFile, auth)
	html := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintln(w, "<!DOCTYPE html><html><title>It works</title><p>a | b</p></html>")
	})
	plain, secure := httptest.NewServer(html), httptest.NewUnstartedServer(html)
	t.Cleanup(plain.Close)
	secure.TLS = c.config()
	secure.StartTLS()
	t.Cleanup(secure.Close)
	n := startNagios(t, []host{
		{"one", port(one.listen), args, map[string][]string{
			"page":  {"db", "queue", "api", "api/disk", "runner"},
			"email": {"cache", "start", "agent/config", "agent/goroutines"},
		}},
		{"two", port(two.listen), args, nil},
		{"nobody", port(freeAddress(t, "127.0.0.1")), args, nil},
		{"html", port(plain.Listener.Addr().String()), "null", nil},
		{"html-for-tls", port(plain.Listener.Addr().String()), args, nil},
		{"html-over-tls", port(secure.Listener.Addr().String()), args, nil},
		{"stranger", port(one.listen), strings.ReplaceAll(args, auth, wrong), nil},
		{"untrusted", port(one.listen), "-S --auth-file " + auth, nil},
	})
	waitFor(t, "Nagios to find both agents well", func() bool {
		now := n.states()
		for _, s := range []string{"one/outrider-page", "one/outrider-email", "one/outrider/db", "one/outrider/queue", "two/outrider-page", "two/outrider-email"} {
			if now[s].code != "0" {
				return false
			}
		}
		return true
	})

	t.Run("at once", func(t *testing.T) {
		t.Run("a page check pages, and so does a second one behind it", func(t *testing.T) {
			t.Parallel()
			n.secondFailure(t, one)
		})
		t.Run("an email check mails, and what pages comes and goes", func(t *testing.T) {
			t.Parallel()
			n.emailThenPage(t, two)
		})
		t.Run("who does not answer is critical", func(t *testing.T) {
			t.Parallel()
			n.told(t, "pager", "nobody", "outrider-page", "refused", "CRITICAL")
			n.told(t, "mail", "nobody", "outrider-email", "refused", "CRITICAL")
		})
		for name, text := range map[string]string{
			"html": "text/html", "html-over-tls": "text/html", "html-for-tls": "HTTP response", "stranger": "401", "untrusted": "certificate",
		} {
			t.Run("what is no digest is unknown: "+name, func(t *testing.T) {
				t.Parallel()
				n.told(t, "mail", name, "outrider-page", text, "UNKNOWN")
				n.told(t, "mail", name, "outrider-email", text, "UNKNOWN")
				n.told(t, "pager", name, "outrider-page", "")
			})
		}
	})
	n.delivered(t)
}

// secondFailure breaks a check, another one behind it, and mends both.
func (n *nagios) secondFailure(t *testing.T, a *agent) {
	a.db.broken.Store(true)
	n.told(t, "pager", "one", "outrider-page", "db", "CRITICAL")
	n.told(t, "mail", "one", "outrider-page", "db", "CRITICAL")
	if status, _ := a.get("/healthz"); status != http.StatusServiceUnavailable {
		t.Errorf("/healthz answers %d while a page check fails, want 503", status)
	}

	// For Nagios that is the CRITICAL that it knows. The check's own service tells of
	// it at once, the digest's when it tells again.
	broken := time.Now()
	a.queue.shut()
	n.told(t, "pager", "one", "outrider/queue", "queue", "CRITICAL")
	fanOut := time.Since(broken)
	again := n.told(t, "pager", "one", "outrider-page", "queue", "CRITICAL")
	n.told(t, "mail", "one", "outrider-page", "queue", "CRITICAL")
	t.Logf("the second failure was told of by the fan-out after %.1f s, by the digest after %.1f s", fanOut.Seconds(), time.Since(broken).Seconds())
	if q, db := strings.Index(again.text, "queue"), strings.Index(again.text, "db"); db < q {
		t.Errorf("got %q, want both, and queue, the newest failure, before db", again.text)
	}

	a.db.broken.Store(false)
	a.queue.open()
	for _, contact := range []string{"pager", "mail"} {
		for _, service := range []string{"outrider-page", "outrider/db", "outrider/queue"} {
			n.told(t, contact, "one", service, "", "CRITICAL", "OK")
		}
		for _, service := range []string{"outrider-email", "outrider-fan-out", "outrider/cache", "outrider/api"} {
			n.told(t, contact, "one", service, "")
		}
	}
}

// emailThenPage breaks and mends a check of category email, a neighbour, and the
// agent itself.
func (n *nagios) emailThenPage(t *testing.T, a *agent) {
	a.cache.set(verdict.Fail)
	n.told(t, "mail", "two", "outrider-email", "cache", "CRITICAL")
	if status, body := a.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz answers %d while an email check fails, want 200: %s", status, body)
	}
	if status, _ := a.get("/healthz?category=all"); status != http.StatusServiceUnavailable {
		t.Errorf("/healthz?category=all answers %d while an email check fails, want 503", status)
	}
	a.cache.set(verdict.Pass)
	n.told(t, "mail", "two", "outrider-email", "", "CRITICAL", "OK")
	n.told(t, "pager", "two", "outrider-page", "")
	n.told(t, "mail", "two", "outrider-page", "")

	a.api.broken.Store(true)
	n.told(t, "pager", "two", "outrider-page", "api", "CRITICAL")
	a.api.broken.Store(false)
	n.told(t, "pager", "two", "outrider-page", "", "CRITICAL", "OK")

	a.stop()
	n.told(t, "pager", "two", "outrider-page", "refused", "CRITICAL", "OK", "CRITICAL")
	n.told(t, "mail", "two", "outrider-email", "refused", "CRITICAL", "OK", "CRITICAL")
	a.run()
	n.told(t, "pager", "two", "outrider-page", "", "CRITICAL", "OK", "CRITICAL", "OK")
	n.told(t, "mail", "two", "outrider-page", "", "CRITICAL", "OK", "CRITICAL", "OK")
	n.told(t, "mail", "two", "outrider-email", "", "CRITICAL", "OK", "CRITICAL", "OK")
	n.told(t, "pager", "two", "outrider-email", "")
}

// told waits until a contact has been told of just these states of a service, the
// last time with that text; without states it must not have been told anything. That
// a state is told again counts as once.
func (n *nagios) told(t *testing.T, contact, host, service, text string, states ...string) (last message) {
	t.Helper()
	if len(states) == 0 {
		if got := n.messages(contact, host, service); len(got) > 0 {
			t.Errorf("%s was told of %s of %s: got %+v, want nothing", contact, service, host, got)
		}
		return message{}
	}
	waitFor(t, fmt.Sprintf("%s to be told of %s of %s: %s %s", contact, service, host, states, text), func() bool {
		var got []string
		for _, m := range n.messages(contact, host, service) {
			got, last = append(got, m.state), m
		}
		return slices.Equal(slices.Compact(got), states) && strings.Contains(last.text, text)
	})
	return last
}

// delivered wants each notification of the log to have reached its command, and
// Nagios to have no complaint about a plugin.
func (n *nagios) delivered(t *testing.T) {
	waitFor(t, "each notification of Nagios' log to reach its command", func() bool {
		logged := strings.Count(n.read("nagios.log"), "SERVICE NOTIFICATION: ")
		return logged > 0 && strings.Count(n.read("told"), "\n") == logged
	})
	log := n.read("nagios.log")
	for _, bad := range []string{"out of bounds", "timed out", "Caught SIGSEGV", "job exited"} {
		if strings.Contains(log, bad) {
			t.Errorf("Nagios' log says %q", bad)
		}
	}
	if t.Failed() {
		lines := slices.Collect(strings.Lines(log))
		t.Logf("Nagios' log ends:\n%s", strings.Join(lines[max(0, len(lines)-60):], ""))
	}
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}
