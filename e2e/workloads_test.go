package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tersely is the configuration of an agent beside the other one: it tells no
// change of reason alone.
const tersely = `service: platform-sync-tersely
data_dir: ./outrider-data
listen: {public: 127.0.0.1:9620, debug: 127.0.0.1:9621, status: 127.0.0.1:9622}
statesync:
  kubeconfig: ./kubeconfig
  sinks:
    - name: archive
      file: {path: ./changes.ndjson}
`

// TestOneStoryAWorkload lets two agents, one with reasons and one without,
// watch everything that people run live through its life. Each workload has
// the one story that its scenario wrote down, and nothing else has any: no
// ReplicaSet of a Deployment, no pod of anything, while its owner tells.
func TestOneStoryAWorkload(t *testing.T) {
	needCluster(t)
	const prefix = "told-"
	s := newSession(t, "workloads")
	config := with(t, configOf(), "  kinds: [Pod, Job]\n", "  reasons: true\n")
	a := s.start(t, config)
	terse := startBeside(t, workDir(t), tersely)

	want := inWorlds(t, prefix)
	reasons := want.told
	plain := maps.Clone(reasons)
	for uid, story := range plain {
		plain[uid] = withoutReasons(story)
	}
	file := filepath.Join(terse.cmd.Dir, "changes.ndjson")
	settle(t, func() bool {
		return maps.Equal(reasons, accounts(within(prefix, s.hook.received()))) && maps.Equal(plain, accounts(within(prefix, readFile(t, file))))
	})
	a.stop()
	terse.end()

	events := within(prefix, s.received(t))
	stories(t, "webhook", events)
	compare(t, "webhook, with reasons", reasons, accounts(events))
	exitCodes(t, want.codes, events)
	others := within(prefix, readFile(t, file))
	stories(t, "file, without reasons", others)
	compare(t, "file, without reasons", plain, accounts(others))
	exitCodes(t, want.codes, others)
	for where, events := range map[string][]event{"with reasons": events, "without reasons": others} {
		noGaps(t, where, events)
		if n := foundLate(events); n > 0 {
			t.Errorf("%s: %d changes were found by a list, want all from the watch", where, n)
		}
	}
	sameIDs(t, events, within(prefix, s.archive(t)))
	s.verified(t)
	verify(t, "--against", file, "--sink", "archive", "--dir", filepath.Join(terse.cmd.Dir, "outrider-data"))
}

// startBeside runs a second agent, which has other ports than the first, until
// it is ready.
func startBeside(t *testing.T, dir, config string) *agent {
	t.Helper()
	a := launch(t, dir, config, "")
	waitFor(t, 30*time.Second, "the second agent to be ready", func() bool {
		code, _ := get("http://127.0.0.1:9620/readyz")
		return code == 200
	})
	return a
}

// end stops an agent that is not the one whose metrics the tests read.
func (a *agent) end() {
	a.t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.t.Fatal(err)
	}
	select {
	case <-a.ended:
		if a.err != nil {
			a.t.Errorf("the agent ended with %v, want a clean end", a.err)
		}
	case <-time.After(20 * time.Second):
		a.t.Fatal("the agent did not stop in 20 s after SIGTERM")
	}
}

// settle waits until all is told that should be, and a while for more; what is
// missing after that, the comparison will say.
func settle(t *testing.T, told func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !told() && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond) // sleep: between two looks
	}
	time.Sleep(time.Second) // sleep: what should not be told may come after all
}

// within are the events of the namespaces that start with prefix, and all
// gaps.
func within(prefix string, events []event) []event {
	return slices.DeleteFunc(slices.Clone(events), func(e event) bool {
		return e.Type != gapType && !strings.HasPrefix(e.Data.Workload.Namespace, prefix)
	})
}

// accounts are the stories that the events tell, as [world.tells] has them.
func accounts(events []event) map[string]string {
	out := map[string]string{}
	for _, e := range events {
		if e.Type == gapType {
			continue
		}
		w, step := e.Data.Workload, e.Data.To
		if e.Data.Reason != "" {
			step += "(" + e.Data.Reason + ")"
		}
		if out[w.UID] == "" {
			out[w.UID] = account(w.Kind, w.Namespace, w.Name, step)
		} else {
			out[w.UID] += ">" + step
		}
	}
	return out
}

func account(kind, namespace, name, story string) string {
	return fmt.Sprintf("%s %s/%s: %s", kind, namespace, name, story)
}

// withoutReasons leaves out the steps that change the reason alone.
func withoutReasons(account string) string {
	workload, story, _ := strings.Cut(account, ": ")
	state := func(step string) string {
		s, _, _ := strings.Cut(step, "(")
		return s
	}
	steps := slices.CompactFunc(strings.Split(story, ">"), func(a, b string) bool { return state(a) == state(b) })
	return workload + ": " + strings.Join(steps, ">")
}

// exitCodes wants the end of each of these workloads to have the exit code.
func exitCodes(t *testing.T, want map[string]int32, events []event) {
	t.Helper()
	last := lastOf(events)
	for uid, code := range want {
		if got := last[uid].Data.ExitCode; got == nil || *got != code {
			t.Errorf("%s: exit code %s, want %d: %s", last[uid].Subject, number(got), code, last[uid].body)
		}
	}
}

func number(n *int32) string {
	if n == nil {
		return "none"
	}
	return fmt.Sprint(*n)
}
