package scenario

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const grace = 30 // seconds that a pod has to end

// A podStage is where a pod is. A later one may come right after any earlier.
type podStage uint8

const (
	podNew podStage = iota
	podUnschedulable
	podScheduled
	podCreating
	podPullFails
	podRunning
	podCrashing
	podSucceeded
	podError       // exit code 1
	podOutOfMemory // killed
	podEvicted
	podStopped // after it was asked to
)

func (s podStage) ended() bool { return s >= podSucceeded }

// A podVersion is a pod as it was for a while. It does not change.
type podVersion struct {
	*entity
	node     uint16
	stage    podStage
	restarts uint8
	counted  bool // by its Job's controller, which then takes its finalizer off
	marked   bool // its deletion was asked for

	// Seconds after its creation; what has not come has none.
	scheduled, started, finished, deleted int32
}

// to returns the pod at another stage.
func (v *podVersion) to(stage podStage, now int64) *podVersion {
	next, since := *v, int32(now-v.created)
	next.stage = stage
	switch {
	case stage == podScheduled:
		next.scheduled = since
	case stage == podRunning:
		next.started = since
	case stage == podCrashing:
		next.restarts, next.finished = next.restarts+1, since
	case stage.ended():
		next.finished = since
	}
	return &next
}

func (v *podVersion) markedAt(now int64) *podVersion {
	next := *v
	next.marked, next.deleted = true, int32(now-v.created)
	next.counted = true
	return &next
}

// Object implements [simcluster.Source].
func (v *podVersion) Object() runtime.Object {
	p := new(*v.look.object.(*corev1.Pod)) // what it points to is shared
	v.stamp(&p.ObjectMeta)
	if v.owner != nil && v.owner.look.resource.Kind == "Job" && !v.counted {
		p.Finalizers = []string{"batch.kubernetes.io/job-tracking"}
	}
	if v.marked {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = atPointer(v.created+int64(v.deleted)+grace), new(int64(grace))
		p.Generation++
	}
	st := &p.Status
	st.Phase = v.phase()
	if v.stage >= podScheduled {
		p.Spec.NodeName = fmt.Sprintf("node-%03d", v.node)
	}
	v.conditions(st)
	if v.stage < podCreating {
		return p
	}
	st.HostIP = fmt.Sprintf("10.1.%d.%d", v.node>>8, v.node&255)
	st.HostIPs = []corev1.HostIP{{IP: st.HostIP}}
	st.StartTime = atPointer(v.created + int64(v.scheduled))
	if v.stage >= podRunning {
		st.PodIP = fmt.Sprintf("10.64.%d.%d", v.uid[0], v.uid[1])
		st.PodIPs = []corev1.PodIP{{IP: st.PodIP}}
	}
	st.ContainerStatuses = make([]corev1.ContainerStatus, 0, len(p.Spec.Containers))
	for i := range p.Spec.Containers {
		st.ContainerStatuses = append(st.ContainerStatuses, v.container(&p.Spec.Containers[i]))
	}
	if v.stage == podEvicted {
		st.Reason = "Evicted"
		st.Message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 48220Ki. Container main was using 7340032Ki, request is 1Gi, has larger consumption of memory. "
	}
	return p
}

func (v *podVersion) phase() corev1.PodPhase {
	switch v.stage {
	case podRunning, podCrashing:
		return corev1.PodRunning
	case podSucceeded:
		return corev1.PodSucceeded
	case podError, podOutOfMemory, podEvicted, podStopped:
		return corev1.PodFailed
	}
	return corev1.PodPending
}

