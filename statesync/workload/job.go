package workload

import (
	"fmt"

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
//     SuccessCriteriaMet come earlier, while pods still run.
//   - Suspended=True is Queued with reason Suspended: the one legal way back
//     from Running.
//   - A Job is Queued until one of its pods has run (see [Steps]).

// jobKind is the kind's entry in the table. Read-only.
var jobKind = Kind{
	Name: "Job", Group: "batch", Version: "v1", Resource: "jobs", Folds: true,
	Object: func() runtime.Object { return &batchv1.Job{} },
	List:   func() runtime.Object { return &batchv1.JobList{} },
	reduce: reduceJob, trim: trimJob, assess: assessJob,
}

func trimJob(obj runtime.Object) {
	if j, ok := obj.(*batchv1.Job); ok {
		j.Spec, j.ManagedFields, j.Annotations = batchv1.JobSpec{Suspend: j.Spec.Suspend}, nil, nil
	}
}

func reduceJob(obj runtime.Object) (*Object, error) {
	j, ok := obj.(*batchv1.Job)
	if !ok {
		return nil, fmt.Errorf("reduce Job: got %T", obj)
	}
	o, err := reduceMeta("Job", &j.ObjectMeta)
	if err != nil {
		return nil, err
	}
	o.Started, o.Completed = timeOf(j.Status.StartTime), timeOf(j.Status.CompletionTime)
	o.Suspend = j.Spec.Suspend != nil && *j.Spec.Suspend
	for _, c := range j.Status.Conditions {
		o.Conditions = append(o.Conditions, Condition{
			Type: string(c.Type), Reason: c.Reason, Message: c.Message,
			True: c.Status == corev1.ConditionTrue, Since: c.LastTransitionTime.Time,
		})
	}
	return o, nil
}

func assessJob(o *Object) Status {
	if c, ok := o.condition(string(batchv1.JobComplete)); ok && c.True {
		s := Status{State: statesync.Succeeded, Reason: cmpOr(c.Reason, "Completed"), Message: c.Message, Occurred: o.Completed}
		if s.Occurred.IsZero() {
			s.Occurred = c.Since
		}
		return s
	}
	if c, ok := o.condition(string(batchv1.JobFailed)); ok && c.True {
		return Status{State: statesync.Failed, Reason: cmpOr(c.Reason, "Failed"), Message: c.Message, Occurred: c.Since}
	}
	if c, ok := o.condition(string(batchv1.JobSuspended)); ok && c.True {
		return Status{State: statesync.Queued, Reason: "Suspended", Message: c.Message, Occurred: c.Since, Suspended: true}
	}
	s := Status{State: statesync.Queued, Occurred: o.Created}
	if o.Suspend && o.Started.IsZero() {
		s.Reason, s.Suspended = "Suspended", true
	}
	return s
}
