package e2e

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const gadgetKind = `    - kind: {group: e2e.outrider.dev, version: v1, resource: gadgets, name: Gadget}
      cel:
        queued: "!has(object.status) || object.status.phase == 'Waiting'"
        running: object.status.phase == "Busy"
        succeeded: object.status.phase == "Done"
        failed: object.status.phase == "Broken"
        reason: object.status.cause
`

const allKinds = "  kinds:\n    - Pod\n    - Job\n    - Deployment\n    - ReplicaSet\n    - StatefulSet\n    - DaemonSet\n" + gadgetKind

// actLives has an agent that watches everything, of all namespaces.
func actLives(s *stage) {
	s.follower.follow(allKinds, "archive")
	for _, scenario := range []func(*stage){
		podsEnd, podsWait, podsDeleted, podsHeld, podsAgain, podsAtOnce, nothingChanges, conflicts, namesAreMade, labelsChange,
		namespaceAgain, jobsEnd, jobsLetGo, jobsPause, deploymentLives, otherAppsLive, gadgetsLive,
	} {
		scenario(s)
	}
}

// actSelectors has one that watches two namespaces, and of them what has a
// label.
func actSelectors(s *stage) {
	c, d, elsewhere := s.scene("one"), s.scene("two"), s.scene("elsewhere")
	c.pod("before", labelled("team=a"))
	c.pod("not-yet", labelled("team=b"))
	s.follower.follow("  namespaces: [selectors-one, selectors-two]\n  kinds:\n    - {kind: Pod, selector: team=a}\n    - {kind: Job, selector: \"team in (a, c),!hidden\", fold: false}\n", "archive")
	c.tells("Pod", "before", "Queued")
	elsewhere.pod("before", labelled("team=a"))
	c.pod("other", labelled("team=b"))
	c.pod("leaves", labelled("team=a"))
	c.runs("leaves")
	c.patch("Pod", "leaves", "metadata: {labels: {team: b}}")
	c.until("Pod", "leaves", "Untracked(NotSelected)")
	c.patch("Pod", "leaves", "status: {phase: Unknown}") // is not told
	c.patch("Pod", "leaves", "metadata: {labels: {team: a}}")
	c.until("Pod", "leaves", "Running(NodeUnknown)")
	c.runs("leaves")
	c.ends("leaves", 0, "Completed")
	c.tells("Pod", "leaves", "Queued>Running>Untracked(NotSelected)>Running(NodeUnknown)>Running>Succeeded(Completed)")
	c.patch("Pod", "not-yet", "metadata: {labels: {team: a}}")
	c.until("Pod", "not-yet", "Queued")
	c.patch("Pod", "not-yet", "metadata: {labels: {team: null}}")
	c.until("Pod", "not-yet", "Untracked(NotSelected)")
	c.remove("Pod", "not-yet", 0)
	c.tells("Pod", "not-yet", "Queued>Untracked(NotSelected)")

	d.pod("only", labelled("team=a"))
	d.remove("Pod", "only", 0)
	d.tells("Pod", "only", "Queued>Cancelled(Deleted)")
	j := d.job("hides")
	d.patch("Job", "hides", "metadata: {labels: {team: c}}")
	d.until("Job", "hides", "Queued")
	d.patch("Job", "hides", "metadata: {labels: {hidden: \"yes\"}}")
	d.until("Job", "hides", "Untracked(NotSelected)")
	d.patch("Job", "hides", jobStarts)
	d.pod("hides-1", of("batch/v1", "Job", j))
	d.patch("Job", "hides", "metadata: {labels: {hidden: null}}")
	d.until("Job", "hides", "Queued")
	d.remove("Job", "hides")
	d.tells("Job", "hides", "Queued>Untracked(NotSelected)>Queued>Cancelled(Deleted)")
}

// actCrowd creates pods while the agent lists those that are there.
func actCrowd(s *stage) {
	const half = 600
	c := s.scene("pods")
	create := func(i int) {
		p := bare(fmt.Sprintf("p-%04d", i))
		if _, err := c.client.CoreV1().Pods(c.ns).Create(c.Context(), p, metav1.CreateOptions{}); err != nil {
			c.Errorf("create pod: %v", err)
		}
	}
	each(half, create)
	s.follower.launch("  namespaces: [crowd-pods]\n  kinds: [Pod, Job]\n", "archive")
	each(half, func(i int) { create(half + i) })
	for i := range 2 * half {
		story := "Queued"
		if i%100 == 0 {
			c.runs(fmt.Sprintf("p-%04d", i))
			story = "Queued>Running"
		}
		c.tells("Pod", fmt.Sprintf("p-%04d", i), story)
	}
	s.follower.ready()
	s.settle()
	listed := 0
	for _, e := range s.follower.events() {
		if e.Data.Seq == 1 && e.Data.ObservedLate {
			listed++
		}
	}
	s.Logf("%d of %d pods were found by the list, the others by the watch", listed, 2*half)
}

// a gadget's states.
const (
	gadgetBusy = "status: {phase: Busy, cause: Started}"
	gadgetDone = "status: {phase: Done, cause: AllDone}"
)

func (c *scene) gadget(name string) {
	c.Helper()
	c.create("e2e.outrider.dev/v1", "Gadget", name, "spec: {size: 3}")
}

