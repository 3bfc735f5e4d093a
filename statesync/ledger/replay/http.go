package replay

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

// writeTimeout is how long a client may take for one line of the answer.
const writeTimeout = 30 * time.Second

// tellEvery is how often a client hears of it. What it heard last is what it
// can go on from.
const tellEvery = 250 * time.Millisecond

// Handler replays to a sink when it is asked to, as [Parse] reads it. The answer
// is a [Report] a line, of which the last is the end; the work ends when the
// client goes. Of each sink there is one replay at a time. replayed is called
// when dead letters of a sink have gone; nil: nobody need know.
func Handler(log Log, replayed func(sink string, letters int64)) http.Handler {
	var mu sync.Mutex
	busy := map[string]bool{}
	take := func(sink string) bool {
		mu.Lock()
		defer mu.Unlock()
		taken := busy[sink]
		busy[sink] = true
		return !taken
	}
	release := func(sink string) {
		mu.Lock()
		defer mu.Unlock()
		delete(busy, sink)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		q, err := Parse(r.Form)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if !take(q.Sink) {
			http.Error(w, "another replay to sink "+q.Sink+" is under way: wait for it, or end it", http.StatusConflict)
			return
		}
		free := sync.OnceFunc(func() { release(q.Sink) })
		defer free()
		a := &answer{w: w, control: http.NewResponseController(w)}
		// The server's limits are for short answers.
		_ = a.control.SetReadDeadline(time.Time{})
		_ = a.control.SetWriteDeadline(time.Time{})
		w.Header().Set("Content-Type", "application/json")
		gone := int64(0)
		report, err := Run(r.Context(), log, q, func(now Report) {
			if now.Letters && now.Done > gone && replayed != nil {
				replayed(now.Sink, now.Done-gone)
				gone = now.Done
			}
			a.tell(now)
		})
		free() // before the client hears of the end, and asks for the next
		switch {
		case err == nil:
		case a.begun:
			report.Error = err.Error()
		case errors.Is(err, ErrRefused):
			http.Error(w, err.Error(), http.StatusConflict)
			return
		default:
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		a.write(report)
	})
}

// answer is one answer under way.
type answer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool // something was written: too late for a status
	told    time.Time
}

// tell writes how far it is, if that was not told just now.
func (a *answer) tell(r Report) {
	if now := time.Now(); now.Sub(a.told) >= tellEvery {
		a.told = now
		a.write(r)
	}
}

// write writes a line. A client that has gone ends the context too.
func (a *answer) write(r Report) {
	a.begun = true
	_ = a.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	_ = json.NewEncoder(a.w).Encode(r)
	_ = a.control.Flush()
	// Not while the next part is put aside, which may take long.
	_ = a.control.SetWriteDeadline(time.Time{})
}
