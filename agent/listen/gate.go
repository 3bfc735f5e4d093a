package listen

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// A Gate guards handlers. It finds the listener in the request's context (see
// [On]); a request without one, from a server that is not the agent's, counts
// as one from outside.
type Gate struct {
	Auth *Auth // nil knows nobody

	// Trusted means that whoever mounts the handlers has authentication of
	// their own: everybody may read and act.
	Trusted bool
}

type detailKey struct{}

// Detail reports whether the request may see everything, after Read or
// Healthz let it through.
func Detail(r *http.Request) bool {
	ok, _ := r.Context().Value(detailKey{}).(bool)
	return ok
}

// open reports whether the listener's own address lets everybody read.
func (g *Gate) open(r *http.Request) bool { return g.Trusted || Local(listenerOf(r)) }

func (g *Gate) access(r *http.Request) access {
	if g.open(r) {
		return granted
	}
	return g.Auth.identify(r)
}

func (g *Gate) allows(name string) bool { return g.Auth != nil && g.Auth.allow[name] }

// Read lets those through who may read. The name is what
// allow_unauthenticated may open to others; empty means nothing does.
func (g *Gate) Read(name string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.exhausted(r) {
			g.refuse(w, busy)
			return
		}
		a := g.access(r)
		if a == granted || a == anonymous && g.allows(name) {
			h.ServeHTTP(w, withDetail(r, a == granted))
			return
		}
		g.refuse(w, a)
	})
}

// Healthz serves the digest to those who may read, and to the others what
// allow_unauthenticated gives them: names and states, or one word. A client
// that brings wrong credentials is told so, instead of less.
func (g *Gate) Healthz(digest, probe http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := g.access(r)
		switch {
		case a == anonymous && !g.allows("healthz"):
			// Before any limit: none may stop a load balancer. The word has
			// one format, whatever a poller with a password would ask for.
			probe.ServeHTTP(w, withoutQuery(r, "format"))
		case g.exhausted(r):
			g.refuse(w, busy)
		case a == granted || a == anonymous:
			digest.ServeHTTP(w, withDetail(r, a == granted))
		default:
			g.refuse(w, a)
		}
	})
}

// Probe serves a probe to everyone; who may not read gets no more than its
// status code, whatever they ask for.
func (g *Gate) Probe(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" && g.access(r) != granted {
			r = withoutQuery(r, "full")
		}
		h.ServeHTTP(w, r)
	})
}

// Debug guards everything on the debug listener, actions included: off
// loopback it needs an identity, on loopback a Host that no foreign name
// server can point here.
func (g *Gate) Debug(h http.Handler) http.Handler {
	return g.Read("", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := listenerOf(r); !g.Trusted && a != nil && a.Network() != "unix" && Local(a) && !localHost(r.Host) {
			http.Error(w, "forbidden: Host "+clip(r.Host)+", want localhost or an address", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	}))
}

// Act guards an action: Debug, POST only, and not from another site's page.
func (g *Gate) Act(h http.Handler) http.Handler {
	var sameOrigin http.CrossOriginProtection
	return g.Debug(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "method "+clip(r.Method)+", want POST", http.StatusMethodNotAllowed)
			return
		}
		if err := sameOrigin.Check(r); err != nil {
			http.Error(w, "forbidden: a page of another site sent this", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	}))
}

// Headers sets what every answer has.
func (g *Gate) Headers(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if g.Auth != nil {
			for k, v := range g.Auth.headers {
				w.Header().Set(k, v)
			}
		}
		h.ServeHTTP(w, r)
	})
}

// exhausted applies the web configuration's rate_limit.
func (g *Gate) exhausted(r *http.Request) bool {
	return g.Auth != nil && g.Auth.limit != nil && !g.open(r) && !g.Auth.limit.take()
}

func (g *Gate) refuse(w http.ResponseWriter, a access) {
	switch {
	case a == busy:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests", http.StatusTooManyRequests)
	case !g.Auth.Knows():
		// Not 401: there is nothing to log in with.
		http.Error(w, "forbidden: this listener is not on loopback and has no authentication configured", http.StatusForbidden)
	default:
		who := g.Auth.who.Load()
		if who.users != nil {
			w.Header().Add("WWW-Authenticate", `Basic realm="outrider", charset="UTF-8"`)
		}
		if len(who.tokens) > 0 {
			w.Header().Add("WWW-Authenticate", `Bearer realm="outrider"`)
		}
		http.Error(w, "unauthorized", http.StatusUnauthorized)
	}
}

func withDetail(r *http.Request, ok bool) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), detailKey{}, ok))
}

func withoutQuery(r *http.Request, key string) *http.Request {
	q := r.URL.Query()
	q.Del(key)
	url := *r.URL
	url.RawQuery = q.Encode()
	r = r.WithContext(r.Context())
	r.URL = &url
	return r
}

// localHost reports whether a Host header can only have been meant for this
// machine. A name other than localhost may be somebody's who lets it resolve
// to 127.0.0.1 to make a browser talk to us.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

func clip(s string) string { return s[:min(len(s), 100)] }
