package kubelet

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Prefix starts the annotations that say how a pod is to run.
const Prefix = "devcluster/"

// A Script is how a pod is to run.
type Script struct {
	// Pull is the time in ContainerCreating before the containers run.
	Pull time.Duration
	// Run is how long the containers run; Endless where they run until the pod is deleted.
	Run     time.Duration
	Endless bool
	// Ready is the time from running to ready; Unready where the pod never becomes ready.
	Ready   time.Duration
	Unready bool
	// Exits are the exit codes of the first run, the second and so on; the last holds for all that follow.
	Exits []int32
	// End is a reason that the pod ends or hangs with; see ends.
	End string
	// Backoff is the first wait in CrashLoopBackOff; each further one is twice as long, up to maxBackoff times it.
	Backoff time.Duration
	// Shutdown is the time from the pod's deletion to the end of its containers, and ExitOnDelete their exit code.
	Shutdown     time.Duration
	ExitOnDelete int32
}

const (
	defaultPull     = 50 * time.Millisecond
	defaultRunToEnd = 100 * time.Millisecond // of a pod that is told how to end, but not when
	defaultShutdown = 20 * time.Millisecond
	// A real kubelet waits 10 s first and 5 minutes at most, which is 30 times as long.
	defaultBackoff = 200 * time.Millisecond
	maxBackoff     = 30
	exitSIGTERM    = 143
	exitSIGKILL    = 137
)

// ParseScript reads the annotations that start with Prefix. An unknown one is an error, because a misspelt test would otherwise pass for the wrong reason.
func ParseScript(annotations map[string]string) (Script, error) {
	script := Script{Pull: defaultPull, Shutdown: defaultShutdown, Backoff: defaultBackoff, ExitOnDelete: exitSIGTERM, Endless: true}
	keys := make([]string, 0, len(annotations))
	for key := range annotations {
		if strings.HasPrefix(key, Prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := script.set(strings.TrimPrefix(key, Prefix), annotations[key]); err != nil {
			return Script{}, fmt.Errorf("annotation %s: %w", key, err)
		}
	}
	return script.complete(), nil
}

func (s *Script) set(name, value string) (err error) {
	switch name {
	case "pull":
		s.Pull, err = parseDuration(value)
	case "run":
		s.Endless = false
		s.Run, err = parseDuration(value)
	case "ready":
		if s.Unready = value == "never"; !s.Unready {
			s.Ready, err = parseDuration(value)
		}
	case "exit":
		s.Exits, err = parseExits(value)
	case "end":
		if _, known := ends[value]; !known {
			return fmt.Errorf("got %q, want one of %s", value, strings.Join(Ends(), ", "))
		}
		s.End = value
	case "backoff":
		s.Backoff, err = parseDuration(value)
	case "shutdown":
		s.Shutdown, err = parseDuration(value)
	case "exit-on-delete":
		var exits []int32
		if exits, err = parseExits(value); err == nil {
			s.ExitOnDelete = exits[0]
		}
	default:
		return fmt.Errorf("got an unknown name, want one of pull, run, ready, exit, end, backoff, shutdown, exit-on-delete")
	}
	return err
}

// complete fills in what other annotations imply.
func (s Script) complete() Script {
	if s.Exits == nil {
		s.Exits = []int32{ends[s.End].exit}
	} else if s.Endless && s.End == "" {
		// An exit code alone asks for an end.
		s.Endless, s.Run = false, defaultRunToEnd
	}
	if s.End != "" && s.Endless {
		s.Endless, s.Run = false, defaultRunToEnd
	}
	return s
}

// exit is the exit code of the run after so many restarts.
func (s Script) exit(restarts int32) int32 {
	return s.Exits[min(int(restarts), len(s.Exits)-1)]
}

// wait is the back-off before the next start after so many restarts. The first restart is immediate, as a real kubelet's is.
func (s Script) wait(restarts int32) time.Duration {
	factor := 1
	for range restarts - 1 {
		factor = min(2*factor, maxBackoff)
	}
	return time.Duration(factor) * s.Backoff
}

func parseDuration(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("got %q, want a duration such as 50ms or 2s", value)
	}
	return d, nil
}

func parseExits(value string) ([]int32, error) {
	var exits []int32
	for field := range strings.SplitSeq(value, ",") {
		exit, err := strconv.ParseUint(strings.TrimSpace(field), 10, 8)
		if err != nil {
			return nil, fmt.Errorf("got %q, want exit codes from 0 to 255, such as 3 or 1,1,0", value)
		}
		exits = append(exits, int32(exit))
	}
	return exits, nil
}
