package workload

import "github.com/outrider-agent/outrider/statesync"

// Alone returns the kind without folding: what its workloads control tells
// stories of its own. No pod moves them then, so that a Job runs when its own
// status says that a pod of it is ready. Pods that have ended do not say so:
// after a resume they are those of the run before.
func Alone(k Kind) Kind {
	k.Folds = false
	if !k.PodsRun {
		return k
	}
	k.PodsRun = false
	assess := k.Assessor
	k.Assessor = func(o *Object) Status {
		s := assess(o)
		if s.State != statesync.Queued || s.Suspended || o.Pods.Ready == 0 {
			return s
		}
		return Status{State: statesync.Running}
	}
	return k
}
