package e2e

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

func podsEnd(s *stage) {
	c := s.scene("pods-end")
	for _, name := range []string{"succeeds", "oom", "errs", "evicted", "disrupted", "in-one-step"} {
		c.pod(name, labelled("app="+name))
	}
	for _, name := range []string{"succeeds", "oom", "errs", "evicted", "disrupted"} {
		c.runs(name)
	}
	c.ends("succeeds", 0, "Completed")
	c.tells("Pod", "succeeds", "Queued>Running>Succeeded(Completed)")
	c.ends("oom", 137, "OOMKilled")
	c.tells("Pod", "oom", "Queued>Running>Failed(OOMKilled)")
	c.ends("errs", 3, "Error")
	c.tells("Pod", "errs", "Queued>Running>Failed(Error)")
	c.patch("Pod", "evicted", `status: {phase: Failed, reason: Evicted, message: "The node was low on resource: memory."}`)
	c.tells("Pod", "evicted", "Queued>Running>Failed(Evicted)")
	c.patch("Pod", "disrupted", `status: {conditions: [{type: DisruptionTarget, status: "True", reason: PreemptionByScheduler, message: "a more important one", lastTransitionTime: "@now"}]}`)
	c.ends("disrupted", 143, "Error")
	c.tells("Pod", "disrupted", "Queued>Running>Failed(Preempted)")
	c.ends("in-one-step", 0, "Completed")
	c.tells("Pod", "in-one-step", "Queued>Running>Succeeded(Completed)")
}

func podsWait(s *stage) {
	c := s.scene("pods-wait")
	c.pod("waits")
	c.patch("Pod", "waits", `status: {conditions: [{type: PodScheduled, status: "False", reason: Unschedulable, message: "0/3 nodes", lastTransitionTime: "@now"}]}`)
	c.patch("Pod", "waits", `status: {conditions: [{type: PodScheduled, status: "True", lastTransitionTime: "@now"}]}`)
	c.patch("Pod", "waits", `status: {containerStatuses: [`+container("waiting: {reason: ContainerCreating}")+`]}`)
	c.patch("Pod", "waits", `status: {containerStatuses: [`+container("waiting: {reason: ErrImagePull, message: no such image}")+`]}`)
	c.patch("Pod", "waits", `status: {containerStatuses: [`+container("waiting: {reason: ImagePullBackOff, message: no such image}")+`]}`)
	c.runs("waits")
	c.patch("Pod", "waits", `status: {phase: Unknown}`)
	c.runs("waits")
	c.ends("waits", 0, "Completed")
	c.tells("Pod", "waits", "Queued>Queued(Unschedulable)>Queued>Queued(ErrImagePull)>Queued(ImagePullBackOff)>Running>Running(NodeUnknown)>Running>Succeeded(Completed)")
}

func podsDeleted(s *stage) {
	c := s.scene("pods-deleted")
	for _, name := range []string{"pending", "running"} {
		c.pod(name)
	}
	c.remove("Pod", "pending")
	c.here("Pod", "pending")
	c.tells("Pod", "pending", "Queued>Cancelled(Deleted)")
	c.runs("running")
	c.remove("Pod", "running", 0)
	c.here("Pod", "running")
	c.tells("Pod", "running", "Queued>Running>Cancelled(Deleted)")

	for _, name := range []string{"stops", "forced", "by-default", "patient", "ended", "zero"} {
		c.pod(name, onNode)
		c.runs(name)
	}
	c.remove("Pod", "stops", 30) // its containers stop in time
	c.here("Pod", "stops")
	c.ends("stops", 143, "Error")
	c.here("Pod", "stops")
	c.remove("Pod", "stops", 0)
	c.here("Pod", "stops")
	c.tells("Pod", "stops", "Queued>Running>Cancelled(Deleted)")
	c.remove("Pod", "forced", 30)
	c.remove("Pod", "forced", 0)
	c.here("Pod", "forced")
	c.tells("Pod", "forced", "Queued>Running>Cancelled(Deleted)")
	c.remove("Pod", "by-default")
	c.here("Pod", "by-default")
	c.ends("by-default", 0, "Completed")
	c.remove("Pod", "by-default")
	c.here("Pod", "by-default")
	c.remove("Pod", "by-default", 0)
	c.tells("Pod", "by-default", "Queued>Running>Succeeded(Completed)")
	c.remove("Pod", "patient", 60) // and then less so, and then asks for more
	c.remove("Pod", "patient", 10)
	c.here("Pod", "patient")
	c.remove("Pod", "patient", 60)
	c.here("Pod", "patient")
	c.ends("patient", 1, "Error")
	c.remove("Pod", "patient", 0)
	c.tells("Pod", "patient", "Queued>Running>Cancelled(Deleted)")
	c.ends("ended", 5, "Error")
	c.remove("Pod", "ended")
	c.here("Pod", "ended")
	c.tells("Pod", "ended", "Queued>Running>Failed(Error)")
	c.remove("Pod", "zero", 0)
	c.here("Pod", "zero")
	c.tells("Pod", "zero", "Queued>Running>Cancelled(Deleted)")
}

