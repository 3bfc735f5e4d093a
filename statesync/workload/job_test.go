package workload

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/outrider-agent/outrider/statesync"
)

func job(edits ...func(*batchv1.Job)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "load", Name: "j", UID: "u", ResourceVersion: "10", CreationTimestamp: mt(0)}}
	for _, edit := range edits {
		edit(j)
	}
	return j
}

func started(at int) func(*batchv1.Job) {
	return func(j *batchv1.Job) { t := mt(at); j.Status.StartTime = &t }
}

func ready(n int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Status.Active, j.Status.Ready = n, &n }
}

func managedBy(controller string) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Spec.ManagedBy = &controller }
}

func suspended(j *batchv1.Job) { yes := true; j.Spec.Suspend = &yes }

func jobCondition(typ batchv1.JobConditionType, status corev1.ConditionStatus, reason string) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{
			Type: typ, Status: status, Reason: reason, Message: "the controller says", LastTransitionTime: mt(9),
		})
	}
}

func TestJob(t *testing.T) {
	counts := func(active, failed int32) func(*batchv1.Job) {
		return func(j *batchv1.Job) { j.Status.Active, j.Status.Failed = active, failed }
	}
	yes, no := corev1.ConditionTrue, corev1.ConditionFalse
	tests := []struct {
		name string
		job  *batchv1.Job
		want Status
	}{
		{"a new job is queued", job(), Status{State: statesync.Queued, Occurred: at(0)}},
		{"a job whose controller has begun is queued until a pod runs", job(started(1), counts(1, 0)), Status{State: statesync.Queued, Occurred: at(0)}},
		{
			"a job made suspended is queued as Suspended before any condition says so", job(suspended),
			Status{State: statesync.Queued, Reason: "Suspended", Occurred: at(0), Suspended: true},
		},
		{
			"a job asked to suspend is not suspended until the condition says so", job(suspended, started(1)),
			Status{State: statesync.Queued, Occurred: at(0)},
		},
		{
			"a suspended job is queued", job(suspended, jobCondition(batchv1.JobSuspended, yes, "JobSuspended")),
			Status{State: statesync.Queued, Reason: "Suspended", Message: "the controller says", Occurred: at(9), Suspended: true},
		},
		{
			"a resumed job is not suspended", job(started(5), jobCondition(batchv1.JobSuspended, no, "JobResumed")),
			Status{State: statesync.Queued, Occurred: at(0)},
		},
		{"more failures than any limit are no end", job(started(1), counts(0, 1000)), Status{State: statesync.Queued, Occurred: at(0)}},
		{
			"FailureTarget is not yet an end", job(started(1), jobCondition(batchv1.JobFailureTarget, yes, "BackoffLimitExceeded")),
			Status{State: statesync.Queued, Occurred: at(0)},
		},
		{
			"SuccessCriteriaMet is not yet an end", job(started(1), jobCondition(batchv1.JobSuccessCriteriaMet, yes, "CompletionsReached")),
			Status{State: statesync.Queued, Occurred: at(0)},
		},
		{
			"success has a time of its own", job(jobCondition(batchv1.JobComplete, yes, "CompletionsReached"), func(j *batchv1.Job) { at := mt(7); j.Status.CompletionTime = &at }),
			Status{State: statesync.Succeeded, Reason: "CompletionsReached", Message: "the controller says", Occurred: at(7)},
		},
		{
			"Complete is success", job(started(1), jobCondition(batchv1.JobComplete, yes, "CompletionsReached")),
			Status{State: statesync.Succeeded, Reason: "CompletionsReached", Message: "the controller says", Occurred: at(9)},
		},
		{
			"a job that failed because its pods did says how many", job(started(1), counts(0, 3), jobCondition(batchv1.JobFailed, yes, "PodFailurePolicy")),
			Status{State: statesync.Failed, Reason: "PodFailurePolicy", Message: "the controller says; pods that failed: 3", Occurred: at(9)},
		},
		{"a ready pod of the job's own is no news of it", job(started(1), ready(1)), Status{State: statesync.Queued, Occurred: at(0)}},
		{"a job whose pods are elsewhere runs with a ready one", job(started(1), ready(1), managedBy("example.com/remote")), Status{State: statesync.Running}},
		{"a job whose pods are elsewhere is queued until one is ready", job(started(1), counts(1, 0), managedBy("example.com/remote")), Status{State: statesync.Queued, Occurred: at(0)}},
		{"a job that names the usual controller is the usual one", job(started(1), ready(1), managedBy(batchv1.JobControllerName)), Status{State: statesync.Queued, Occurred: at(0)}},
		{
			"a job whose pods are elsewhere is suspended by its condition", job(ready(1), managedBy("example.com/remote"), jobCondition(batchv1.JobSuspended, yes, "JobSuspended")),
			Status{State: statesync.Queued, Reason: "Suspended", Message: "the controller says", Occurred: at(9), Suspended: true},
		},
		{
			"a job that its pods did not fail does not count them", job(started(1), counts(0, 1), jobCondition(batchv1.JobFailed, yes, "DeadlineExceeded")),
			Status{State: statesync.Failed, Reason: "DeadlineExceeded", Message: "the controller says", Occurred: at(9)},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assessed(t, jobKind, tt.job, tt.want) })
	}
}

