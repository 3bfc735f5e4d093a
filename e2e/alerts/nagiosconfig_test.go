package alerts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/e2e/nagios"
)

// nagiosCommand is Nagios, as either of two install.sh unpacked it.
func nagiosCommand(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	var looked []string
	for _, folder := range []string{"alerts", "verdicts"} {
		path := filepath.Join(cache, "outrider-e2e", folder, "usr/sbin/nagios4")
		if _, err := os.Stat(path); err == nil {
			return path
		}
		looked = append(looked, path)
	}
	missing := fmt.Sprintf("got neither %s, want what e2e/alerts/install.sh gets", strings.Join(looked, " nor "))
	if os.Getenv("CI") != "" || os.Getenv("OUTRIDER_E2E") != "" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// shippedForNagios is the file that the rendered one needs.
func shippedForNagios(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../../deploy/nagios/outrider.cfg")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestNagiosTakesTheRules has Nagios read what deploy/nagios ships with the rules that
// ship, for two hosts.
func TestNagiosTakesTheRules(t *testing.T) {
	t.Parallel()
	command := nagiosCommand(t)
	rules, err := os.ReadFile("../../alerts/generated/nagios/outrider-rules.cfg")
	if err != nil {
		t.Fatal(err)
	}
	out, ok := nagios.Verify(t, nagios.Options{
		Command: command,
		Files:   map[string][]byte{"outrider.cfg": shippedForNagios(t), "outrider-rules.cfg": rules},
		Hosts:   []nagios.Host{{Name: "one"}, {Name: "two"}},
	})
	if !ok {
		t.Error("nagios4 -v fails")
	}
	// Each host has outrider-page, -email, -agent, -rules and the rules' services. All
	// but -agent depend on that of their own host, in two ways: were it that of every
	// host, there would be twice as many dependencies.
	alerts := strings.Count(string(rules), "dependent_service_description  outrider-alert-")
	if alerts < 15 {
		t.Errorf("outrider-rules.cfg has %d services of rules, want those of the rules that ship", alerts)
	}
	for _, want := range []string{
		"Total Warnings: 0\n",
		"Total Errors:   0\n",
		"Checked 2 hosts",
		fmt.Sprintf("Checked %d services.", 2*(alerts+4)),
		fmt.Sprintf("Checked %d service dependencies", 2*2*(alerts+3)),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nagios4 -v does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("nagios4 -v says:\n%s", out)
	}
}