// actRestart stops the agent, writes, and starts it again; and then once more,
// with a second sink, which is told where everything stands.
func actRestart(s *stage) {
	c := s.scene("one")
	more := "  namespaces: [restart-one, restart-nowhere]\n" + allKinds
	s.follower.follow(more, "archive")
	for _, name := range []string{"still", "ends", "goes", "again", "quiet"} {
		c.pod(name, labelled("app="+name))
		c.runs(name)
		c.until("Pod", name, "Running")
	}
	j := c.job("works")
	c.jobRuns(j, "works-1")
	c.job("quiet")
	c.gadget("g")
	c.patch("Gadget", "g", gadgetBusy)
	c.until("Gadget", "g", "Running(Started)")
	c.until("Job", "quiet", "Queued")
	s.follower.stop()

	c.patch("Pod", "still", "metadata: {labels: {app: other}}")
	c.ends("ends", 9, "Error")
	c.remove("Pod", "goes", 0)
	c.remove("Pod", "again", 0)
	c.pod("again")
	c.runs("again")
	c.pod("passes")
	c.runs("passes")
	c.ends("passes", 0, "Completed")
	c.remove("Pod", "passes")
	c.pod("fresh")
	c.ends("works-1", 0, "Completed")
	c.patch("Job", "works", jobCompletes)
	c.patch("Gadget", "g", "status: {cause: Going}")
	c.remove("Gadget", "g")
	c.gadget("g")
	s.follower.follow(more, "archive")
	c.tells("Pod", "still", "Queued>Running")
	c.tells("Pod", "quiet", "Queued>Running")
	c.tells("Pod", "ends", "Queued>Running>Failed(Error)")
	c.tells("Pod", "goes", "Queued>Running>Cancelled(Deleted)")
	c.tells("Pod", "again", "Queued>Running>Cancelled(Deleted); Queued>Running")
	c.tells("Pod", "passes", "Queued>Running>Succeeded(Completed)")
	c.tells("Pod", "fresh", "Queued")
	c.tells("Job", "works", "Queued>Running>Succeeded(CompletionsReached)")
	c.tells("Job", "quiet", "Queued")
	c.tells("Gadget", "g", "Queued>Running(Started)>Running(Going)>Cancelled(Deleted); Queued")
	s.settle()
	s.follower.stop()

	s.follower.follow(more, "archive", "late")
	c.patch("Gadget", "g", gadgetDone)
	c.tells("Gadget", "g", "Queued>Running(Started)>Running(Going)>Cancelled(Deleted); Queued>Running>Succeeded(AllDone)")
	c.until("Gadget", "g", "Succeeded(AllDone)")
	c.runs("fresh")
	c.tells("Pod", "fresh", "Queued>Running")
}

// actCompacted is the same, but that the history is gone when the agent comes
// back.
func actCompacted(s *stage) {
	c := s.scene("one")
	more := "  namespaces: [compacted-one]\n  kinds:\n    - Pod\n    - Job\n" + gadgetKind
	s.follower.follow(more, "archive")
	for _, name := range []string{"still", "ends", "goes", "again"} {
		c.pod(name)
		c.runs(name)
		c.until("Pod", name, "Running")
	}
	c.jobRuns(c.job("works"), "works-1")
	c.gadget("g")
	c.gadget("still")
	c.until("Gadget", "g", "Queued")
	c.until("Gadget", "still", "Queued")
	s.follower.stop()

	c.ends("ends", 9, "Error")
	c.remove("Pod", "goes", 0)
	c.remove("Pod", "again", 0)
	c.pod("again")
	c.runs("again")
	c.pod("passes") // and nobody knows
	c.remove("Pod", "passes", 0)
	c.pod("fresh")
	c.remove("Job", "works")
	c.remove("Pod", "works-1", 0)
	c.remove("Gadget", "g")
	c.gadget("g")
	s.forget(s.T)
	for _, stream := range []string{"daemonsets", "deployments", "gadgets.e2e.outrider.dev", "jobs", "pods", "replicasets", "statefulsets"} {
		s.gaps = append(s.gaps, stream+"/compacted-one Expired") // a Gadget may own any of them
	}
	s.follower.follow(more, "archive")
	c.tells("Pod", "ends", "Queued>Running>Failed(Error)")
	c.tells("Pod", "goes", "Queued>Running>Cancelled(Deleted)")
	c.tells("Pod", "again", "Queued>Running>Cancelled(Deleted); Queued>Running")
	c.tells("Pod", "fresh", "Queued")
	c.tells("Job", "works", "Queued>Running>Cancelled(Deleted)")
	c.tells("Gadget", "g", "Queued>Cancelled(Deleted); Queued")
	c.tells("Gadget", "still", "Queued")
	c.until("Pod", "fresh", "Queued")
	c.ends("still", 0, "Completed")
	c.tells("Pod", "still", "Queued>Running>Succeeded(Completed)")
}

// actDefinition takes a kind away, and defines it anew.
func actDefinition(s *stage) {
	c := s.scene("one")
	s.follower.follow("  namespaces: [definition-one]\n  kinds:\n    - Pod\n"+gadgetKind, "archive")
	c.gadget("g")
	c.patch("Gadget", "g", gadgetBusy)
	c.until("Gadget", "g", "Running(Started)")
	s.undefine(s.T)
	c.until("Gadget", "g", "Cancelled(Deleted)")
	c.here("Gadget", "g")
	s.define(s.T)
	waitFor(s.T, patience, "gadgets to be there again", func() bool {
		_, err := c.resource("Gadget").List(c.Context(), metav1.ListOptions{})
		return err == nil
	})
	s.gaps = []string{"gadgets.e2e.outrider.dev/definition-one Expired"}
	waitFor(s.T, patience, "the agent to have listed them again", func() bool { return slices.Equal(s.gaps, gapWords(s.follower.events(), false)) })
	c.gadget("g")
	c.patch("Gadget", "g", gadgetDone)
	c.pod("p")
	c.tells("Pod", "p", "Queued")
	c.tells("Gadget", "g", "Queued>Running(Started)>Cancelled(Deleted); Queued>Running>Succeeded(AllDone)")
}