func TestSteps(t *testing.T) {
	const (
		queued, runs      = statesync.Queued, statesync.Running
		succeeded, failed = statesync.Succeeded, statesync.Failed
		cancelled         = statesync.Cancelled
	)
	ran := &Object{Created: at(0), Started: at(1), Containers: []Container{{Started: at(2), Finished: at(3), Terminated: true}}}
	never := &Object{Created: at(0)}
	serving := &Object{Created: at(0), Replicas: Replicas{Available: 1}}
	leaving := &Object{Created: at(0), DeleteRequested: at(5)}
	hasReady := &Object{Created: at(0), Started: at(1), Pods: Pods{Active: 2, Ready: 1}}
	readyAndSuspended := &Object{Created: at(0), Pods: Pods{Ready: 1}, Conditions: []Condition{{Type: "Suspended", True: true}}}
	tests := []struct {
		name   string
		before Before
		now    Status
		object *Object
		want   []statesync.State
		filled int // how many of them are reconstructed
	}{
		{"what has started anew was suspended unseen", Before{State: runs, Started: at(0)}, Status{State: queued}, hasReady, []statesync.State{queued}, 1},
		{"what runs on is not queued", Before{State: runs, Started: at(1)}, Status{State: queued}, hasReady, nil, 0},
		{"a new workload is queued", Before{}, Status{State: queued}, never, []statesync.State{queued}, 0},
		{"a workload first seen running was queued", Before{}, Status{State: runs}, ran, []statesync.State{queued, runs}, 1},
		{"a workload first seen at its end ran", Before{}, Status{State: succeeded}, ran, []statesync.State{queued, runs, succeeded}, 2},
		{"a queued workload that failed after running ran", Before{State: queued}, Status{State: failed}, ran, []statesync.State{runs, failed}, 1},
		{"a queued workload that failed before running did not", Before{State: queued}, Status{State: failed}, never, []statesync.State{failed}, 0},
		{"success cannot be had without running", Before{State: queued}, Status{State: succeeded}, never, []statesync.State{runs, succeeded}, 1},
		{"a running workload ends", Before{State: runs}, Status{State: cancelled}, ran, []statesync.State{cancelled}, 0},
		{"the same state is no change", Before{State: runs}, Status{State: runs, Reason: "other"}, ran, nil, 0},
		{"a job's own Queued does not take it back from running", Before{State: runs}, Status{State: queued}, ran, nil, 0},
		{"suspension does", Before{State: runs}, Status{State: queued, Suspended: true}, ran, []statesync.State{queued}, 0},
		{"a job that ends with a ready pod ran", Before{State: queued}, Status{State: cancelled}, hasReady, []statesync.State{runs, cancelled}, 1},
		{"a job that was seen running does not run again", Before{State: runs}, Status{State: failed}, hasReady, []statesync.State{failed}, 0},
		{"a suspended job's ready pods are of the run before", Before{State: queued}, Status{State: cancelled}, readyAndSuspended, []statesync.State{cancelled}, 0},
		{"a web app that has lost its replicas goes back", Before{State: runs}, Status{State: queued, Back: true}, never, []statesync.State{queued}, 0},
		{"a web app that is being deleted does not", Before{State: runs}, Status{State: queued, Back: true}, leaving, nil, 0},
		{"a web app that ends with a replica available ran", Before{State: queued}, Status{State: statesync.Deleted}, serving, []statesync.State{runs, statesync.Deleted}, 1},
		{"what the object says nothing of stands where it stood", Before{State: runs}, Status{}, never, nil, 0},
		{"nothing follows an end", Before{State: failed}, Status{State: runs}, ran, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []statesync.State
			filled := 0
			for _, s := range Steps(tt.before, tt.now, tt.object) {
				got = append(got, s.State)
				if s.Reconstructed {
					filled++
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || filled != tt.filled {
				t.Errorf("%d reconstructed, want %d (-want +got)\n%s", filled, tt.filled, diff)
			}
		})
	}
}

func TestPodRuns(t *testing.T) {
	live := &Object{Phase: "Running", Created: at(6), Containers: []Container{{Started: at(7)}}}
	leaving := &Object{Phase: "Running", DeleteRequested: at(8), Containers: []Container{{Started: at(7)}}}
	over := &Object{Phase: "Succeeded", Containers: []Container{{Terminated: true, Started: at(7), Finished: at(8)}}}
	tests := []struct {
		name  string
		owner Before
		pod   *Object
		want  bool
	}{
		{"a running pod moves a queued job", Before{State: statesync.Queued}, live, true},
		{"a pending pod does not", Before{State: statesync.Queued}, &Object{Phase: "Pending"}, false},
		{"a pod on its way out does not", Before{State: statesync.Queued}, leaving, false},
		{"nothing moves a suspended job", Before{State: statesync.Queued, Suspended: true}, live, false},
		{"nothing moves a job whose pods are elsewhere", Before{State: statesync.Queued, Elsewhere: true}, live, false},
		{"a running job is not moved again", Before{State: statesync.Running}, live, false},
		{"an ended job is not moved", Before{State: statesync.Succeeded}, live, false},
		{"a pod does not start a job that was not seen", Before{}, live, false},
		{"a pod that ran and ended in this run moves the job", Before{State: statesync.Queued, Started: at(6)}, over, true},
		{"one that still runs from before the resume does not", Before{State: statesync.Queued, Suspension: at(7), Started: at(9)}, live, false},
		{"one created after the suspension moves the job, though before its start was written", Before{State: statesync.Queued, Suspension: at(5), Started: at(7)}, live, true},
		{"one that ran before the job was resumed does not", Before{State: statesync.Queued, Started: at(9)}, over, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			step, got := PodRuns(tt.owner, tt.pod)
			if got != tt.want {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			if got && (step.State != statesync.Running || !step.Occurred.Equal(at(7))) {
				t.Errorf("got %s at %s, want Running at %s", step.State, step.Occurred, at(7))
			}
		})
	}
}

func TestFirstQueued(t *testing.T) {
	o := &Object{Created: at(3)}
	if got := Steps(Before{}, Status{State: statesync.Queued}, o); len(got) != 1 || !got[0].Occurred.Equal(at(3)) {
		t.Errorf("first seen queued: got %v, want one step at %s", got, at(3))
	}
	if got := Steps(Before{}, Status{State: statesync.Queued, Occurred: at(5)}, o); len(got) != 1 || !got[0].Occurred.Equal(at(5)) {
		t.Errorf("first seen queued since a known time: got %v, want one step at %s", got, at(5))
	}
	back := Status{State: statesync.Queued, Back: true}
	if got := Steps(Before{State: statesync.Running}, back, o); len(got) != 1 || !got[0].Occurred.IsZero() {
		t.Errorf("queued again: got %v, want one step at no known time", got)
	}
}

func TestCounted(t *testing.T) {
	o := &Object{Pods: Pods{Active: 1, Ready: 1, Terminating: 2, Succeeded: 4, Failed: 8}}
	if got := o.Counted(); got != 15 {
		t.Errorf("got %d, want 15", got)
	}
}

// TestUnrun: which suspended Job no pod was ever to run for.
func TestUnrun(t *testing.T) {
	generation := func(n int64) func(*batchv1.Job) { return func(j *batchv1.Job) { j.Generation = n } }
	is := jobCondition(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended")
	for name, tt := range map[string]struct {
		job  *batchv1.Job
		want bool
	}{
		"made suspended":                            {job(suspended, generation(1)), true},
		"its controller has seen it":                {job(suspended, generation(1), is), true},
		"resumed, its controller has not seen that": {job(generation(2), is), true},
		"resumed":                               {job(generation(2), jobCondition(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed")), false},
		"made to run, and suspended":            {job(suspended, generation(2), is), false},
		"suspended again, and resumed":          {job(generation(3), is), false},
		"never suspended":                       {job(generation(1)), false},
		"of a server that counts no generation": {job(suspended, is), false},
	} {
		o, err := jobKind.Reduce(tt.job)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Phase == Unrun; got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
