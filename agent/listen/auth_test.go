package listen

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPasswordsAreRememberedForAMinute(t *testing.T) {
	now := time.Unix(0, 0)
	u, err := newUsers(map[string]string{"prom": hash(t, "pw"), "a": hash(t, "b")}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * checkBurst { // of which one is checked
		if got := u.check("prom", "pw"); got != granted {
			t.Fatalf("right password: got %v, want granted", got)
		}
	}
	for range checkBurst - 1 {
		if got := u.check("prom", "wrong"); got != refused {
			t.Fatalf("wrong password: got %v, want refused", got)
		}
	}
	if got := u.check("prom", "wrong"); got != busy {
		t.Errorf("after too many wrong ones: got %v, want busy", got)
	}
	if got := u.check("prom", "pw"); got != granted {
		t.Errorf("right password meanwhile: got %v, want granted", got)
	}
	if len(u.remembered) != 1 {
		t.Errorf("got %d remembered, want 1: wrong passwords must not be", len(u.remembered))
	}
	now = now.Add(rememberFor)
	u.hashes["prom"] = hash(t, "other")
	if got := u.check("prom", "pw"); got != refused {
		t.Errorf("after a minute: got %v, want refused", got)
	}
}

// Joined without their lengths, the parts of two credentials can be the same
// text: CVE-2022-46146.
func TestFingerprintsDoNotMixTheirParts(t *testing.T) {
	u, err := newUsers(map[string]string{"a": hash(t, "b")}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if u.fingerprint("a:b", "c") == u.fingerprint("a", "b:c") || u.fingerprint("ab", "c") == u.fingerprint("a", "bc") {
		t.Error("two credentials have one fingerprint")
	}
	for i := range 2 * rememberMost {
		u.remember(u.fingerprint(fmt.Sprint(i)))
	}
	if len(u.remembered) != rememberMost {
		t.Errorf("got %d remembered, want %d", len(u.remembered), rememberMost)
	}
}

func TestLoadAuthSaysWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		o    AuthOptions
		want string
	}{
		"no web configuration":      {AuthOptions{WebConfig: "nowhere.yml"}, "web configuration nowhere.yml: open nowhere.yml: no such file"},
		"an unknown key":            {AuthOptions{WebConfig: write(t, "w", "users: {}\n")}, "field users not found"},
		"a password without bcrypt": {AuthOptions{WebConfig: write(t, "w", "basic_auth_users: {a: plain}\n")}, "bcrypt"},
		"no tokens":                 {AuthOptions{BearerTokens: write(t, "t", "# none\n")}, "got no token, want one SHA-256 a line"},
		"a token in the clear":      {AuthOptions{BearerTokens: write(t, "t", "\nhunter2\n")}, "line 2: got 7 characters, want the 64 hex digits of a SHA-256"},
		"no token file":             {AuthOptions{BearerTokens: "nowhere"}, "bearer tokens: open nowhere"},
		"an unknown endpoint":       {AuthOptions{AllowUnauthenticated: []string{"pprof"}}, `got "pprof", want healthz or metrics`},
		"an old TLS":                {AuthOptions{WebConfig: tlsConfig(t, "min_version: TLS10")}, "want TLS12 or TLS13"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadAuth(tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
