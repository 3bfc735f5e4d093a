package custom

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestOnlyWhatIsReadIsKept(t *testing.T) {
	const whole = `"spec": {"items": [{"a": 1}], "n": 5, "m": {"x": {"y": 1}, "z": 2}}, "status": {"phase": "A", "nodes": {"k": {"p": 1}}, "list": [1, 2]}`
	for e, want := range map[string]string{
		`object.status.phase == "A"`:                                  `"status": {"phase": "A"}`,
		`object["status"]["phase"] == "A"`:                            `"status": {"phase": "A"}`,
		`.object.status.phase == "A"`:                                 `"status": {"phase": "A"}`,
		`object.?status.?phase.orValue("") == "A"`:                    `"status": {"phase": "A"}`,
		`object.status[?"phase"].orValue("") == "A"`:                  `"status": {"phase": "A"}`,
		`(object.?status).phase.hasValue()`:                           `"status": {"phase": "A"}`,
		`has(object.status.nodes)`:                                    `"status": {"nodes": {}}`,
		`has(object.status.list)`:                                     `"status": {"list": []}`,
		`has(object.status) && object.status.phase == "A"`:            `"status": {"phase": "A"}`,
		`has(object.?status.nodes)`:                                   `"status": {"nodes": {}}`,
		`object.status.nope.deeper == 1`:                              `"status": {}`,
		`object.status.list[0] == 1`:                                  `"status": {"list": [1, 2]}`,
		`object.status.nodes[object.status.phase].p == 1`:             `"status": {"phase": "A", "nodes": {"k": {"p": 1}}}`,
		`object.spec.items.all(x, x.a == object.spec.n)`:              `"spec": {"items": [{"a": 1}], "n": 5}`,
		`object.spec.m.x == {"y": object.spec.n}`:                     `"spec": {"m": {"x": {"y": 1}}, "n": 5}`,
		`[object.spec.m.z].exists(x, x == 2)`:                         `"spec": {"m": {"z": 2}}`,
		`size(object.status.list) == 2`:                               `"status": {"list": [1, 2]}`,
		`(object.spec.n > 1 ? object.spec.m : object.spec.m.x).z > 1`: `"spec": {"n": 5, "m": {"x": {"y": 1}, "z": 2}}`,
		`object.spec.?m.optMap(m, m.z).orValue(0) == 2`:               `"spec": {"m": {"x": {"y": 1}, "z": 2}}`,
		`"phase" in object.status`:                                    `"status": {"phase": "A", "nodes": {"k": {"p": 1}}, "list": [1, 2]}`,
		`[1].all(object, object == 1)`:                                whole,
		`size(object) > 3`:                                            whole,
		`true`:                                                        `"x": 1`,
	} {
		t.Run(e, func(t *testing.T) {
			k := compile(t, Rules{Running: e})
			u := object(t, "{"+meta+","+whole+"}")
			k.Trim(u)
			wanted := object(t, "{"+meta+","+want+"}")
			delete(wanted.Object, "x")
			if want != whole {
				m := wanted.Object["metadata"].(map[string]any)
				delete(m, "annotations")
				delete(m, "managedFields")
			}
			if diff := cmp.Diff(wanted.Object, u.Object); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnAnnotationIsKeptAlone(t *testing.T) {
	k := compile(t, Rules{Running: `object.metadata.?annotations[?"note"].hasValue() && object.metadata.name != ""`})
	u := object(t, "{"+meta+"}")
	u.SetAnnotations(map[string]string{"note": "x", "other": "y"})
	k.Trim(u)
	if diff := cmp.Diff(map[string]string{"note": "x"}, u.GetAnnotations()); diff != "" || u.GetManagedFields() != nil {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

// TestTrimmedObjectsSayTheSame reads random objects with random expressions,
// whole and trimmed.
func TestTrimmedObjectsSayTheSame(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	held, failed, dropped := 0, 0, 0
	for range 1_000 {
		rules := Rules{Failed: randomBool(r, 3), Running: randomBool(r, 3), Queued: "true", Reason: randomPath(r)}
		k, err := Compile(workflows(rules))
		if err != nil {
			continue // found by the types: 1 + "a"
		}
		for range 8 {
			u := object(t, "{"+meta+"}")
			for _, name := range []string{"a", "b", "c"} {
				if r.IntN(4) > 0 {
					u.Object[name] = randomJSON(r, 3)
				}
			}
			trimmed := u.DeepCopy()
			k.Trim(trimmed)
			whole, err := k.Reduce(u)
			after, errAfter := k.Reduce(trimmed)
			if diff := cmp.Diff(whole, after); diff != "" || fmt.Sprint(err) != fmt.Sprint(errAfter) {
				t.Fatalf("seed %d: %+v\non %s\ntrimmed %s\ngot errors %v and %v, (-whole +trimmed)\n%s", seed, rules, text(t, u), text(t, trimmed), err, errAfter, diff)
			}
			if err != nil {
				failed++
			} else if whole.Said.State != "Queued" {
				held++
			}
			for _, name := range []string{"a", "b", "c"} {
				if !cmp.Equal(u.Object[name], trimmed.Object[name]) {
					dropped++
					break
				}
			}
		}
	}
	if min(held, failed, dropped) < 80 {
		t.Errorf("seed %d: got %d that held, %d failures, %d trimmed, want 80 or more of each", seed, held, failed, dropped)
	}
}

func text(t *testing.T, u *unstructured.Unstructured) string {
	t.Helper()
	b, err := json.Marshal(u.Object)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func randomJSON(r *rand.Rand, depth int) any {
	n := r.IntN(9)
	if depth == 0 {
		n = r.IntN(5)
	}
	switch n {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2:
		return int64(r.IntN(3))
	case 3, 4:
		return []string{"a", "b", "2026-05-04T03:02:01Z"}[r.IntN(3)]
	case 5:
		return []any{randomJSON(r, depth-1), randomJSON(r, depth-1)}
	}
	m := map[string]any{}
	for _, name := range []string{"a", "b", "c"} {
		if r.IntN(3) > 0 {
			m[name] = randomJSON(r, depth-1)
		}
	}
	return m
}

func randomPath(r *rand.Rand) string {
	p := "object"
	for range 1 + r.IntN(3) {
		name := []string{"a", "b", "c"}[r.IntN(3)]
		p += []string{"." + name, "." + name, `["` + name + `"]`, ".?" + name, `[?"` + name + `"]`, "." + name, "[0]", "[object.a]"}[r.IntN(8)]
	}
	return p
}

func randomValue(r *rand.Rand, depth int) string {
	n := r.IntN(9)
	if depth == 0 {
		n = r.IntN(3)
	}
	switch n {
	case 0:
		return []string{`"a"`, "1", "null", "[1, 2]", `{"a": "b"}`}[r.IntN(5)]
	case 1, 2:
		return randomPath(r)
	case 3:
		return "(" + randomBool(r, depth-1) + " ? dyn(" + randomValue(r, depth-1) + ") : dyn(" + randomValue(r, depth-1) + "))"
	case 4:
		return randomPath(r) + ".map(object, " + randomValue(r, depth-1) + ")"
	case 5:
		return "string(" + randomValue(r, depth-1) + ")"
	case 6:
		return "[" + randomValue(r, depth-1) + "][0].a"
	case 7:
		return `{"a": ` + randomValue(r, depth-1) + "}.a.b"
	}
	return randomPath(r) + ".orValue(" + randomValue(r, depth-1) + ")"
}

func randomBool(r *rand.Rand, depth int) string {
	n := r.IntN(9)
	if depth == 0 {
		n = r.IntN(3)
	}
	switch n {
	case 0, 1:
		return randomPath(r) + " == " + randomPath(r)
	case 2:
		return "has(" + randomPath(r) + "." + []string{"a", "b"}[r.IntN(2)] + ")"
	case 3:
		return "(" + randomBool(r, depth-1) + " && " + randomBool(r, depth-1) + ")"
	case 4:
		return "(" + randomBool(r, depth-1) + " || !" + randomBool(r, depth-1) + ")"
	case 5:
		return randomPath(r) + ".exists(x, x == " + randomValue(r, depth-1) + ")"
	case 6:
		return "(" + randomValue(r, depth-1) + " in " + randomPath(r) + ")"
	case 7:
		return "(size(" + randomValue(r, depth-1) + ") > 1)"
	}
	return "(" + randomValue(r, depth-1) + " == " + randomValue(r, depth-1) + ")"
}