func podsHeld(s *stage) {
	c := s.scene("pods-held")
	for _, name := range []string{"ends", "goes", "pending"} {
		c.pod(name, held)
	}
	release := "metadata: {finalizers: null}"
	c.runs("ends")
	c.remove("Pod", "ends", 0)
	c.here("Pod", "ends")
	c.ends("ends", 0, "Completed")
	c.patch("Pod", "ends", release)
	c.here("Pod", "ends")
	c.tells("Pod", "ends", "Queued>Running>Succeeded(Completed)")
	c.runs("goes")
	c.remove("Pod", "goes")
	c.here("Pod", "goes")
	c.patch("Pod", "goes", release)
	c.here("Pod", "goes")
	c.tells("Pod", "goes", "Queued>Running>Cancelled(Deleted)")
	c.remove("Pod", "pending")
	c.patch("Pod", "pending", `metadata: {labels: {still: here}}`)
	c.here("Pod", "pending")
	c.patch("Pod", "pending", release)
	c.tells("Pod", "pending", "Queued>Cancelled(Deleted)")
	c.pod("held-on-node", held, onNode)
	c.runs("held-on-node")
	c.remove("Pod", "held-on-node", 30)
	c.patch("Pod", "held-on-node", release) // the kubelet has not stopped it
	c.here("Pod", "held-on-node")
	c.remove("Pod", "held-on-node", 0)
	c.here("Pod", "held-on-node")
	c.tells("Pod", "held-on-node", "Queued>Running>Cancelled(Deleted)")
}

// podsAgain are other pods under the name of one that has gone.
func podsAgain(s *stage) {
	c := s.scene("pods-again")
	for range 3 {
		c.pod("again")
		c.runs("again")
		c.remove("Pod", "again", 0)
	}
	c.pod("again")
	c.tells("Pod", "again", "Queued>Running>Cancelled(Deleted); Queued>Running>Cancelled(Deleted); Queued>Running>Cancelled(Deleted); Queued")
}

// podsAtOnce are deleted by one request.
func podsAtOnce(s *stage) {
	c := s.scene("pods-at-once")
	for i := range 5 {
		name := fmt.Sprint("p-", i)
		c.pod(name, labelled(fmt.Sprint("odd=", i%2)))
		c.tells("Pod", name, "Queued")
		if i%2 == 1 {
			c.tells("Pod", name, "Queued>Cancelled(Deleted)")
		}
	}
	err := c.client.CoreV1().Pods(c.ns).DeleteCollection(c.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "odd=1"})
	if err != nil {
		c.Fatal(err)
	}
}