func (v *podVersion) conditions(st *corev1.PodStatus) {
	add := func(typ corev1.PodConditionType, holds bool, since int32, reason, message string) {
		status := corev1.ConditionFalse
		if holds {
			status = corev1.ConditionTrue
		}
		st.Conditions = append(st.Conditions, corev1.PodCondition{
			Type: typ, Status: status, Reason: reason, Message: message, LastTransitionTime: at(v.created + int64(since)),
		})
	}
	if v.stage >= podScheduled {
		st.Conditions = make([]corev1.PodCondition, 0, 6)
	}
	if v.stage >= podCreating {
		running, since, reason, message := v.stage == podRunning, v.scheduled, "", ""
		switch {
		case running:
			since = v.started
		case v.stage == podSucceeded:
			since, reason = v.finished, "PodCompleted"
		case v.stage.ended():
			since, reason = v.finished, "PodFailed"
		default:
			reason, message = "ContainersNotReady", "containers with unready status: [main]"
		}
		add(corev1.PodReadyToStartContainers, v.stage == podRunning || v.stage == podCrashing, since, "", "")
		add(corev1.PodInitialized, true, v.scheduled, "", "")
		add(corev1.PodReady, running, since, reason, message)
		add(corev1.ContainersReady, running, since, reason, message)
	}
	switch {
	case v.stage == podUnschedulable:
		add(corev1.PodScheduled, false, 0, corev1.PodReasonUnschedulable, "0/500 nodes are available: 500 Insufficient cpu. preemption: 0/500 nodes are available: 500 No preemption victims found for incoming pod.")
	case v.stage >= podScheduled:
		add(corev1.PodScheduled, true, v.scheduled, "", "")
	}
	if v.stage == podEvicted {
		add(corev1.DisruptionTarget, true, v.finished, corev1.PodReasonTerminationByKubelet, "The node was low on resource: memory.")
	}
}

// container says how one of the pod's stands: the first is the one that fails.
func (v *podVersion) container(c *corev1.Container) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, RestartCount: int32(v.restarts), Started: new(v.stage == podRunning)}
	first := c.Name == "main"
	if v.stage >= podRunning {
		s.ImageID = c.Image + "@sha256:3f1c9e4d5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f"
		s.ContainerID = "containerd://" + string(v.uid[:8]) + c.Name
	}
	wait := func(reason, message string) {
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	}
	ended := func(code int32, reason string) *corev1.ContainerStateTerminated {
		return &corev1.ContainerStateTerminated{
			ExitCode: code, Reason: reason, ContainerID: s.ContainerID,
			StartedAt: at(v.created + int64(v.started)), FinishedAt: at(v.created + int64(v.finished)),
		}
	}
	running := &corev1.ContainerStateRunning{StartedAt: at(v.created + int64(v.started))}
	switch {
	case v.stage == podCreating || v.stage == podPullFails && !first:
		wait("ContainerCreating", "")
	case v.stage == podPullFails:
		wait("ImagePullBackOff", `Back-off pulling image "`+c.Image+`"`)
	case v.stage == podCrashing && first:
		wait("CrashLoopBackOff", "back-off 10s restarting failed container=main")
		s.LastTerminationState.Terminated = ended(1, "Error")
	case v.stage == podRunning, v.stage == podCrashing:
		s.Ready, s.State.Running = true, running
	case v.stage == podSucceeded || !first && (v.stage == podError || v.stage == podOutOfMemory):
		s.State.Terminated = ended(0, "Completed")
	case v.stage == podError:
		s.State.Terminated = ended(1, "Error")
	case v.stage == podOutOfMemory:
		s.State.Terminated = ended(137, "OOMKilled")
	case v.stage == podEvicted:
		s.State.Terminated = ended(137, "Error")
	case v.stage == podStopped:
		s.State.Terminated = ended(143, "Error")
	}
	return s
}

// createPod creates a pod of a look; owner may be nil.
func (s *Scenario) createPod(l *life, e *entity) error {
	p := &podVersion{entity: e, node: uint16(s.rand.IntN(500))}
	l.pods = append(l.pods, p)
	return s.create(p)
}

// movePods brings the life's pods that are at one stage to another.
func (s *Scenario) movePods(l *life, from, to podStage) error {
	return s.eachPod(l, func(p *podVersion) *podVersion {
		if p.stage != from {
			return nil
		}
		return p.to(to, s.now())
	})
}

// eachPod puts another version in place of each pod of a life for which next
// returns one.
func (s *Scenario) eachPod(l *life, next func(*podVersion) *podVersion) error {
	for i, p := range l.pods {
		after := next(p)
		if after == nil {
			continue
		}
		l.pods[i] = after
		if err := s.update(after); err != nil {
			return err
		}
	}
	return nil
}

// placePods has the scheduler find nodes for new pods, and the kubelet begin.
func (s *Scenario) placePods(l *life) error {
	if err := s.movePods(l, podNew, podScheduled); err != nil {
		return err
	}
	return s.movePods(l, podScheduled, podCreating)
}

