package scenario

import (
	"maps"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

// A jobEnd is why a Job ends: the condition that says that it is decided, then
// the one that says that it has come.
type jobEnd struct {
	decided, final  batchv1.JobConditionType
	reason, message string
}

// How Jobs end. Read-only.
var (
	jobCompletes = jobEnd{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods"}
	jobFails     = jobEnd{batchv1.JobFailureTarget, batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit"}
	jobTooLong   = jobEnd{batchv1.JobFailureTarget, batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"}
)

// A jobVersion is a Job as it was for a while. It does not change.
type jobVersion struct {
	*entity
	pods       map[string]string // labels of its pods
	generation uint8
	wanted     uint8 // pods
	suspend    bool  // by its spec
	suspended  bool  // by its status
	deleting   bool  // the garbage collector deletes its pods first

	active, ready, terminating, succeeded, failed uint8

	uncounted              []types.UID // pods that have ended and still have the finalizer
	started                int64       // 0: it has not
	suspendedAt, resumedAt int64       // 0: never
	end                    *jobEnd
	decidedAt, endedAt     int64
	deletedAt              int64
}

// Object implements [simcluster.Source].
func (v *jobVersion) Object() runtime.Object {
	j := new(*v.look.object.(*batchv1.Job)) // what it points to is shared
	v.stamp(&j.ObjectMeta)
	j.Generation = int64(v.generation)
	if v.deleting {
		j.DeletionTimestamp, j.Finalizers = atPointer(v.deletedAt), []string{metav1.FinalizerDeleteDependents}
		j.DeletionGracePeriodSeconds = new(int64(0))
	}
	n := int32(v.wanted)
	j.Spec.Parallelism, j.Spec.Completions, j.Spec.Suspend = &n, &n, new(v.suspend)
	j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: string(v.uid)}}
	j.Spec.Template.Labels = v.pods
	st := &j.Status
	if v.started == 0 && v.suspendedAt == 0 {
		return j // its controller has not come to it
	}
	st.Active, st.Succeeded, st.Failed = int32(v.active), int32(v.succeeded), int32(v.failed)
	st.Ready, st.Terminating = new(int32(v.ready)), new(int32(v.terminating))
	st.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	if v.end != nil && v.end.final == batchv1.JobComplete {
		st.UncountedTerminatedPods.Succeeded = append([]types.UID(nil), v.uncounted...)
	} else {
		st.UncountedTerminatedPods.Failed = append([]types.UID(nil), v.uncounted...)
	}
	if v.started != 0 {
		st.StartTime = atPointer(v.started)
	}
	v.conditions(st)
	return j
}

func (v *jobVersion) conditions(st *batchv1.JobStatus) {
	add := func(typ batchv1.JobConditionType, status corev1.ConditionStatus, since int64, reason, message string) {
		st.Conditions = append(st.Conditions, batchv1.JobCondition{
			Type: typ, Status: status, Reason: reason, Message: message, LastProbeTime: at(since), LastTransitionTime: at(since),
		})
	}
	switch {
	case v.suspended:
		add(batchv1.JobSuspended, corev1.ConditionTrue, v.suspendedAt, "JobSuspended", "Job suspended")
	case v.suspendedAt != 0:
		add(batchv1.JobSuspended, corev1.ConditionFalse, v.resumedAt, "JobResumed", "Job resumed")
	}
	if v.end == nil {
		return
	}
	add(v.end.decided, corev1.ConditionTrue, v.decidedAt, v.end.reason, v.end.message)
	if v.endedAt == 0 {
		return
	}
	add(v.end.final, corev1.ConditionTrue, v.endedAt, v.end.reason, v.end.message)
	if v.end.final == batchv1.JobComplete {
		st.CompletionTime = atPointer(v.endedAt)
	}
}

func jobLook(r *simcluster.Resource, parts *look) *look {
	pod := parts.object.(*corev1.Pod)
	return &look{resource: r, prefix: parts.prefix, labels: parts.labels, parts: parts, object: &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Annotations:   map[string]string{"sim.outrider.dev/submitted-by": "pipeline", "sim.outrider.dev/source": pod.Annotations["sim.outrider.dev/source"]},
			ManagedFields: managed("kube-controller-manager", "Update", `"f:status":{"f:conditions":{},"f:ready":{},"f:startTime":{},"f:terminating":{},"f:uncountedTerminatedPods":{}}`),
		},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(1)), ActiveDeadlineSeconds: new(int64(4 * 3600)), TTLSecondsAfterFinished: new(int32(600)),
			CompletionMode: new(batchv1.NonIndexedCompletion), PodReplacementPolicy: new(batchv1.TerminatingOrFailed),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: pod.Annotations}, Spec: pod.Spec},
		},
	}}
}

