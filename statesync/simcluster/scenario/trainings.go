package scenario

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

// A trainingVersion is a custom object as it was for a while. It does not
// change.
type trainingVersion struct {
	*entity
	phase          string // empty: no controller has come to it
	epoch          int32
	started, ended int64 // 0: it has not
}

// Object implements [simcluster.Source].
func (v *trainingVersion) Object() runtime.Object {
	u := v.look.object.(*unstructured.Unstructured).DeepCopy()
	u.SetNamespace(v.namespace)
	u.SetName(v.name)
	u.SetUID(v.uid)
	u.SetCreationTimestamp(at(v.created))
	u.SetGeneration(1)
	u.SetLabels(v.labels)
	if v.phase == "" {
		return u
	}
	status := map[string]any{"phase": v.phase, "observedGeneration": int64(1)}
	stamp := func(key string, seconds int64) {
		if seconds != 0 {
			status[key] = time.Unix(seconds, 0).UTC().Format(time.RFC3339)
		}
	}
	stamp("startTime", v.started)
	stamp("completionTime", v.ended)
	if v.epoch > 0 {
		status["epoch"] = int64(v.epoch)
	}
	if v.phase == "Failed" {
		status["reason"], status["message"] = "Diverged", "the loss is not a number"
	}
	u.Object["status"] = status
	return u
}

func trainingLook(r *simcluster.Resource, prefix string) *look {
	labels := map[string]string{"app.kubernetes.io/name": prefix, "app.kubernetes.io/managed-by": "sim", "sim.outrider.dev/cost-center": "4711"}
	return &look{resource: r, prefix: prefix, labels: labels, object: &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": r.Group + "/" + r.Version, "kind": r.Kind,
		"metadata": map[string]any{"annotations": map[string]any{
			"sim.outrider.dev/submitted-by": "studio",
			"sim.outrider.dev/source":       `{"repository":"git.sim/` + prefix + `","revision":"8f2c1d77e0b94b0f8a3c5f6e2d1a9b8c7d6e5f40"}`,
		}},
		"spec": map[string]any{
			"model": prefix, "epochs": int64(40), "image": "registry.sim/ml/" + prefix + ":2.1",
			"data":      map[string]any{"bucket": "s3://sim-data/" + prefix, "format": "parquet", "shards": int64(256)},
			"optimizer": map[string]any{"name": "adamw", "rate": "3e-4", "decay": "0.01", "warmup": int64(2000)},
			"resources": map[string]any{"gpus": int64(8), "memory": "512Gi", "nodes": int64(1), "class": "a100"},
			"callbacks": []any{"checkpoint", "early-stop", "report"},
		},
	}}}
}

func (s *Scenario) setTraining(l *life, edit func(*trainingVersion)) error {
	next := *l.training
	edit(&next)
	l.training = &next
	return s.update(&next)
}

func trainingScripts() []script {
	first := func(s *Scenario, l *life) {
		of := s.look(s.cast.trainings)
		l.main = s.entity(of, nil, s.numbered(of.prefix))
		l.training = &trainingVersion{entity: l.main}
	}
	phase := func(phase string) func(*Scenario, *life) error {
		return func(s *Scenario, l *life) error {
			return s.setTraining(l, func(v *trainingVersion) {
				switch v.phase = phase; phase {
				case "Running":
					v.started = s.now()
				case "Succeeded", "Failed":
					v.ended = s.now()
				}
			})
		}
	}
	remove := func(s *Scenario, l *life) error { return s.delete(l.main) }
	create := step{10 * time.Second, queued, func(s *Scenario, l *life) error { return s.create(l.training) }}
	pend := step{time.Second, none, phase("Pending")}
	run := step{30 * time.Second, running, phase("Running")}
	learn := step{10 * time.Minute, none, func(s *Scenario, l *life) error {
		return s.setTraining(l, func(v *trainingVersion) { v.epoch++ })
	}}
	succeed := step{10 * time.Minute, succeeded, phase("Succeeded")}
	fail := step{5 * time.Minute, failed, phase("Failed")}
	gone := step{10 * time.Minute, none, remove}
	return []script{
		{60, first, []step{create, pend, run, learn, learn, succeed, gone}},
		{20, first, []step{create, pend, run, learn, fail, gone}},
		{15, first, []step{create, pend, run, learn, {5 * time.Minute, cancelled, remove}}},
		{5, first, []step{create, pend, {time.Minute, cancelled, remove}}},
	}
}
