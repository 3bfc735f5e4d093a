package listen

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func tcp(addr string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		panic(err)
	}
	return a
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func hash(t *testing.T, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

// loadAuth knows the user prom with password pw, and the token t0ken.
func loadAuth(t *testing.T, o AuthOptions) *Auth {
	t.Helper()
	sum := sha256.Sum256([]byte("t0ken"))
	o.WebConfig = write(t, "web.yml", "basic_auth_users: {prom: "+hash(t, "pw")+"}\n")
	o.BearerTokens = write(t, "tokens", "# the first\n"+strings.Repeat("00", 32)+"\n"+hex.EncodeToString(sum[:])+" # scraper\n")
	a, err := LoadAuth(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func word(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s detail=%v %s", s, Detail(r), r.URL.RawQuery)
	})
}

// rings is the public listener in small.
func rings(g *Gate) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/healthz", g.Healthz(word("digest"), word("probe")))
	mux.Handle("/livez", g.Probe(word("live")))
	mux.Handle("/metrics", g.Read("metrics", word("metrics")))
	mux.Handle("/page", g.Read("", word("page")))
	mux.Handle("/debug", g.Debug(word("debug")))
	mux.Handle("/act", g.Act(word("act")))
	return g.Headers(mux)
}

func TestRings(t *testing.T) {
	known := loadAuth(t, AuthOptions{})
	healthz := loadAuth(t, AuthOptions{AllowUnauthenticated: []string{"healthz"}})
	metrics := loadAuth(t, AuthOptions{AllowUnauthenticated: []string{"metrics"}})
	nobody, err := LoadAuth(AuthOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const loopback, world = "127.0.0.1:9610", "0.0.0.0:9610"
	none := func(*http.Request) {}
	basic := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	for _, tt := range []struct {
		name   string
		auth   *Auth
		listen string
		login  func(*http.Request)
		path   string
		code   int
		body   string
	}{
		{"loopback reads the digest", known, loopback, none, "/healthz", 200, "digest detail=true"},
		{"loopback reads metrics without authentication configured", nil, loopback, none, "/metrics", 200, "metrics detail=true"},
		{"loopback reads whatever it claims to be", known, loopback, basic("prom", "wrong"), "/metrics", 200, "metrics"},
		{"loopback of IPv6 reads", known, "[::1]:9610", none, "/page", 200, "page"},
		{"outside, anybody probes", known, world, none, "/livez?full=1", 200, "live detail=false \n"},
		{"outside, a probe ignores a wrong password", known, world, basic("prom", "wrong"), "/livez", 200, "live"},
		{"outside, a probe shows more to a known user", known, world, basic("prom", "pw"), "/livez?full=1", 200, "full=1"},
		{"outside, healthz is a probe", known, world, none, "/healthz?category=all&format=text", 200, "probe detail=false category=all\n"},
		{"outside, healthz is a probe without authentication configured", nil, world, none, "/healthz", 200, "probe"},
		{"outside, healthz with a password is the digest", known, world, basic("prom", "pw"), "/healthz", 200, "digest detail=true"},
		{"outside, healthz with a token is the digest", known, world, bearer("t0ken"), "/healthz", 200, "digest detail=true"},
		{"outside, healthz with a wrong password says so", known, world, basic("prom", "wrong"), "/healthz", 401, "unauthorized"},
		{"outside, an open digest is without details", healthz, world, none, "/healthz", 200, "digest detail=false"},
		{"outside, an open digest has details for a user", healthz, world, basic("prom", "pw"), "/healthz", 200, "digest detail=true"},
		{"outside, an open digest opens no metrics", healthz, world, none, "/metrics", 401, "unauthorized"},
		{"outside, metrics need a password", known, world, none, "/metrics", 401, "unauthorized"},
		{"outside, metrics with a password", known, world, basic("prom", "pw"), "/metrics", 200, "metrics"},
		{"outside, metrics with a token", known, world, bearer("t0ken"), "/metrics", 200, "metrics"},
		{"outside, an unknown user", known, world, basic("nobody", "pw"), "/metrics", 401, "unauthorized"},
		{"outside, a wrong token", known, world, bearer("t0ke"), "/metrics", 401, "unauthorized"},
		{"outside, the hash is no token", known, world, bearer(strings.Repeat("00", 32)), "/metrics", 401, "unauthorized"},
		{"outside, open metrics", metrics, world, none, "/metrics", 200, "metrics detail=false"},
		{"outside, open metrics with a wrong token", metrics, world, bearer("x"), "/metrics", 401, "unauthorized"},
		{"outside, open metrics open no page", metrics, world, none, "/page", 401, "unauthorized"},
		{"outside, nobody can log in", nobody, world, basic("prom", "pw"), "/page", 403, "no authentication configured"},
		{"outside, debug needs a password", known, world, none, "/debug", 401, "unauthorized"},
		{"outside, debug with a password", known, world, basic("prom", "pw"), "/debug", 200, "debug"},
		{"outside, an action needs a password", known, world, none, "/act", 401, "unauthorized"},
		{"a server that is not ours counts as outside", known, "", none, "/metrics", 401, "unauthorized"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9610"+tt.path, nil)
			r.RemoteAddr = "127.0.0.1:1" // never counts
			r.Header.Set("X-Forwarded-For", "127.0.0.1")
			tt.login(r)
			if tt.listen != "" {
				r = r.WithContext(On(r.Context(), tcp(tt.listen)))
			}
			w := httptest.NewRecorder()
			rings(&Gate{Auth: tt.auth}).ServeHTTP(w, r)
			if body := w.Body.String() + "\n"; w.Code != tt.code || !strings.Contains(body, tt.body) {
				t.Errorf("got %d %q, want %d %q", w.Code, body, tt.code, tt.body)
			}
			if got := len(w.Header().Values("WWW-Authenticate")); (w.Code == 401) != (got == 2) {
				t.Errorf("got %d WWW-Authenticate with status %d", got, w.Code)
			}
			if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("X-Content-Type-Options: got %q, want nosniff", got)
			}
		})
	}
}

