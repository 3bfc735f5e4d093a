// Package workload holds the rules that turn Kubernetes objects into workload states: pure functions, no I/O.
//
// An object is first reduced to what the rules read ([Kind.Reduce]), then its
// kind's rule says where the workload stands ([Kind.Assess]), and [Steps] says
// which changes lead there from where it stood before.
package workload

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/outrider-agent/outrider/statesync"
)

// An Object is a Kubernetes object reduced to what the rules read. The log
// keeps it in JSON: a field that gets another name is not read there any more.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`

	ResourceVersion uint64            `json:"rv"`
	Labels          map[string]string `json:"labels,omitzero"`
	Controller      Owner             `json:"controller,omitzero"`       // zero: no controller owns it
	Root            Owner             `json:"root,omitzero"`             // the workload whose story it tells, as the watch found it; zero: its own
	Created         time.Time         `json:"created,omitzero"`          // creationTimestamp
	DeleteRequested time.Time         `json:"delete_requested,omitzero"` // deletionTimestamp less the grace period; zero: nobody asked
	Started         time.Time         `json:"started,omitzero"`          // status.startTime
	Completed       time.Time         `json:"completed,omitzero"`        // a Job's status.completionTime

	Phase      string      `json:"phase,omitzero"`      // a Pod's; of a Job only [Unrun]
	Reason     string      `json:"reason,omitzero"`     // a Pod's status.reason
	Message    string      `json:"message,omitzero"`    // a Pod's status.message
	Suspend    bool        `json:"suspend,omitzero"`    // a Job's spec.suspend
	Elsewhere  bool        `json:"elsewhere,omitzero"`  // a Job's spec.managedBy names another controller: its pods are not here
	Wide       bool        `json:"wide,omitzero"`       // the Root is of the whole cluster, in no namespace
	Gone       bool        `json:"gone,omitzero"`       // it is kept only to know who controlled it
	Pods       Pods        `json:"pods,omitzero"`       // a Job's, as its status counts them
	Replicas   Replicas    `json:"replicas,omitzero"`   // a web app's
	Conditions []Condition `json:"conditions,omitzero"` // those that the kind's rules read
	Containers []Container `json:"containers,omitzero"`

	Said Said `json:"said,omitzero"` // what the expressions of a configured kind say
}

// Pods are the pods of a Job by its own status.
type Pods struct {
	Active      int32 `json:"active,omitzero"` // pending or running
	Ready       int32 `json:"ready,omitzero"`
	Terminating int32 `json:"terminating,omitzero"`
	Succeeded   int32 `json:"succeeded,omitzero"`
	Failed      int32 `json:"failed,omitzero"`
}

// Replicas are the pods of a web app: what its spec wants, and what its status
// says.
type Replicas struct {
	Desired   int32 `json:"desired,omitzero"`
	Available int32 `json:"available,omitzero"`
	Min       int32 `json:"min,omitzero"`     // of available ones, for a Deployment's condition Available
	Stale     bool  `json:"stale,omitzero"`   // the status is of an earlier generation of the spec
	Rolling   bool  `json:"rolling,omitzero"` // from one version of the template to another
	Paused    bool  `json:"paused,omitzero"`
}

// Said is what the expressions of a configured kind say of an object.
type Said struct {
	State    statesync.State `json:"state,omitzero"` // empty: none of them holds, or one failed
	Reason   string          `json:"reason,omitzero"`
	Message  string          `json:"message,omitzero"`
	Occurred time.Time       `json:"occurred,omitzero"`
}

