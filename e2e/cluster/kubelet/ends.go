package kubelet

import (
	"maps"
	"slices"
)

// An end is a reason a pod can end or hang with.
type end struct {
	where   place
	exit    int32
	message string
	// disrupted sets the condition DisruptionTarget with reason TerminationByKubelet.
	disrupted bool
}

// A place is where a reason appears in a pod's status.
type place int

const (
	// inTerminated: the container terminates with the reason; the restart policy says what follows.
	inTerminated place = iota
	// inWaiting: the container never starts; the pod stays Pending.
	inWaiting
	// inPod: the kubelet ends the running pod; phase Failed, status.reason.
	inPod
	// atAdmission: the kubelet refuses the pod; phase Failed, status.reason, and no container ever.
	atAdmission
)

const (
	reasonErrImagePull     = "ErrImagePull"
	reasonImagePullBackOff = "ImagePullBackOff"
	reasonCrashLoopBackOff = "CrashLoopBackOff"
	reasonDeadlineExceeded = "DeadlineExceeded"
	// reasonBadAnnotation is ours: no kubelet sets it.
	reasonBadAnnotation = "InvalidDevclusterAnnotation"
)

// ends is the table of reasons; messages are those of a real kubelet. Read-only.
var ends = map[string]end{
	"":                     {where: inTerminated, exit: 0},
	"Error":                {where: inTerminated, exit: 1},
	"OOMKilled":            {where: inTerminated, exit: exitSIGKILL},
	"ContainerCannotRun":   {where: inTerminated, exit: 127, message: "failed to start container"},
	"StartError":           {where: inTerminated, exit: 128, message: "failed to create containerd task"},
	reasonCrashLoopBackOff: {where: inTerminated, exit: 1},
	reasonErrImagePull:     {where: inWaiting, message: "failed to pull and unpack image: not found"},
	reasonImagePullBackOff: {where: inWaiting, message: "Back-off pulling image"},
	"InvalidImageName":     {where: inWaiting, message: "Failed to apply default image tag: couldn't parse image name"},
	"CreateContainerError": {where: inWaiting, message: "failed to create containerd container"},
	"CreateContainerConfigError": {
		where: inWaiting, message: "configmap \"settings\" not found",
	},
	"Evicted": {
		where: inPod, exit: exitSIGKILL, disrupted: true,
		message: "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. ",
	},
	"Terminated": {
		where: inPod, exit: exitSIGTERM, disrupted: true,
		message: "Pod was terminated in response to imminent node shutdown.",
	},
	reasonDeadlineExceeded: {
		where: inPod, exit: exitSIGKILL,
		message: "Pod was active on the node longer than the specified deadline",
	},
	"UnexpectedAdmissionError": {where: atAdmission, message: "Allocate failed due to no healthy devices present, which is unexpected"},
	"OutOfcpu":                 {where: atAdmission, message: "Node didn't have enough resource: cpu, requested: 4000, used: 1000, capacity: 2000"},
	"NodeAffinity":             {where: atAdmission, message: "Predicate NodeAffinity failed"},
}

// Ends lists the values of the annotation end.
func Ends() []string {
	names := slices.Sorted(maps.Keys(ends))
	return names[1:] // without the empty one
}
