package workload

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/outrider-agent/outrider/statesync"
)

// Rules for a Job:
//   - Conditions decide, never counts: a count compared with backoffLimit is
//     wrong under podFailurePolicy, deadlines and indexed completion, and says
//     nothing when another controller manages the Job.
//   - Complete and Failed alone are ends. FailureTarget and
//     SuccessCriteriaMet come earlier, while pods still run; a Job that is
//     removed before its pods have ended has the end that they say.
//   - Suspended=True is Queued with reason Suspended: the one legal way back
//     from Running.
//   - A Job is Queued until one of its pods has run (see [Steps]). One whose
//     pods are elsewhere, because another controller manages it, runs when its
//     status counts a ready one.

// jobKind is the kind's entry in the table. Read-only.
var jobKind = Kind{
	Name: "Job", Group: "batch", Version: "v1", Resource: "jobs", Collection: "jobs", Folds: true, PodsRun: true, Ends: true,
	Object:  func() runtime.Object { return &batchv1.Job{} },
	List:    func() runtime.Object { return &batchv1.JobList{} },
	Reducer: reduceJob, Trimmer: trimJob, Assessor: assessJob,
	Reads: slices.Concat(readsOfAll,
		under("metadata", "generation"),
		under("spec", "suspend", "managedBy"),
		under("status", "startTime", "completionTime", "active", "succeeded", "failed", "ready", "terminating"),
		under("status.conditions", readsOfCondition...),
	),
}

func trimJob(obj runtime.Object) {
	if j, ok := obj.(*batchv1.Job); ok {
		j.ManagedFields, j.Annotations = nil, nil
		j.Spec = batchv1.JobSpec{Suspend: j.Spec.Suspend, ManagedBy: j.Spec.ManagedBy}
	}
}

func reduceJob(obj runtime.Object) (*Object, error) {
	j, ok := obj.(*batchv1.Job)
	if !ok {
		return nil, fmt.Errorf("reduce Job: got %T", obj)
	}
	o, err := ReduceMeta("Job", j)
	if err != nil {
		return nil, err
	}
	o.Started, o.Completed = timeOf(j.Status.StartTime), timeOf(j.Status.CompletionTime)
	o.Suspend = j.Spec.Suspend != nil && *j.Spec.Suspend
	if unrun(j) {
		o.Phase = Unrun
	}
	by := j.Spec.ManagedBy
	o.Elsewhere = by != nil && *by != "" && *by != batchv1.JobControllerName
	o.Pods = Pods{Active: j.Status.Active, Succeeded: j.Status.Succeeded, Failed: j.Status.Failed}
	if n := j.Status.Ready; n != nil {
		o.Pods.Ready = *n
	}
	if n := j.Status.Terminating; n != nil {
		o.Pods.Terminating = *n
	}
	for _, c := range j.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue // what does not hold decides nothing
		}
		switch c.Type {
		case batchv1.JobComplete, batchv1.JobFailed, batchv1.JobSuspended, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet:
			o.Conditions = append(o.Conditions, newCondition(string(c.Type), c.Status, c.Reason, c.Message, c.LastTransitionTime))
		}
	}
	return o, nil
}

// Unrun is the phase of a Job that was made suspended and is so still: no pod
// was ever to run, and what pods it has are of the run to come.
const Unrun = "Unrun"

// unrun goes by the generation, which each change of a spec is another one of:
// with the second such a Job may be resumed, and its status not yet say so.
func unrun(j *batchv1.Job) bool {
	if j.Spec.Suspend != nil && *j.Spec.Suspend {
		return j.Generation == 1
	}
	return j.Generation == 2 && slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == batchv1.JobSuspended && c.Status == corev1.ConditionTrue
	})
}

func assessJob(o *Object) Status {
	if c, ok := o.condition(string(batchv1.JobComplete)); ok && c.True {
		s := jobSucceeded(c)
		if !o.Completed.IsZero() {
			s.Occurred = o.Completed
		}
		return s
	}
	if c, ok := o.condition(string(batchv1.JobFailed)); ok && c.True {
		return jobFailed(o, c)
	}
	if c, ok := o.condition(string(batchv1.JobSuspended)); ok && c.True {
		return Status{State: statesync.Queued, Reason: "Suspended", Message: c.Message, Occurred: c.Since, Suspended: true}
	}
	if o.Elsewhere && o.Pods.Ready > 0 {
		return Status{State: statesync.Running}
	}
	s := Status{State: statesync.Queued, Occurred: o.Created}
	if o.Suspend && o.Started.IsZero() {
		s.Reason, s.Suspended = "Suspended", true
	}
	return s
}

func jobSucceeded(c Condition) Status {
	return Status{State: statesync.Succeeded, Reason: cmpOr(c.Reason, "Completed"), Message: c.Message, Occurred: c.Since}
}

func jobFailed(o *Object, c Condition) Status {
	s := Status{State: statesync.Failed, Reason: cmpOr(c.Reason, "Failed"), Message: c.Message, Occurred: c.Since}
	if podsFail(s.Reason) && o.Pods.Failed > 0 {
		s.Message = andThen(s.Message, fmt.Sprintf("pods that failed: %d", o.Pods.Failed))
	}
	return s
}

// podsFail reports whether a Job fails for this reason because its pods do.
// What else ends a Job ends its pods, and they say nothing of why.
func podsFail(reason string) bool {
	switch reason {
	case batchv1.JobReasonBackoffLimitExceeded, batchv1.JobReasonPodFailurePolicy,
		batchv1.JobReasonMaxFailedIndexesExceeded, batchv1.JobReasonFailedIndexes:
		return true
	}
	return false
}

// decided reports the end that a Job's controller has decided on while pods of
// it had yet to end.
func decided(o *Object) (Status, bool) {
	if c, ok := o.condition(string(batchv1.JobFailureTarget)); ok && c.True {
		return jobFailed(o, c), true
	}
	if c, ok := o.condition(string(batchv1.JobSuccessCriteriaMet)); ok && c.True {
		return jobSucceeded(c), true
	}
	return Status{}, false
}

// Counted returns how many pods a Job's status counts in all. It is no less
// than there are: one on its way out may count twice, as Terminating and
// already as Failed.
func (o *Object) Counted() int {
	p := o.Pods
	return int(p.Active) + int(p.Terminating) + int(p.Succeeded) + int(p.Failed)
}
