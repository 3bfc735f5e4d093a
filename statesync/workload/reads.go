package workload

import "slices"

// What the rules read of objects, by the names of the fields. What is not here
// never reaches a Reducer: a rule that reads one field more says so in its
// kind's entry.

// readsOfAll is what ReduceMeta reads. Read-only.
var readsOfAll = slices.Concat(
	under("metadata", "name", "namespace", "uid", "resourceVersion", "labels"),
	under("metadata", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
	under("metadata.ownerReferences", "apiVersion", "kind", "name", "uid", "controller"),
)

// readsOfCondition is what newCondition takes. Read-only.
var readsOfCondition = []string{"type", "status", "reason", "message", "lastTransitionTime"}

// readsOfContainer is what reduceContainer reads of the statuses at a path.
func readsOfContainer(path string) []string {
	return slices.Concat(
		under(path, "name"),
		under(path+".state.waiting", "reason", "message"),
		under(path+".state.running", "startedAt"),
		under(path+".state.terminated", "exitCode", "reason", "startedAt", "finishedAt"),
		under(path+".lastState.terminated", "exitCode", "reason", "startedAt"),
	)
}

func under(path string, names ...string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = path + "." + name
	}
	return out
}