func TestActions(t *testing.T) {
	auth := loadAuth(t, AuthOptions{})
	unix := &net.UnixAddr{Name: "/x/control", Net: "unix"}
	loopback := tcp("127.0.0.1:9611")
	for _, tt := range []struct {
		name         string
		listen       net.Addr
		trusted      bool
		method, host string
		headers      map[string]string
		code         int
	}{
		{"a command on the control socket", unix, false, "POST", "outrider", nil, 200},
		{"curl on loopback", loopback, false, "POST", "127.0.0.1:9611", nil, 200},
		{"curl by name", loopback, false, "POST", "localhost:9611", nil, 200},
		{"curl by IPv6", loopback, false, "POST", "[::1]:9611", nil, 200},
		{"our own page", loopback, false, "POST", "localhost:9611", map[string]string{"Origin": "http://localhost:9611"}, 200},
		{"GET", loopback, false, "GET", "localhost:9611", nil, 405},
		{"PUT", unix, false, "PUT", "outrider", nil, 405},
		{"a name that resolves to loopback", loopback, false, "POST", "evil.example:9611", map[string]string{"Origin": "http://evil.example:9611"}, 403},
		{"such a name without a port", loopback, false, "POST", "localhost.evil.example", nil, 403},
		{"no Host", loopback, false, "POST", "", nil, 403},
		{"a foreign page", loopback, false, "POST", "localhost:9611", map[string]string{"Origin": "https://evil.example"}, 403},
		{"a sandboxed page", loopback, false, "POST", "localhost:9611", map[string]string{"Origin": "null"}, 403},
		{"a page on another port", loopback, false, "POST", "localhost:9611", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"a foreign page on the control socket", unix, false, "POST", "outrider", map[string]string{"Origin": "https://evil.example"}, 403},
		{"another program's server", nil, false, "POST", "app.example", nil, 401},
		{"a program that vouches for its users", nil, true, "POST", "app.example", nil, 200},
		{"a foreign page in such a program", nil, true, "POST", "app.example", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "http://127.0.0.1/act", nil)
			r.Host = tt.host
			for k, v := range tt.headers {
				r.Header.Set(k, v)
			}
			if tt.listen != nil {
				r = r.WithContext(On(r.Context(), tt.listen))
			}
			w := httptest.NewRecorder()
			rings(&Gate{Auth: auth, Trusted: tt.trusted}).ServeHTTP(w, r)
			if w.Code != tt.code {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.code)
			}
		})
	}
}

