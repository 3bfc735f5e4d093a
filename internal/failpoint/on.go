//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

type point struct {
	action string
	at     int64
	passed atomic.Int64
}

// points reads the environment once. Read-only.
var points = sync.OnceValue(func() map[string]*point {
	out := map[string]*point{}
	for _, spec := range strings.Split(os.Getenv("OUTRIDER_FAILPOINTS"), ",") {
		name, what, ok := strings.Cut(spec, "=")
		if !ok {
			continue
		}
		action, count, _ := strings.Cut(what, "@")
		at, err := strconv.ParseInt(count, 10, 64)
		if err != nil {
			at = 1
		}
		out[name] = &point{action: action, at: at}
	}
	return out
})

// Here does what the environment says of the place, and returns the error
// with which the step is to fail.
func Here(name string) error {
	p := points()[name]
	if p == nil {
		return nil
	}
	n := p.passed.Add(1)
	switch {
	case p.action == "kill" && n >= p.at:
		fmt.Fprintln(os.Stderr, "failpoint", name)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal has come
	case p.action == "EIO" && n == p.at:
		return fmt.Errorf("failpoint %s: %w", name, syscall.EIO)
	case p.action == "ENOSPC" && n == p.at:
		return fmt.Errorf("failpoint %s: %w", name, syscall.ENOSPC)
	}
	return nil
}
