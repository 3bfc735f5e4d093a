package verdicts

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/e2e/nagios"
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
	n := startNagios(t, []nagios.Host{
		{Name: "one", Port: port(one.listen), Args: args},
		{Name: "two", Port: port(two.listen), Args: args},
		{Name: "nobody", Port: port(freeAddress(t, "127.0.0.1")), Args: args},
		{Name: "html", Port: port(plain.Listener.Addr().String()), Args: "null"},
		{Name: "html-for-tls", Port: port(plain.Listener.Addr().String()), Args: args},
		{Name: "html-over-tls", Port: port(secure.Listener.Addr().String()), Args: args},
		{Name: "stranger", Port: port(one.listen), Args: strings.ReplaceAll(args, auth, wrong)},
		{Name: "untrusted", Port: port(one.listen), Args: "-S --auth-file " + auth},
	}, fanOut("one", map[string][]string{
		"page":  {"db", "queue", "api", "api/disk", "runner"},
		"email": {"cache", "start", "agent/config", "agent/goroutines"},
	}))
	waitFor(t, "Nagios to find both agents well", func() bool {
		now := n.States()
		for _, s := range []string{"one/outrider-page", "one/outrider-email", "one/outrider/db", "one/outrider/queue", "two/outrider-page", "two/outrider-email"} {
			if now[s].Code != "0" {
				return false
			}
		}
		return true
	})

	t.Run("at once", func(t *testing.T) {
		t.Run("a page check pages, and so does a second one behind it", func(t *testing.T) {
			t.Parallel()
			secondFailure(t, n, one)
		})
		t.Run("an email check mails, and what pages comes and goes", func(t *testing.T) {
			t.Parallel()
			emailThenPage(t, n, two)
		})
		t.Run("who does not answer is critical", func(t *testing.T) {
			t.Parallel()
			n.Told(t, "pager", "nobody", "outrider-page", "refused", "CRITICAL")
			n.Told(t, "mail", "nobody", "outrider-email", "refused", "CRITICAL")
		})
		for name, text := range map[string]string{
			"html": "text/html", "html-over-tls": "text/html", "html-for-tls": "HTTP response", "stranger": "401", "untrusted": "certificate",
		} {
			t.Run("what is no digest is unknown: "+name, func(t *testing.T) {
				t.Parallel()
				n.Told(t, "mail", name, "outrider-page", text, "UNKNOWN")
				n.Told(t, "mail", name, "outrider-email", text, "UNKNOWN")
				n.Told(t, "pager", name, "outrider-page", "")
			})
		}
	})
	n.Delivered(t)
}

// startNagios runs Nagios with what deploy/nagios ships, these hosts and further objects.
func startNagios(t *testing.T, hosts []nagios.Host, site string) *nagios.Nagios {
	t.Helper()
	shipped, err := os.ReadFile("../../deploy/nagios/outrider.cfg")
	if err != nil {
		t.Fatal(err)
	}
	return nagios.Start(t, nagios.Options{
		Command: need(t, installed+"/usr/sbin/nagios4"),
		Plugins: map[string]string{"check_digest": env.outrider, "check_dummy": need(t, plugins+"check_dummy")},
		Files:   map[string][]byte{"outrider.cfg": shipped},
		Hosts:   hosts,
		Site:    site,
	})
}

// fanOut has a host's checks, by their category, as services of their own.
func fanOut(host string, checks map[string][]string) string {
	text := fmt.Sprintf("define service {\n    use        outrider-fan-out\n    host_name  %s\n}\n", host)
	for _, category := range []string{"page", "email"} {
		for _, check := range checks[category] {
			text += fmt.Sprintf(`define service {
    use                  outrider-check-%s
    host_name            %s
    service_description  outrider/%s
}
`, category, host, check)
		}
	}
	return text
}

// secondFailure breaks a check, another one behind it, and mends both.
func secondFailure(t *testing.T, n *nagios.Nagios, a *agent) {
	a.db.broken.Store(true)
	n.Told(t, "pager", "one", "outrider-page", "db", "CRITICAL")
	n.Told(t, "mail", "one", "outrider-page", "db", "CRITICAL")
	if status, _ := a.get("/healthz"); status != http.StatusServiceUnavailable {
		t.Errorf("/healthz answers %d while a page check fails, want 503", status)
	}

	// For Nagios that is the CRITICAL that it knows. The check's own service tells of
	// it at once, the digest's when it tells again.
	broken := time.Now()
	a.queue.shut()
	n.Told(t, "pager", "one", "outrider/queue", "queue", "CRITICAL")
	fanOut := time.Since(broken)
	again := n.Told(t, "pager", "one", "outrider-page", "queue", "CRITICAL")
	n.Told(t, "mail", "one", "outrider-page", "queue", "CRITICAL")
	t.Logf("the second failure was told of by the fan-out after %.1f s, by the digest after %.1f s", fanOut.Seconds(), time.Since(broken).Seconds())
	if q, db := strings.Index(again.Text, "queue"), strings.Index(again.Text, "db"); db < q {
		t.Errorf("got %q, want both, and queue, the newest failure, before db", again.Text)
	}

	a.db.broken.Store(false)
	a.queue.open()
	for _, contact := range []string{"pager", "mail"} {
		for _, service := range []string{"outrider-page", "outrider/db", "outrider/queue"} {
			n.Told(t, contact, "one", service, "", "CRITICAL", "OK")
		}
		for _, service := range []string{"outrider-email", "outrider-fan-out", "outrider/cache", "outrider/api"} {
			n.Told(t, contact, "one", service, "")
		}
	}
}

// emailThenPage breaks and mends a check of category email, a neighbour, and the
// agent itself.
func emailThenPage(t *testing.T, n *nagios.Nagios, a *agent) {
	a.cache.set(verdict.Fail)
	n.Told(t, "mail", "two", "outrider-email", "cache", "CRITICAL")
	if status, body := a.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz answers %d while an email check fails, want 200: %s", status, body)
	}
	if status, _ := a.get("/healthz?category=all"); status != http.StatusServiceUnavailable {
		t.Errorf("/healthz?category=all answers %d while an email check fails, want 503", status)
	}
	a.cache.set(verdict.Pass)
	n.Told(t, "mail", "two", "outrider-email", "", "CRITICAL", "OK")
	n.Told(t, "pager", "two", "outrider-page", "")
	n.Told(t, "mail", "two", "outrider-page", "")

	a.api.broken.Store(true)
	n.Told(t, "pager", "two", "outrider-page", "api", "CRITICAL")
	a.api.broken.Store(false)
	n.Told(t, "pager", "two", "outrider-page", "", "CRITICAL", "OK")

	a.stop()
	n.Told(t, "pager", "two", "outrider-page", "refused", "CRITICAL", "OK", "CRITICAL")
	n.Told(t, "mail", "two", "outrider-email", "refused", "CRITICAL", "OK", "CRITICAL")
	a.run()
	n.Told(t, "pager", "two", "outrider-page", "", "CRITICAL", "OK", "CRITICAL", "OK")
	n.Told(t, "mail", "two", "outrider-page", "", "CRITICAL", "OK", "CRITICAL", "OK")
	n.Told(t, "mail", "two", "outrider-email", "", "CRITICAL", "OK", "CRITICAL", "OK")
	n.Told(t, "pager", "two", "outrider-email", "")
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}