// setJob writes another version of the life's Job.
func (s *Scenario) setJob(l *life, edit func(*jobVersion)) error {
	next := *l.job
	edit(&next)
	l.job = &next
	return s.update(&next)
}

// countPods has the Job's status count the pods that have not ended.
func (l *life) countPods(j *jobVersion) {
	j.active, j.ready, j.terminating = 0, 0, 0
	for _, p := range l.pods {
		switch {
		case p.stage.ended():
		case p.marked:
			j.terminating++
		default:
			j.active++
			if p.stage == podRunning {
				j.ready++
			}
		}
	}
}

func (s *Scenario) jobPod(l *life) error {
	e := s.entity(l.main.look.parts, l.main, s.suffixed(l.main.name, 5))
	e.labels = l.job.pods
	return s.createPod(l, e)
}

// startJob creates the pods that a Job has not, and then says so in its status,
// as its controller does.
func (s *Scenario) startJob(l *life) error {
	there := 0
	for _, p := range l.pods {
		if !p.stage.ended() {
			there++
		}
	}
	for range int(l.job.wanted) - there {
		if err := s.jobPod(l); err != nil {
			return err
		}
	}
	return s.setJob(l, func(j *jobVersion) {
		if j.started == 0 {
			j.started = s.now()
		}
		if j.suspended {
			j.suspended, j.resumedAt = false, s.now()
		}
		l.countPods(j)
	})
}

func firstJob(s *Scenario, l *life) {
	of := s.look(s.cast.jobs)
	l.main = s.entity(of, nil, s.numbered(of.prefix))
	l.job = &jobVersion{entity: l.main, generation: 1, wanted: 1}
	if s.rand.IntN(5) == 0 {
		l.job.wanted = 2
	}
	l.job.pods = map[string]string{
		batchv1.JobNameLabel: l.main.name, "job-name": l.main.name, batchv1.ControllerUidLabel: string(l.main.uid), "controller-uid": string(l.main.uid),
	}
	maps.Copy(l.job.pods, of.parts.labels)
}

func createJob(s *Scenario, l *life) error {
	if err := s.create(l.job); err != nil {
		return err
	}
	return s.startJob(l)
}

func createSuspendedJob(s *Scenario, l *life) error {
	l.job.suspend = true
	if err := s.create(l.job); err != nil {
		return err
	}
	return s.setJob(l, func(j *jobVersion) { j.suspended, j.suspendedAt = true, s.now() })
}

func runJob(s *Scenario, l *life) error {
	if err := s.movePods(l, podCreating, podRunning); err != nil {
		return err
	}
	return s.setJob(l, l.countPods)
}

// countJob has pods that have ended counted: their names in the status, their
// finalizers off, then the numbers.
func (s *Scenario) countJob(l *life, last func(*jobVersion)) error {
	ended := func(p *podVersion) bool { return p.stage.ended() && !p.counted }
	n, succeeds := uint8(0), false
	err := s.setJob(l, func(j *jobVersion) {
		j.uncounted = nil
		for _, p := range l.pods {
			if ended(p) {
				n, succeeds = n+1, p.stage == podSucceeded
				j.uncounted = append(j.uncounted, p.uid)
			}
		}
		l.countPods(j)
	})
	if err != nil {
		return err
	}
	err = s.eachPod(l, func(p *podVersion) *podVersion {
		if !ended(p) {
			return nil
		}
		next := *p
		next.counted = true
		return &next
	})
	if err != nil {
		return err
	}
	return s.setJob(l, func(j *jobVersion) {
		j.uncounted = nil
		if succeeds {
			j.succeeded += n
		} else {
			j.failed += n
		}
		last(j)
	})
}

// retryJob lets one pod fail and has another take its place.
func retryJob(s *Scenario, l *life) error {
	as, first := podError, true
	if s.rand.IntN(3) == 0 {
		as = podOutOfMemory
	}
	err := s.eachPod(l, func(p *podVersion) *podVersion {
		if p.stage != podRunning || !first {
			return nil
		}
		first = false
		return p.to(as, s.now())
	})
	if err != nil {
		return err
	}
	if err := s.countJob(l, func(*jobVersion) {}); err != nil {
		return err
	}
	return s.startJob(l)
}

// endJob lets the Job's pods end, and it with them.
func endJob(as podStage, end *jobEnd) func(*Scenario, *life) error {
	return func(s *Scenario, l *life) error {
		if err := s.movePods(l, podRunning, as); err != nil {
			return err
		}
		l.job = l.job.decide(end, s.now())
		return s.countJob(l, func(j *jobVersion) { j.endedAt = s.now() })
	}
}

