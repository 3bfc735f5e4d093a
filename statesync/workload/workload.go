// Package workload holds the rules that turn Kubernetes objects into workload states: pure functions, no I/O.
//
// An object is first reduced to what the rules read ([Kind.Reduce]), then a kind's
// rule says where the workload stands ([Assess]), and [Steps] says which
// changes lead there from where it stood before.
package workload

import (
	"fmt"
	"strconv"
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
	Created         time.Time         `json:"created,omitzero"`          // creationTimestamp
	DeleteRequested time.Time         `json:"delete_requested,omitzero"` // deletionTimestamp less the grace period; zero: nobody asked
	Started         time.Time         `json:"started,omitzero"`          // status.startTime
	Completed       time.Time         `json:"completed,omitzero"`        // a Job's status.completionTime

	Phase      string      `json:"phase,omitzero"`   // a Pod's
	Reason     string      `json:"reason,omitzero"`  // a Pod's status.reason
	Message    string      `json:"message,omitzero"` // a Pod's status.message
	Suspend    bool        `json:"suspend,omitzero"` // a Job's spec.suspend
	Conditions []Condition `json:"conditions,omitzero"`
	Containers []Container `json:"containers,omitzero"`
}

// Owner is the controller that an object belongs to.
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
// first.
type Container struct {
	Name           string    `json:"name"`
	Init           bool      `json:"init,omitzero"`
	Waiting        string    `json:"waiting,omitzero"` // reason; empty: it does not wait
	WaitingMessage string    `json:"waiting_message,omitzero"`
	Terminated     bool      `json:"terminated,omitzero"`
	Reason         string    `json:"reason,omitzero"` // of the termination
	ExitCode       int32     `json:"exit_code,omitzero"`
	Started        time.Time `json:"started,omitzero"` // of the present run
	Finished       time.Time `json:"finished,omitzero"`
	LastReason     string    `json:"last_reason,omitzero"` // of the termination before
	LastExitCode   int32     `json:"last_exit_code,omitzero"`
	LastStart      time.Time `json:"last_start,omitzero"`
}

// Ref names the workload that the object is.
func (o *Object) Ref() statesync.Ref {
	return statesync.Ref{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, UID: o.UID, Labels: o.Labels}
}

// Status is where a workload stands, and why.
type Status struct {
	State    statesync.State
	Reason   string
	Message  string
	ExitCode *int32
	Occurred time.Time // by the cluster's clocks; zero: they do not say

	// Suspended: the workload's pods may not move it.
	Suspended bool
	// Reconstructed: filled in between two states that were seen.
	Reconstructed bool
}

// A Kind is one kind of workload that the rules know. To add one, write its
// file and its line in [Kinds].
type Kind struct {
	Name     string // Pod
	Group    string // batch; empty for the core group
	Version  string // v1
	Resource string // pods
	Folds    bool   // pods whose controller it is tell its story, not one of their own

	Object func() runtime.Object // an empty one, of the type that reduce takes
	List   func() runtime.Object // an empty list of them

	reduce func(runtime.Object) (*Object, error)
	trim   func(runtime.Object) // drops what reduce does not read
	assess func(*Object) Status
}

// Kinds are the kinds that the rules know, by name. Read-only.
var Kinds = map[string]Kind{"Pod": podKind, "Job": jobKind}

// ParseSelector returns a selector of labels in its one way of being written.
func ParseSelector(text string) (string, error) {
	s, err := labels.Parse(text)
	if err != nil {
		return "", fmt.Errorf("selector: %w", err)
	}
	return s.String(), nil
}

// Reduce returns what the rules read of an object of the kind. Nothing in the
// result refers to obj's memory but strings and labels.
func (k Kind) Reduce(obj any) (*Object, error) {
	ro, ok := obj.(runtime.Object)
	if !ok {
		return nil, fmt.Errorf("reduce %s: got %T, want an object", k.Name, obj)
	}
	return k.reduce(ro)
}

// Trim drops from an object what Reduce does not read, in place. It is a
// cache.TransformFunc.
func (k Kind) Trim(obj any) (any, error) {
	if ro, ok := obj.(runtime.Object); ok {
		k.trim(ro)
	}
	return obj, nil
}

// Assess says where the workload that o is stands by itself, its pods left
// aside.
func Assess(o *Object) Status { return Kinds[o.Kind].assess(o) }

// Removed says where a workload stands once its object is gone, from the
// object's last state: its own end wins, then what disrupted it, and else
// somebody cancelled it. The answer does not depend on how the removal was
// found.
func Removed(o *Object) Status {
	if s := Assess(o); s.State.Ended() {
		return s
	}
	if s, ok := disruption(o); ok {
		return s
	}
	return Status{
		State: statesync.Cancelled, Reason: "Deleted",
		Message: "the " + o.Kind + " was deleted before it ended", Occurred: o.DeleteRequested,
	}
}

// SetBack says where a workload stands whose object is not in a cluster that
// was set back to an earlier time: it is gone, and had no end.
func SetBack(o *Object) Status {
	if s := Assess(o); s.State.Ended() {
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

func reduceMeta(kind string, m *metav1.ObjectMeta) (*Object, error) {
	rv, err := strconv.ParseUint(m.ResourceVersion, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reduce %s %s/%s: resourceVersion %q, want a whole number", kind, m.Namespace, m.Name, m.ResourceVersion)
	}
	o := &Object{
		Kind: kind, Namespace: m.Namespace, Name: m.Name, UID: string(m.UID),
		ResourceVersion: rv, Labels: m.Labels, Created: m.CreationTimestamp.Time,
	}
	o.Controller = ControllerOf(m)
	if m.DeletionTimestamp != nil {
		o.DeleteRequested = m.DeletionTimestamp.Time
		if m.DeletionGracePeriodSeconds != nil {
			o.DeleteRequested = o.DeleteRequested.Add(-time.Duration(*m.DeletionGracePeriodSeconds) * time.Second)
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
