package listen

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// maxBodyBytes is what one request may send.
const maxBodyBytes = 1 << 20

// NewServer returns a server with the limits that every listener of the agent
// has, over TLS when auth has it: then it speaks HTTP/2 too. A handler that must write for longer,
// such as a CPU profile, moves its deadline with [http.ResponseController].
func NewServer(h http.Handler, auth *Auth, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	var tlsConfig *tls.Config
	protocols.SetHTTP1(true)
	if auth != nil && auth.tls != nil {
		tlsConfig = auth.tls.Clone()
		protocols.SetHTTP2(auth.http2)
	}
	return &http.Server{
		Handler:           http.MaxBytesHandler(h, maxBodyBytes),
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		Protocols:         &protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100},
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(l net.Listener) context.Context { return On(context.Background(), l.Addr()) },
	}
}

// Serve serves on l until the server is shut down, over TLS when the server
// has it. A unix socket needs none: nobody sits on its wire.
func Serve(s *http.Server, l net.Listener) error {
	if s.TLSConfig != nil && l.Addr().Network() != "unix" {
		return s.ServeTLS(Limit(l, MaxConns), "", "")
	}
	return s.Serve(Limit(l, MaxConns))
}

type addrKey struct{}

// On returns a context that says on which listener a request came in. The
// gate trusts no other source: a connection's own local address is loopback
// for a local peer of a listener that is open to the world.
func On(ctx context.Context, listener net.Addr) context.Context {
	return context.WithValue(ctx, addrKey{}, listener)
}

func listenerOf(r *http.Request) net.Addr {
	a, _ := r.Context().Value(addrKey{}).(net.Addr)
	return a
}
