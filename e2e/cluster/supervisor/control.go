package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/outrider-agent/outrider/e2e/cluster/component"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

// The supervisor's unix socket speaks HTTP:
//
//	GET  /status                              []Status
//	POST /components/NAME/{stop,kill,start,restart}[?graceful=true]
//	POST /compact                             {"message": ...}
//	POST /snapshot?file=ABSOLUTE              {"message": ...}
//	POST /restore?file=ABSOLUTE               {"message": ...}
//
// An error answers 4xx or 5xx with {"message": ...}.

type answer struct {
	Message string `json:"message"`
}

// errNotFound makes an answer of status 404.
var errNotFound = errors.New("not found")

// serve answers on the control socket until the function it gives is called. A verb goes on when its caller goes away, and ends with ctx.
func (s *Supervisor) serve(ctx context.Context) (stop func(), err error) {
	path, done, err := socketPath(s.dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(s.dir.Control()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("serve control: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("serve control: %w", err)
	}
	// The path may be one of /proc that is gone by then; the file is removed below.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	server := &http.Server{Handler: s.routes(ctx)} //nolint:gosec // a private unix socket needs no read timeout
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	return func() {
		_ = server.Close()
		<-served
		_ = os.Remove(s.dir.Control())
	}, nil
}

func (s *Supervisor) routes(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		statuses := make([]Status, len(s.processes))
		for i, p := range s.processes {
			statuses[i] = p.status(s.settings.Ports)
		}
		respond(w, http.StatusOK, statuses)
	})
	handle := func(pattern string, do func(*http.Request) (string, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s.verbs.Lock()
			defer s.verbs.Unlock()
			message, err := do(r)
			switch {
			case errors.Is(err, errNotFound):
				respond(w, http.StatusNotFound, answer{err.Error()})
			case err != nil:
				respond(w, http.StatusInternalServerError, answer{err.Error()})
			default:
				respond(w, http.StatusOK, answer{message})
			}
		})
	}
	handle("POST /components/{name}/{verb}", func(r *http.Request) (string, error) {
		return "", s.act(ctx, r.PathValue("name"), r.PathValue("verb"), r.FormValue("graceful") == "true")
	})
	handle("POST /compact", func(r *http.Request) (string, error) { return s.compact(ctx) })
	handle("POST /snapshot", func(r *http.Request) (string, error) { return s.snapshot(ctx, r.FormValue("file")) })
	handle("POST /restore", func(r *http.Request) (string, error) { return s.restore(ctx, r.FormValue("file")) })
	return mux
}

// act does a verb to one component.
func (s *Supervisor) act(ctx context.Context, name, verb string, graceful bool) error {
	if err := component.Check(name); err != nil {
		return fmt.Errorf("%w: %w", errNotFound, err)
	}
	p := s.find(name)
	switch verb {
	case "stop":
		return s.stop(p, syscall.SIGTERM, stopPatience)
	case "kill":
		return s.stop(p, syscall.SIGKILL, forever)
	case "start":
		return s.start(ctx, p)
	case "restart":
		signal, patience := syscall.SIGKILL, forever
		if graceful {
			signal, patience = syscall.SIGTERM, stopPatience
		}
		if err := s.stop(p, signal, patience); err != nil {
			return err
		}
		return s.start(ctx, p)
	}
	return fmt.Errorf("%w: verb: got %q, want stop, kill, start or restart", errNotFound, verb)
}

func respond(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a caller that went away is not our error
}

// maxSocketPath is the kernel's limit for a socket's path (108 bytes with its final zero).
const maxSocketPath = 107

// socketPath gives a path of the control socket that is short enough for the kernel, through /proc where the directory's own is not. The path is good until done is called.
func socketPath(dir settings.Dir) (path string, done func(), err error) {
	if len(dir.Control()) <= maxSocketPath {
		return dir.Control(), func() {}, nil
	}
	folder, err := os.Open(string(dir))
	if err != nil {
		return "", nil, fmt.Errorf("open cluster directory: %w", err)
	}
	path = fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(dir.Control()))
	return path, func() { _ = folder.Close() }, nil
}