// nothingChanges are writes after which all is as before: there is no event of
// them, and no version.
func nothingChanges(s *stage) {
	c := s.scene("nothing")
	c.pod("still", labelled("a=b"))
	status := `status: {phase: Running, startTime: 2026-01-01T00:00:05Z, containerStatuses: [` + container("running: {startedAt: 2026-01-01T00:00:06Z}") + `]}`
	c.patch("Pod", "still", status)
	before := c.patch("Pod", "still", `metadata: {labels: {c: d}}`)
	for _, same := range []string{status, "metadata: {labels: {c: d}}", "metadata: {annotations: {none: null}}", "{}"} {
		after := c.patch("Pod", "still", same)
		c.answered("%s: %v", same, after.GetResourceVersion() == before.GetResourceVersion())
	}
	c.tells("Pod", "still", "Queued>Running")
	pods := c.client.CoreV1().Pods(c.ns)
	p, err := pods.Get(c.Context(), "still", metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	p.Status.Phase = corev1.PodFailed // belongs to the status alone
	p, err = pods.Update(c.Context(), p, metav1.UpdateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	c.answered("update: %s, %v", p.Status.Phase, p.ResourceVersion == before.GetResourceVersion())
	p.Labels["e"] = "f" // does not
	p, err = pods.UpdateStatus(c.Context(), p, metav1.UpdateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	c.answered("update of the status: labels %v, %v", p.Labels, p.ResourceVersion == before.GetResourceVersion())
}

// conflicts are writes that come too late.
func conflicts(s *stage) {
	c := s.scene("conflicts")
	pods := c.client.CoreV1().Pods(c.ns)
	old := c.pod("busy")
	c.runs("busy")
	old.Labels = map[string]string{"late": "yes"}
	_, err := pods.Update(c.Context(), old, metav1.UpdateOptions{})
	c.answered("update of what has changed: %s", apierrors.ReasonForError(err))
	old.Status.Phase = corev1.PodFailed
	_, err = pods.UpdateStatus(c.Context(), old, metav1.UpdateOptions{})
	c.answered("update of the status of what has changed: %s", apierrors.ReasonForError(err))
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		_, err := pods.UpdateStatus(c.Context(), old, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			now, getErr := pods.Get(c.Context(), "busy", metav1.GetOptions{})
			if getErr != nil {
				return getErr
			}
			now.Status.Phase, now.Status.Reason = corev1.PodFailed, "NodeLost"
			old = now
		}
		return err
	})
	if err != nil {
		c.Fatal(err)
	}
	c.tells("Pod", "busy", "Queued>Running>Failed(NodeLost)")
	_, err = pods.Create(c.Context(), bare("busy"), metav1.CreateOptions{})
	c.answered("create what is there: %s", apierrors.ReasonForError(err))
	other := types.UID("not-its-uid")
	err = pods.Delete(c.Context(), "busy", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	c.answered("delete another: %s", apierrors.ReasonForError(err))
	err = pods.Delete(c.Context(), "nobody", metav1.DeleteOptions{})
	c.answered("delete what is not there: %s", apierrors.ReasonForError(err))
	_, err = c.client.CoreV1().Pods("no-such-namespace").Create(c.Context(), bare("lost"), metav1.CreateOptions{})
	c.answered("create in no namespace: %s", apierrors.ReasonForError(err))
}

// namesAreMade has the server make up names.
func namesAreMade(s *stage) {
	c := s.scene("names")
	var names []string
	for _, as := range []string{"one", "two", "three"} {
		p := c.pod("", labelled("as="+as), func(p *corev1.Pod) { p.GenerateName = "made-" })
		c.answered("%q and %d letters more", p.Name[:len("made-")], len(p.Name)-len("made-"))
		if slices.Contains(names, p.Name) {
			c.Errorf("%s was made twice", p.Name)
		}
		names = append(names, p.Name)
		c.tells("Pod", as, "Queued")
	}
	c.runs(names[1])
	c.tells("Pod", "two", "Queued>Running")
	if err := c.client.CoreV1().Pods(c.ns).Delete(c.Context(), names[2], metav1.DeleteOptions{}); err != nil {
		c.Fatal(err)
	}
	c.tells("Pod", "three", "Queued>Cancelled(Deleted)")
	c.job("", func(j *batchv1.Job) {
		j.GenerateName = "made-"
		j.Spec.Template.Labels = map[string]string{"as": "four"} // the Job's own, too
	})
	c.tells("Job", "four", "Queued")
}

// labelsChange during a life: each change has those of its time.
func labelsChange(s *stage) {
	c := s.scene("labels")
	c.pod("p", labelled("stage=first"))
	c.patch("Pod", "p", "metadata: {labels: {stage: second, more: x}}")
	c.runs("p")
	c.patch("Pod", "p", "metadata: {labels: {stage: null}}")
	c.ends("p", 0, "Completed")
	c.tells("Pod", "p", "Queued>Running>Succeeded(Completed)")
}

// namespaceAgain deletes a namespace and makes another one of its name.
func namespaceAgain(s *stage) {
	c := s.scene("namespace")
	c.pod("p")
	c.job("j")
	c.remove("Pod", "p", 0)
	c.remove("Job", "j")
	c.noNamespace()
	c.namespace()
	c.pod("p")
	c.job("j")
	c.tells("Pod", "p", "Queued>Cancelled(Deleted); Queued")
	c.tells("Job", "j", "Queued>Cancelled(Deleted); Queued")
}