func (v *jobVersion) decide(end *jobEnd, now int64) *jobVersion {
	next := *v
	next.end, next.decidedAt = end, now
	return &next
}

// cutJob ends a Job whose time is over: its controller deletes the pods.
func cutJob(s *Scenario, l *life) error {
	l.job = l.job.decide(&jobTooLong, s.now())
	if err := s.update(l.job); err != nil {
		return err
	}
	n := uint8(len(l.pods))
	if err := s.endPods(l, nil); err != nil {
		return err
	}
	return s.setJob(l, func(j *jobVersion) {
		l.countPods(j)
		j.failed, j.endedAt = j.failed+n, s.now()
	})
}

func suspendJob(s *Scenario, l *life) error {
	if err := s.setJob(l, func(j *jobVersion) { j.suspend, j.generation = true, j.generation+1 }); err != nil {
		return err
	}
	err := s.eachPod(l, func(p *podVersion) *podVersion { return p.markedAt(s.now()) })
	if err != nil {
		return err
	}
	err = s.setJob(l, func(j *jobVersion) {
		j.suspended, j.suspendedAt, j.started = true, s.now(), 0
		l.countPods(j)
	})
	if err != nil {
		return err
	}
	if err := s.endPods(l, nil); err != nil {
		return err
	}
	return s.setJob(l, l.countPods)
}

func resumeJob(s *Scenario, l *life) error {
	if err := s.setJob(l, func(j *jobVersion) { j.suspend, j.generation = false, j.generation+1 }); err != nil {
		return err
	}
	return s.startJob(l)
}

// cancelJob is what kubectl delete does: the Job goes at once, and the garbage
// collector deletes what it controlled.
func cancelJob(s *Scenario, l *life) error {
	if err := s.delete(l.main); err != nil {
		return err
	}
	return s.endPods(l, nil)
}

// expireJob is what the TTL controller does: the pods go first.
func expireJob(s *Scenario, l *life) error {
	if err := s.setJob(l, func(j *jobVersion) { j.deleting, j.deletedAt, j.generation = true, s.now(), j.generation+1 }); err != nil {
		return err
	}
	if err := s.dropPods(l, nil); err != nil {
		return err
	}
	return s.delete(l.main)
}

// jobScripts are the lives of Jobs.
func jobScripts() []script {
	create := step{10 * time.Second, queued, createJob}
	createSuspended := step{10 * time.Second, queued, createSuspendedJob}
	place := step{2 * time.Second, none, (*Scenario).placePods}
	run := step{8 * time.Second, running, runJob}
	again := step{8 * time.Second, none, runJob}
	retry := step{5 * time.Minute, none, retryJob}
	suspend := step{5 * time.Minute, queued, suspendJob}
	resume := step{10 * time.Minute, none, resumeJob}
	succeed := step{10 * time.Minute, succeeded, endJob(podSucceeded, &jobCompletes)}
	fail := step{5 * time.Minute, failed, endJob(podError, &jobFails)}
	memory := step{5 * time.Minute, failed, endJob(podOutOfMemory, &jobFails)}
	evict := step{5 * time.Minute, failed, endJob(podEvicted, &jobFails)}
	late := step{time.Hour, failed, cutJob}
	cancel := step{10 * time.Minute, cancelled, cancelJob}
	hastily := step{20 * time.Second, cancelled, cancelJob}
	gone := step{10 * time.Minute, none, expireJob}
	return []script{
		{50, firstJob, []step{create, place, run, succeed, gone}},
		{6, firstJob, []step{create, place, run, retry, place, again, succeed, gone}},
		{8, firstJob, []step{create, place, run, retry, place, again, fail, gone}},
		{3, firstJob, []step{create, place, run, memory, gone}},
		{2, firstJob, []step{create, place, run, evict, gone}},
		{4, firstJob, []step{create, place, run, late, gone}},
		{6, firstJob, []step{create, place, run, suspend, resume, place, run, succeed, gone}},
		{2, firstJob, []step{create, place, run, suspend, resume, place, run, fail, gone}},
		{2, firstJob, []step{create, place, run, suspend, cancel}},
		{5, firstJob, []step{createSuspended, resume, place, run, succeed, gone}},
		{3, firstJob, []step{createSuspended, resume, place, run, fail, gone}},
		{6, firstJob, []step{create, place, run, cancel}},
		{3, firstJob, []step{create, hastily}},
	}
}