// Owner is the controller that an object belongs to. Of a Root, Kind is the
// name of a [Kind].
type Owner struct {
	Group string `json:"group,omitzero"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	UID   string `json:"uid"`
}

// A Condition is one entry of status.conditions.
type Condition struct {
	Type    string    `json:"type"`
	Reason  string    `json:"reason,omitzero"`
	Message string    `json:"message,omitzero"`
	True    bool      `json:"true,omitzero"`
	Since   time.Time `json:"since,omitzero"` // lastTransitionTime
}

// A Container is one entry of a Pod's container statuses, init containers
// first. Every pod in memory has some: the small fields stand together.
type Container struct {
	Name           string    `json:"name"`
	Init           bool      `json:"init,omitzero"`
	Terminated     bool      `json:"terminated,omitzero"`
	ExitCode       int32     `json:"exit_code,omitzero"`      // of the termination
	LastExitCode   int32     `json:"last_exit_code,omitzero"` // of the one before
	Reason         string    `json:"reason,omitzero"`
	LastReason     string    `json:"last_reason,omitzero"`
	Waiting        string    `json:"waiting,omitzero"` // reason; empty: it does not wait, or only for its turn
	WaitingMessage string    `json:"waiting_message,omitzero"`
	Started        time.Time `json:"started,omitzero"` // of the present run
	Finished       time.Time `json:"finished,omitzero"`
	LastStart      time.Time `json:"last_start,omitzero"`
}

// Ref names the workload that the object is.
func (o *Object) Ref() statesync.Ref {
	return statesync.Ref{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, UID: o.UID, Labels: o.Labels}
}

// Status is where a workload stands, and why.
type Status struct {
	State    statesync.State // empty: the object does not say, and the workload stands where it stood
	Reason   string
	Message  string
	ExitCode *int32
	Occurred time.Time // by the cluster's clocks; zero: they do not say

	// Back: Queued is told after Running too.
	Back bool
	// Suspended: the workload's pods may not move it. It is a way back.
	Suspended bool
	// Reconstructed: filled in between two states that were seen.
	Reconstructed bool
}

// A Kind is one kind of workload. To add one to those that every program
// knows, write its file and its line in [Kinds].
type Kind struct {
	Name       string // Pod; what changes call it
	Group      string // batch; empty for the core group
	Version    string // v1
	Resource   string // pods
	Collection string // what its streams are called: pods; of configured kinds workflows.argoproj.io

	Folds   bool   // what it controls, and what that controls in turn, tells its story, not one of its own
	PodsRun bool   // a pod of it that runs moves it from Queued to Running
	Ends    bool   // it has ends of its own: a removal before them cancels it
	Rules   string // what of the configuration its rules come from; objects reduced by other rules are listed again

	Reads  []string              // paths of the fields that Reducer reads, as in status.phase; none: it may read any
	Object func() runtime.Object // an empty one, of the type that Reducer takes
	List   func() runtime.Object // an empty list of them

	// Reducer returns what the rules read. With an object and an error, the
	// rules failed on the object.
	Reducer  func(runtime.Object) (*Object, error)
	Trimmer  func(runtime.Object) // drops what Reducer does not read
	Assessor func(*Object) Status
}

// Kinds are the kinds that every program knows, by name. Read-only.
var Kinds = map[string]Kind{
	"Pod": podKind, "Job": jobKind,
	"Deployment": deploymentKind, "StatefulSet": statefulSetKind, "ReplicaSet": replicaSetKind, "DaemonSet": daemonSetKind,
}

// Is reports whether the kind is the one that an ownerReference names. A
// resource is the plural of its kind, in lower case.
func (k Kind) Is(o Owner) bool {
	if k.Group != o.Group || o.Kind == "" {
		return false
	}
	for _, plural := range [][2]string{{"", "s"}, {"", "es"}, {"y", "ies"}, {"", ""}} {
		stem, ok := strings.CutSuffix(k.Resource, plural[1])
		if ok && strings.EqualFold(stem+plural[0], o.Kind) {
			return true
		}
	}
	return false
}

// MayControl reports whether objects of the kind may control those of another
// one. Of a kind that the configuration describes nobody knows what it
// controls.
func (k Kind) MayControl(other string) bool {
	switch k.Name {
	case "Pod":
		return false
	case "Deployment":
		return other == "ReplicaSet"
	case "Job", "ReplicaSet", "StatefulSet", "DaemonSet":
		return other == "Pod"
	}
	return other != k.Name
}

// Hop returns the kind read by its metadata alone, to know who controls its
// objects.
func Hop(k Kind) Kind {
	return Kind{
		Name: k.Name, Group: k.Group, Version: k.Version, Resource: k.Resource, Collection: k.Collection, Folds: k.Folds,
		Object: func() runtime.Object { return &metav1.PartialObjectMetadata{} },
		List:   func() runtime.Object { return &metav1.PartialObjectMetadataList{} },
		Reducer: func(obj runtime.Object) (*Object, error) {
			m, ok := obj.(*metav1.PartialObjectMetadata)
			if !ok {
				return nil, fmt.Errorf("reduce metadata of %s: got %T", k.Name, obj)
			}
			return ReduceMeta(k.Name, m)
		},
		Trimmer: func(obj runtime.Object) {
			if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
				m.ManagedFields, m.Annotations = nil, nil
			}
		},
		Assessor: func(*Object) Status { return Status{} },
	}
}

// ParseSelector returns a selector of labels in its one way of being written.
func ParseSelector(text string) (string, error) {
	s, err := labels.Parse(text)
	if err != nil {
		return "", fmt.Errorf("selector: %w", err)
	}
	return s.String(), nil
}

// Reduce returns what the rules read of an object of the kind. Nothing in the
// result refers to obj's memory but strings and labels. With a result, the
// error says why the rules failed on the object.
func (k Kind) Reduce(obj any) (*Object, error) {
	ro, ok := obj.(runtime.Object)
	if !ok {
		return nil, fmt.Errorf("reduce %s: got %T, want an object", k.Name, obj)
	}
	return k.Reducer(ro)
}

// Trim drops from an object what Reduce does not read, in place. It is a
// cache.TransformFunc.
func (k Kind) Trim(obj any) (any, error) {
	if ro, ok := obj.(runtime.Object); ok {
		k.Trimmer(ro)
	}
	return obj, nil
}

// Assess says where the workload that o is stands by itself, its pods left
// aside.
func (k Kind) Assess(o *Object) Status { return k.Assessor(o) }

// Removed says where a workload stands once its object is gone, from the
// object's last state:
//
//	its own end, told or not, if the object had one
//	Failed       a Job whose controller had decided so, and waited for its pods: FailureTarget
//	Succeeded    a Job whose controller had decided so: SuccessCriteriaMet
//	Failed       a Pod that the cluster disrupted
//	Cancelled    a kind that has ends, deleted before its own
//	Deleted      a kind that has none
//
// The answer does not depend on how the removal was found.
func (k Kind) Removed(o *Object) Status {
	if s := k.Assess(o); s.State.Ended() {
		return s
	}
	if s, ok := decided(o); ok {
		return s
	}
	if s, ok := disruption(o); ok {
		return s
	}
	s := Status{
		State: statesync.Cancelled, Reason: "Deleted",
		Message: "the " + o.Kind + " was deleted before it ended", Occurred: o.DeleteRequested,
	}
	if !k.Ends {
		s.State, s.Message = statesync.Deleted, "the "+o.Kind+" was deleted"
	}
	return s
}

// SetBack says where a workload stands whose object is not in a cluster that
// was set back to an earlier time: it is gone, and had no end.
func (k Kind) SetBack(o *Object) Status {
	if s := k.Assess(o); s.State.Ended() {
		return s
	}
	return Status{
		State: statesync.Deleted, Reason: statesync.GapRestored,
		Message: "the cluster was set back to an earlier time, at which the " + o.Kind + " was not there",
	}
}

// Untracked says where a workload stands that the configuration no longer
// selects.
func Untracked(r statesync.Ref) Status {
	return Status{
		State: statesync.Untracked, Reason: "NotSelected",
		Message: "the " + r.Kind + " is no longer selected, by its labels or by the configuration; it may well live on",
	}
}

// ReduceMeta returns what the rules read of every object.
func ReduceMeta(kind string, m metav1.Object) (*Object, error) {
	rv, err := strconv.ParseUint(m.GetResourceVersion(), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reduce %s %s/%s: resourceVersion %q, want a whole number", kind, m.GetNamespace(), m.GetName(), m.GetResourceVersion())
	}
	o := &Object{
		Kind: kind, Namespace: m.GetNamespace(), Name: m.GetName(), UID: string(m.GetUID()),
		ResourceVersion: rv, Labels: m.GetLabels(), Created: m.GetCreationTimestamp().Time,
	}
	o.Controller = ControllerOf(m)
	if at := m.GetDeletionTimestamp(); at != nil {
		o.DeleteRequested = at.Time
		if grace := m.GetDeletionGracePeriodSeconds(); grace != nil {
			o.DeleteRequested = o.DeleteRequested.Add(-time.Duration(*grace) * time.Second)
		}
	}
	return o, nil
}

// ControllerOf names the controller that an object belongs to; zero: none.
func ControllerOf(m metav1.Object) Owner {
	c := metav1.GetControllerOfNoCopy(m)
	if c == nil {
		return Owner{}
	}
	return Owner{Group: group(c.APIVersion), Kind: c.Kind, Name: c.Name, UID: string(c.UID)}
}

func (o *Object) condition(typ string) (Condition, bool) {
	for _, c := range o.Conditions {
		if c.Type == typ {
			return c, true
		}
	}
	return Condition{}, false
}

func group(apiVersion string) string {
	for i := range apiVersion {
		if apiVersion[i] == '/' {
			return apiVersion[:i]
		}
	}
	return ""
}

func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
