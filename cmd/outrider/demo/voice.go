package demo

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// errUnread is why a run ends whose output cannot be written any more: nobody
// sees it, and it would go on for ever.
var errUnread = errors.New("stopped, since its output cannot be written")

// A voice is where people read. What cannot be written ends the run.
type voice struct {
	to       io.Writer
	terminal bool
	broken   func(error) // is called once, with why

	once sync.Once
}

// Write implements [io.Writer].
func (v *voice) Write(text []byte) (int, error) {
	n, err := v.to.Write(text)
	if err != nil {
		v.once.Do(func() { v.broken(fmt.Errorf("%w: %w", errUnread, err)) })
	}
	return n, err
}

// stopping says that the run was interrupted.
func (v *voice) stopping(at time.Duration) {
	v.overwrite()
	fmt.Fprintf(v, "%s: stopped; what is on its way has %s\n", clock(at), spoken(lastDrain))
}

// overwrite has the next line take the place of the ^C that stands on a
// terminal when the run was interrupted.
func (v *voice) overwrite() {
	if v.terminal {
		fmt.Fprint(v, "\r")
	}
}
