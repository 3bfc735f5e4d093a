package simcluster

import (
	"cmp"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
)

// Stats are what a server has done so far.
type Stats struct {
	Requests    []Requests // by verb and code, sorted
	Watches     int        // that are open
	Connections int        // that are open
	Events      int64      // told by watches, without bookmarks and errors
}

// Requests are how many of one verb were answered with one code; a watch
// counts when it begins.
type Requests struct {
	Verb  string // get, list, watch, create, update, patch, delete, deletecollection, or other
	Code  int    // of HTTP
	Count int64
}

type stats struct {
	events  atomic.Int64
	watches atomic.Int64

	mu       sync.Mutex // guards what follows
	requests map[Requests]int64
}

func (s *stats) init() { s.requests = map[Requests]int64{} }

func (s *stats) answered(verb string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[Requests{Verb: verb, Code: code}]++
}

// Stats says what the server has done so far.
func (s *Server) Stats() Stats {
	out := Stats{
		Watches: int(s.stats.watches.Load()), Events: s.stats.events.Load(),
		Connections: len(s.listener.all(nil)),
	}
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	for r, n := range s.stats.requests {
		r.Count = n
		out.Requests = append(out.Requests, r)
	}
	slices.SortFunc(out.Requests, func(a, b Requests) int { return cmp.Or(cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Code, b.Code)) })
	return out
}

// An answer counts itself when it begins.
type answer struct {
	http.ResponseWriter
	begun func(code int)
}

func (a *answer) WriteHeader(code int) {
	if a.begun != nil && code >= http.StatusOK {
		a.begun(code)
		a.begun = nil
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.begun != nil {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