// endPods has pods deleted, as what is asked to go goes; those of an owner, if
// it is given.
func (s *Scenario) endPods(l *life, owner *entity) error {
	mine := func(p *podVersion) bool { return owner == nil || p.owner == owner }
	err := s.eachPod(l, func(p *podVersion) *podVersion {
		if !mine(p) || p.marked {
			return nil
		}
		return p.markedAt(s.now())
	})
	if err != nil {
		return err
	}
	if err := s.stopPods(l, owner); err != nil {
		return err
	}
	return s.dropPods(l, owner)
}

// stopPods has the pods end that were asked to go and run.
func (s *Scenario) stopPods(l *life, owner *entity) error {
	return s.eachPod(l, func(p *podVersion) *podVersion {
		if owner != nil && p.owner != owner || p.stage != podRunning && p.stage != podCrashing {
			return nil
		}
		return p.to(podStopped, s.now())
	})
}

func (s *Scenario) dropPods(l *life, owner *entity) error {
	for _, p := range l.pods {
		if owner != nil && p.owner != owner {
			continue
		}
		if err := s.delete(p.entity); err != nil {
			return err
		}
		l.pods = without(l.pods, p)
	}
	return nil
}

// podScripts are the lives of pods without a controller: notebooks, whose name
// is the same from life to life, and tasks.
func podScripts() []script {
	const ttl = 10 * time.Minute
	stage := func(from, to podStage) func(*Scenario, *life) error {
		return func(s *Scenario, l *life) error { return s.movePods(l, from, to) }
	}
	create := step{10 * time.Second, queued, func(s *Scenario, l *life) error {
		return s.createPod(l, l.main)
	}}
	place := step{2 * time.Second, none, (*Scenario).placePods}
	run := step{5 * time.Second, running, stage(podCreating, podRunning)}
	mark := func(s *Scenario, l *life) error {
		return s.eachPod(l, func(p *podVersion) *podVersion { return p.markedAt(s.now()) })
	}
	drop := func(s *Scenario, l *life) error { return s.dropPods(l, nil) }
	gone := step{ttl, none, drop}
	soon := step{2 * time.Second, none, drop}
	asked := step{2 * time.Hour, none, mark}

	notebook := func(s *Scenario, l *life) {
		of := s.look(s.cast.notebooks)
		l.main = s.entity(of, nil, fmt.Sprintf("notebook-%d", l.slot))
		l.main.namespace = s.cast.namespaces[int(l.slot)%len(s.cast.namespaces)]
	}
	task := func(s *Scenario, l *life) {
		of := s.look(s.cast.tasks)
		l.main = s.entity(of, nil, s.numbered(of.prefix))
	}
	end := func(tells state, as podStage) step { return step{10 * time.Minute, tells, stage(podRunning, as)} }
	return []script{
		{25, notebook, []step{create, place, run, asked, {5 * time.Second, cancelled, stage(podRunning, podStopped)}, soon}},
		{10, notebook, []step{create, place, run, asked, {5 * time.Second, succeeded, stage(podRunning, podSucceeded)}, soon}},
		{5, notebook, []step{
			create, place, run,
			{30 * time.Minute, none, stage(podRunning, podCrashing)},
			{20 * time.Second, none, stage(podCrashing, podRunning)},
			asked,
			{5 * time.Second, cancelled, stage(podRunning, podStopped)},
			soon,
		}},
		{3, notebook, []step{
			create, place,
			{20 * time.Second, none, stage(podCreating, podPullFails)},
			{5 * time.Minute, none, mark},
			{2 * time.Second, cancelled, drop},
		}},
		{30, task, []step{create, place, run, end(succeeded, podSucceeded), gone}},
		{10, task, []step{create, place, run, end(failed, podError), gone}},
		{5, task, []step{create, place, run, end(failed, podOutOfMemory), gone}},
		{4, task, []step{create, place, run, end(failed, podEvicted), gone}},
		{4, task, []step{
			create,
			{time.Second, none, stage(podNew, podUnschedulable)},
			{5 * time.Minute, none, stage(podUnschedulable, podScheduled)},
			{time.Second, none, stage(podScheduled, podCreating)},
			run, end(succeeded, podSucceeded), gone,
		}},
		{4, task, []step{create, {time.Second, none, stage(podNew, podUnschedulable)}, {10 * time.Minute, cancelled, drop}}},
	}
}