func TestTheWebConfigurationsRateLimit(t *testing.T) {
	now := time.Unix(0, 0)
	a, err := LoadAuth(AuthOptions{
		WebConfig:            write(t, "web.yml", "rate_limit: {interval: 1s, burst: 2}\nhttp_server_config: {headers: {X-Frame-Options: deny}}\n"),
		AllowUnauthenticated: []string{"metrics"},
		Now:                  func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	h := rings(&Gate{Auth: a})
	ask := func(path, listener string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(On(r.Context(), tcp(listener))))
		return w
	}
	for i, want := range []int{200, 200, 429} {
		if w := ask("/metrics", "0.0.0.0:1"); w.Code != want || w.Header().Get("X-Frame-Options") != "deny" {
			t.Errorf("request %d: got %d %v, want %d", i, w.Code, w.Header(), want)
		}
	}
	if w := ask("/healthz", "0.0.0.0:1"); w.Code != 200 {
		t.Errorf("probe: got %d, want 200 whatever the limit", w.Code)
	}
	if w := ask("/metrics", "127.0.0.1:1"); w.Code != 200 {
		t.Errorf("loopback: got %d, want 200 whatever the limit", w.Code)
	}
	now = now.Add(time.Second)
	if w := ask("/metrics", "0.0.0.0:1"); w.Code != 200 {
		t.Errorf("after the interval: got %d, want 200", w.Code)
	}
}

// TestWhoIsTakenOutIsRefused: users and tokens that are gone from their files are
// refused as soon as those are read again, and what else has changed is named.
func TestWhoIsTakenOutIsRefused(t *testing.T) {
	token := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) + "\n" }
	ann := "{ann: " + hash(t, "pw") + "}"
	bob := "{bob: " + hash(t, "pw") + "}"
	load := func(web, tokens string) *Auth {
		t.Helper()
		o := AuthOptions{}
		if web != "" {
			o.WebConfig = write(t, "web.yml", web)
		}
		if tokens != "" {
			o.BearerTokens = write(t, "tokens", tokens)
		}
		a, err := LoadAuth(o)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := load("basic_auth_users: "+ann+"\n", token("old"))
	g := &Gate{Auth: a}
	ask := func(login func(r *http.Request)) int {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		login(r)
		w := httptest.NewRecorder()
		rings(g).ServeHTTP(w, r.WithContext(On(r.Context(), tcp("0.0.0.0:1"))))
		return w.Code
	}
	logins := []func(r *http.Request){
		func(r *http.Request) { r.SetBasicAuth("ann", "pw") },
		func(r *http.Request) { r.SetBasicAuth("bob", "pw") },
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer old") },
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer new") },
	}
	for _, tt := range []struct {
		name            string
		web, tokens     string
		others, restart bool
		codes           [4]int
	}{
		{"the same in other files", "basic_auth_users: " + ann + "\n", "# a comment\n" + token("old"), false, false, [4]int{200, 401, 200, 401}},
		{"another token", "basic_auth_users: " + ann + "\n", token("new"), true, false, [4]int{200, 401, 401, 200}},
		{"another user", "basic_auth_users: " + bob + "\n", token("new"), true, false, [4]int{401, 200, 401, 200}},
		{"another header", "http_server_config: {headers: {X-Frame-Options: deny}}\nbasic_auth_users: " + bob + "\n", token("new"), false, true, [4]int{401, 200, 401, 200}},
		{"no users", "", token("new"), true, false, [4]int{401, 401, 401, 200}},
		{"nobody", "", "", true, false, [4]int{403, 403, 403, 403}},
	} {
		others, restart := a.Take(load(tt.web, tt.tokens))
		if others != tt.others || restart != tt.restart {
			t.Errorf("%s: others %v, restart %v, want %v, %v", tt.name, others, restart, tt.others, tt.restart)
		}
		for i, login := range logins {
			if got := ask(login); got != tt.codes[i] {
				t.Errorf("%s: login %d: got %d, want %d", tt.name, i, got, tt.codes[i])
			}
		}
	}
	withTLS, err := LoadAuth(AuthOptions{WebConfig: tlsConfig(t, "min_version: TLS12")})
	if err != nil {
		t.Fatal(err)
	}
	if _, restart := a.Take(withTLS); !restart {
		t.Error("TLS: got nothing, want that it counts after a restart")
	}
}

func readAll(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
