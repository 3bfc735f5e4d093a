package workload

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/outrider-agent/outrider/statesync"
)

// Rules for what runs until it is deleted: Deployment, StatefulSet, ReplicaSet,
// DaemonSet. The object's own spec and status decide; its pods only explain.
//   - No replica available is Queued, after Running too; else it is Running.
//     The counts hold even when the status is older than the spec.
//   - Queued has the first of these reasons: ScaledToZero or NoNodes (nothing
//     is wanted, so nothing else can be wrong), ProgressDeadlineExceeded,
//     FailedCreate or FailedDelete, Paused, or none.
//   - Running has the first of these: ProgressDeadlineExceeded (the roll-out
//     has failed, and the rest is why: its message has it), FailedCreate or
//     FailedDelete (nothing more will come, whatever else goes on), Paused (a
//     roll-out that is paused does not go on), RollingOut (fewer replicas are
//     to be expected, so they are no reason of their own),
//     MinimumReplicasUnavailable, or none.
//   - A roll-out is what the controller says it is (see [reduceDeployment],
//     [reduceStatefulSet], [reduceDaemonSet]). That a pod crashes is none, nor is a change of scale:
//     the spec's count is never compared with the status's.
//   - What is told has occurred when the conditions say so, and only if they
//     say it exactly; see [availableSince].

// The reasons that are not a condition's own.
const (
	reasonScaledToZero = "ScaledToZero"
	reasonNoNodes      = "NoNodes"
	reasonPaused       = "Paused"
	reasonRollingOut   = "RollingOut"
	reasonDeadline     = "ProgressDeadlineExceeded"
	reasonFailedCreate = "FailedCreate"
	reasonUnavailable  = "MinimumReplicasUnavailable"
)

func assessApp(o *Object) Status {
	if o.Replicas.Available > 0 {
		return appRunning(o)
	}
	return appQueued(o)
}

func appQueued(o *Object) Status {
	s := Status{State: statesync.Queued, Back: true, Occurred: availableSince(o, false)}
	c, troubled := trouble(o)
	switch {
	case o.Replicas.Desired == 0 && o.Kind == "DaemonSet":
		if !o.Replicas.Stale { // the status has the count, and a new one has none yet
			s.Reason, s.Message = reasonNoNodes, "no node is to run the DaemonSet's pods"
		}
	case o.Replicas.Desired == 0:
		s.Reason, s.Message = reasonScaledToZero, "the "+o.Kind+" is to have no replicas"
	case troubled:
		s.Reason, s.Message, s.Occurred = c.Reason, c.Message, both(s.Occurred, c.Since)
	}
	return s
}

func appRunning(o *Object) Status {
	s := Status{State: statesync.Running}
	if c, troubled := trouble(o); troubled {
		s.Reason, s.Message, s.Occurred = c.Reason, c.Message, c.Since
		if c.Reason != reasonDeadline { // which a replica that comes takes away: it has not come since
			s.Occurred = both(availableSince(o, true), c.Since)
		}
		return s
	}
	progressing, _ := o.condition(string(appsv1.DeploymentProgressing))
	available, _ := o.condition(string(appsv1.DeploymentAvailable))
	switch {
	case o.Replicas.Rolling:
		s.Reason = reasonRollingOut
		if rolls(progressing) {
			s.Message, s.Occurred = progressing.Message, progressing.Since
		}
	case available.Type != "" && !available.True:
		s.Reason, s.Message = reasonUnavailable, available.Message
	case o.Replicas.Min > 0 && progressing.Reason == newReplicaSetAvailable:
		s.Occurred = both(available.Since, progressing.Since)
	}
	return s
}

// trouble returns what stands in the way of a web app's replicas, as a
// condition with a reason of ours.
func trouble(o *Object) (Condition, bool) {
	failure, fails := o.condition(string(appsv1.DeploymentReplicaFailure))
	fails = fails && failure.True
	failure.Reason = cmpOr(failure.Reason, reasonFailedCreate)
	progressing, _ := o.condition(string(appsv1.DeploymentProgressing))
	switch {
	case progressing.Reason == reasonDeadline && !progressing.True:
		if fails {
			progressing.Message = andThen(progressing.Message, failure.Reason+": "+failure.Message)
		}
		return progressing, true
	case fails:
		return failure, true
	case progressing.Reason == "ReplicaSetCreateError":
		progressing.Reason = reasonFailedCreate
		return progressing, true
	case o.Replicas.Paused:
		paused := Condition{Reason: reasonPaused, Message: "the " + o.Kind + " is paused"}
		if progressing.Reason == "DeploymentPaused" {
			paused.Since = progressing.Since
		}
		return paused, true
	}
	return Condition{}, false
}

// availableSince says since when a web app has replicas available, or has
// none. Zero: its object does not say. Available is about a minimum, which is
// of use here only where it is one replica, by the spec that the status is of.
func availableSince(o *Object, some bool) time.Time {
	c, ok := o.condition(string(appsv1.DeploymentAvailable))
	if !ok || c.True != some || o.Replicas.Min != 1 || o.Replicas.Stale {
		return time.Time{}
	}
	return c.Since
}

// both says since when two things hold; zero when it is not known of one.
func both(a, b time.Time) time.Time {
	if a.IsZero() || b.IsZero() {
		return time.Time{}
	}
	if a.After(b) {
		return a
	}
	return b
}

func andThen(message, more string) string {
	if message == "" || more == "" {
		return message + more
	}
	return message + "; " + more
}

// wanted returns how many replicas a spec wants; unset, one.
func wanted(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}

// keepApp keeps the conditions that these rules read. Controllers of other
// makers may write more.
func (o *Object) keepApp(c Condition) {
	switch appsv1.DeploymentConditionType(c.Type) {
	case appsv1.DeploymentProgressing, appsv1.DeploymentAvailable, appsv1.DeploymentReplicaFailure:
		o.Conditions = append(o.Conditions, c)
	}
}

func newCondition(typ string, status corev1.ConditionStatus, reason, message string, since metav1.Time) Condition {
	return Condition{Type: typ, Reason: reason, Message: message, True: status == corev1.ConditionTrue, Since: since.Time}
}
