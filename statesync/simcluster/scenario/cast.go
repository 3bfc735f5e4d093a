package scenario

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

type kindIndex uint8

const (
	kindJob kindIndex = iota
	kindPod
	kindDeployment
	kindTraining
)

// A kind is a sort of workload.
type kind struct {
	name    string
	removed state // what is told when it goes before an end of its own
	scripts []script
}

// A cast is what a scenario's workloads are made of. Nothing writes to it.
type cast struct {
	namespaces []string
	kinds      [4]kind

	notebooks, tasks, jobs, apps, trainings []*look
}

// A look is what objects have in common: their template.
type look struct {
	resource *simcluster.Resource
	prefix   string // of names
	labels   map[string]string
	object   runtime.Object
	parts    *look // of what they control
}

func newCast(c *simcluster.Cluster, namespaces int) *cast {
	out := &cast{
		kinds: [4]kind{
			kindJob:        {"Job", cancelled, jobScripts()},
			kindPod:        {"Pod", cancelled, podScripts()},
			kindDeployment: {"Deployment", deleted, appScripts()},
			kindTraining:   {"Training", cancelled, trainingScripts()},
		},
	}
	for i := range namespaces {
		out.namespaces = append(out.namespaces, fmt.Sprintf("team-%02d", i+1))
	}
	pods, jobs := serve(c, simcluster.Pods()), serve(c, simcluster.Jobs())
	apps, sets := serve(c, simcluster.Deployments()), serve(c, simcluster.ReplicaSets())
	trainings := serve(c, simcluster.Custom("sim.outrider.dev", "v1", "trainings", "Training", true))

	for _, model := range []string{"resnet", "bert", "whisper"} {
		out.tasks = append(out.tasks, podLook(pods, "task-"+model, "registry.sim/ml/"+model+":2.1", false))
		of := podLook(pods, "train-"+model, "registry.sim/ml/"+model+":2.1", false)
		out.jobs = append(out.jobs, jobLook(jobs, of))
		out.trainings = append(out.trainings, trainingLook(trainings, "tune-"+model))
	}
	for _, flavour := range []string{"scipy", "torch"} {
		out.notebooks = append(out.notebooks, podLook(pods, "notebook-"+flavour, "registry.sim/notebooks/"+flavour+":2026.1", true))
	}
	for _, name := range []string{"shop", "search", "dashboard"} {
		of := podLook(pods, name, "registry.sim/web/"+name+":1.4.2", true)
		out.apps = append(out.apps, appLook(apps, sets, of))
	}
	return out
}

// serve returns the cluster's resource of that name, and has it serve r if
// there is none.
func serve(c *simcluster.Cluster, r *simcluster.Resource) *simcluster.Resource {
	for _, other := range c.Resources() {
		if other.Group == r.Group && other.Plural == r.Plural {
			return other
		}
	}
	c.Add(r)
	return r
}

// entity returns a new object's, not created yet. It has a name with a number
// of its own, or one that its place has from life to life.
func (s *Scenario) entity(l *look, owner *entity, name string) *entity {
	e := &entity{look: l, owner: owner, labels: l.labels}
	switch {
	case owner != nil:
		e.namespace = owner.namespace
	default: // some namespaces have far more than others
		f := s.rand.Float64()
		e.namespace = s.cast.namespaces[int(f*f*float64(len(s.cast.namespaces)))]
	}
	const digits = "0123456789abcdef"
	id := append(make([]byte, 0, len(name)+36), name...)
	a, b := s.rand.Uint64(), s.rand.Uint64()
	a, b = a&^0xf000|0x4000, b&^(3<<62)|2<<62 // a UUID of version 4
	for i, v := range []uint64{a, b} {
		for nibble := range 16 {
			if i == 0 && (nibble == 8 || nibble == 12) || i == 1 && (nibble == 0 || nibble == 4) {
				id = append(id, '-')
			}
			id = append(id, digits[v>>(60-4*nibble)&0xf])
		}
	}
	both := string(id) // one string for both
	e.name, e.uid = both[:len(name)], types.UID(both[len(name):])
	return e
}

// numbered returns a name that no other object has.
func (s *Scenario) numbered(prefix string) string {
	s.names++
	return fmt.Sprintf("%s-%06d", prefix, s.names)
}

// suffixed returns a name as controllers make it.
func (s *Scenario) suffixed(prefix string, n int) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	name := append(make([]byte, 0, len(prefix)+1+n), prefix...)
	name = append(name, '-')
	for range n {
		name = append(name, letters[s.rand.IntN(len(letters))])
	}
	return string(name)
}

func (s *Scenario) look(them []*look) *look { return them[s.rand.IntN(len(them))] }

// stamp writes what is the object's own into its metadata. The labels are
// shared.
func (e *entity) stamp(m *metav1.ObjectMeta) {
	m.Namespace, m.Name, m.UID = e.namespace, e.name, e.uid
	m.CreationTimestamp = at(e.created)
	m.Labels = e.labels
	if e.owner != nil {
		r, yes := e.owner.look.resource, true
		apiVersion := r.Version
		if r.Group != "" {
			apiVersion = r.Group + "/" + r.Version
		}
		m.GenerateName = e.owner.name + "-"
		m.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: apiVersion, Kind: r.Kind, Name: e.owner.name, UID: e.owner.uid, Controller: &yes, BlockOwnerDeletion: &yes,
		}}
	}
}

func at(seconds int64) metav1.Time { return metav1.Unix(seconds, 0) }

func atPointer(seconds int64) *metav1.Time {
	t := at(seconds)
	return &t
}

// without returns pods but one.
func without(pods []*podVersion, p *podVersion) []*podVersion {
	return slices.DeleteFunc(slices.Clone(pods), func(other *podVersion) bool { return other.entity == p.entity })
}
