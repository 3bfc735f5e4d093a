package workload

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestIs(t *testing.T) {
	const custom = "example.com"
	for _, tt := range []struct {
		name, group, resource string
		owner                 Owner
		want                  bool
	}{
		{"a plural with s", "batch", "jobs", Owner{Group: "batch", Kind: "Job"}, true},
		{"a kind of several words", "apps", "replicasets", Owner{Group: "apps", Kind: "ReplicaSet"}, true},
		{"the core group", "", "pods", Owner{Kind: "Pod"}, true},
		{"a plural with es", custom, "classes", Owner{Group: custom, Kind: "Class"}, true},
		{"one with ies", custom, "policies", Owner{Group: custom, Kind: "Policy"}, true},
		{"ies of capitals", custom, "policies", Owner{Group: custom, Kind: "POLICY"}, true},
		{"a plural like its singular", "chaos-mesh.org", "podchaos", Owner{Group: "chaos-mesh.org", Kind: "PodChaos"}, true},
		{"a singular that ends in s", custom, "redises", Owner{Group: custom, Kind: "Redis"}, true},
		{"an irregular plural", custom, "indices", Owner{Group: custom, Kind: "Index"}, false},
		{"another kind", "batch", "jobs", Owner{Group: "batch", Kind: "CronJob"}, false},
		{"the beginning of a kind", "batch", "cronjobs", Owner{Group: "batch", Kind: "Cron"}, false},
		{"more than a kind", "batch", "jobs", Owner{Group: "batch", Kind: "JobSet"}, false},
		{"a kind of the same name in another group", "batch", "jobs", Owner{Group: "batch.volcano.sh", Kind: "Job"}, false},
		{"the other way round", "batch.volcano.sh", "jobs", Owner{Group: "batch", Kind: "Job"}, false},
		{"a group's case counts", "batch", "jobs", Owner{Group: "Batch", Kind: "Job"}, false},
		{"a plural is no kind", "", "pods", Owner{Kind: "Podss"}, false},
		{"no owner", "", "pods", Owner{}, false},
		{"no kind in the kind's group", "batch", "jobs", Owner{Group: "batch"}, false},
		{"no kind, and a plural that is all ending", custom, "s", Owner{Group: custom}, false},
		{"a letter of two bytes for two letters", custom, "jobs", Owner{Group: custom, Kind: "Jé"}, false},
		{"one that begins where the plural's ending does", custom, "policies", Owner{Group: custom, Kind: "Policé"}, false},
		{"bytes that are no letters", custom, "jobs", Owner{Group: custom, Kind: "jo\xc3"}, false},
	} {
		k := Kind{Group: tt.group, Resource: tt.resource}
		if got := k.Is(tt.owner); got != tt.want {
			t.Errorf("%s: %s of %q is %q of %q: got %t, want %t", tt.name, tt.resource, tt.group, tt.owner.Kind, tt.owner.Group, got, tt.want)
		}
	}
}

// TestIsKnown: of the kinds that every program knows, each is itself and no
// other.
func TestIsKnown(t *testing.T) {
	for name, k := range Kinds {
		for other, o := range Kinds {
			if got, want := k.Is(Owner{Group: o.Group, Kind: o.Name}), name == other; got != want {
				t.Errorf("%s is %s: got %t, want %t", name, other, got, want)
			}
		}
	}
}

// FuzzIs: whatever an ownerReference names, the answer comes without a panic,
// and the plural that the API machinery guesses of a kind is recognised.
func FuzzIs(f *testing.F) {
	for _, seed := range [][2]string{
		{"jobs", "Job"},
		{"policies", "Policy"},
		{"classes", "Class"},
		{"podchaos", "PodChaos"},
		{"indices", "Index"},
		{"", ""},
		{"s", ""},
		{"es", ""},
		{"ies", "Y"},
		{"jobs", "Jé"},
		{"policies", "Policé"},
		{"jobs", "jo\xc3"},
		{"policies", "\xf0\x9f\x98\x80"},
		{"kinds", "\u212Aind"},
		{"日本s", "日本"},
		{"日ies", "日y"},
		{"é", "É"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, resource, kind string) {
		k := Kind{Group: "g", Resource: resource}
		is := k.Is(Owner{Group: "g", Kind: kind})
		if is && kind == "" {
			t.Errorf("%q is a kind without a name", resource)
		}
		if k.Is(Owner{Kind: kind}) {
			t.Errorf("%q is %q of another group", resource, kind)
		}
		if strings.ContainsFunc(kind, func(r rune) bool { return r >= 0x80 }) || kind == "" {
			return
		}
		guess, _ := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Group: "g", Version: "v1", Kind: kind})
		k.Resource = guess.Resource
		if !k.Is(Owner{Group: "g", Kind: kind}) {
			t.Errorf("%q is not %q", k.Resource, kind)
		}
	})
}

// TestMayControl has a row for every pair of kinds, those of a configuration
// among them.
func TestMayControl(t *testing.T) {
	names := []string{"Pod", "Job", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "RayJob", "Workflow"}
	may := map[string]string{
		"Pod": "", "Job": "Pod", "ReplicaSet": "Pod", "StatefulSet": "Pod", "DaemonSet": "Pod", "Deployment": "ReplicaSet",
		"RayJob":   "Pod Job Deployment ReplicaSet StatefulSet DaemonSet Workflow",
		"Workflow": "Pod Job Deployment ReplicaSet StatefulSet DaemonSet RayJob",
	}
	for _, name := range names {
		k, known := Kinds[name]
		if !known {
			k = Kind{Name: name}
		}
		var got []string
		for _, other := range names {
			if k.MayControl(other) {
				got = append(got, other)
			}
		}
		if got := strings.Join(got, " "); got != may[name] {
			t.Errorf("%s may control %q, want %q", name, got, may[name])
		}
	}
	for name := range Kinds {
		if _, had := may[name]; !had {
			t.Errorf("no row for %s", name)
		}
	}
}
