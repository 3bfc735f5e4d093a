package workload

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

func TestAJobAloneRunsWhenAPodOfItIsReady(t *testing.T) {
	created := time.Unix(1_800_000_000, 0)
	condition := func(typ string) []Condition { return []Condition{{Type: typ, True: true, Since: created}} }
	for name, tt := range map[string]struct {
		o    Object
		want statesync.State
	}{
		"no pod yet":                      {Object{}, statesync.Queued},
		"a pod that is not ready":         {Object{Pods: Pods{Active: 1}}, statesync.Queued},
		"a pod that is":                   {Object{Pods: Pods{Active: 2, Ready: 1}}, statesync.Running},
		"pods of the run before":          {Object{Pods: Pods{Succeeded: 1, Failed: 1}}, statesync.Queued},
		"suspended, a pod on its way out": {Object{Pods: Pods{Ready: 1}, Conditions: condition("Suspended")}, statesync.Queued},
		"complete":                        {Object{Pods: Pods{Ready: 1}, Conditions: condition("Complete")}, statesync.Succeeded},
		"failed":                          {Object{Pods: Pods{Ready: 1}, Conditions: condition("Failed")}, statesync.Failed},
	} {
		tt.o.Created = created
		k := Alone(jobKind)
		got := k.Assess(&tt.o)
		if got.State != tt.want || k.Folds || k.PodsRun || k.Name != "Job" {
			t.Errorf("%s: got %q, folds %t, pods run it %t, want %q", name, got.State, k.Folds, k.PodsRun, tt.want)
		}
		if with := jobKind.Assess(&tt.o); tt.want != statesync.Running && !cmp.Equal(got, with) {
			t.Errorf("%s: got %+v, want what it is with its pods: %+v", name, got, with)
		}
	}
	if !jobKind.Folds || !jobKind.PodsRun {
		t.Error("the table was changed")
	}
}

func TestAKindAloneWithoutPodsKeepsItsRules(t *testing.T) {
	k := Alone(Kind{Name: "A", Folds: true, Assessor: func(*Object) Status { return Status{State: statesync.Queued} }})
	if got := k.Assess(&Object{Pods: Pods{Ready: 1}}); got.State != statesync.Queued || k.Folds {
		t.Errorf("got %q, folds %t, want Queued, false", got.State, k.Folds)
	}
}
