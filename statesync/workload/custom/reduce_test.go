package custom

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

const meta = `"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {
	"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}, "creationTimestamp": "2026-01-02T03:04:05Z",
	"annotations": {"note": "x"}, "managedFields": [{"manager": "m"}]}`

// object reads JSON as the API client does: whole numbers stay whole.
func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return u
}

func compile(t testing.TB, r Rules) workload.Kind {
	t.Helper()
	k, err := Compile(workflows(r))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWhatAnObjectSays(t *testing.T) {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	const status = `"status": {"phase": "A", "n": 5, "zero": 0, "none": null, "list": ["x"], "at": "2026-05-04T03:02:01Z", "on": true, "map": {"k": "v"}}`
	tests := []struct {
		name  string
		rules Rules
		want  workload.Said
		err   string // after reduce workflows.argoproj.io ns/n
	}{
		{name: "one that holds", rules: Rules{Running: `object.status.phase == "A"`}, want: workload.Said{State: statesync.Running}},
		{name: "none that holds", rules: Rules{Running: `object.status.phase == "B"`, Reason: `"r"`}},
		{
			name: "the first that holds: failed", rules: Rules{Queued: "true", Running: "true", Cancelled: "true", Succeeded: "true", Failed: "true"},
			want: workload.Said{State: statesync.Failed},
		},
		{name: "then succeeded", rules: Rules{Queued: "true", Running: "true", Cancelled: "true", Succeeded: "true"}, want: workload.Said{State: statesync.Succeeded}},
		{name: "then cancelled", rules: Rules{Queued: "true", Running: "true", Cancelled: "true"}, want: workload.Said{State: statesync.Cancelled}},
		{name: "then running", rules: Rules{Queued: "true", Running: "true", Failed: "false"}, want: workload.Said{State: statesync.Running}},
		{name: "then queued", rules: Rules{Queued: "true", Running: "false"}, want: workload.Said{State: statesync.Queued}},

		{name: "a field that is not there", rules: Rules{Failed: `object.status.nope == "A"`, Queued: "true"}, want: workload.Said{State: statesync.Queued}},
		{name: "one below it", rules: Rules{Failed: `object.nope.nope[0].nope == "A"`, Queued: "true"}, want: workload.Said{State: statesync.Queued}},
		{name: "not the field that is not there", rules: Rules{Failed: `!(object.status.nope == "A")`}},
		{name: "one by a name that is not constant", rules: Rules{Failed: `object.status[object.status.phase] == "A"`}},
		{name: "an item that is not there", rules: Rules{Failed: `object.status.list[1] == "x"`}},
		{name: "an item of a list made here", rules: Rules{Failed: `object.status.phase.split(",")[1] == "x"`}},
		{name: "a field of a text", rules: Rules{Failed: `object.status.phase.sub == "A"`}},
		{name: "null", rules: Rules{Failed: `object.status.none`, Running: `object.status.none.x`}},
		{name: "one of two is not there, the other holds", rules: Rules{Failed: `object.status.nope == 1 || object.status.n == 5`}, want: workload.Said{State: statesync.Failed}},
		{name: "optional fields", rules: Rules{Failed: `object.?status.?nope.orValue("A") == "A"`}, want: workload.Said{State: statesync.Failed}},
		{name: "numbers of two types", rules: Rules{Failed: `object.status.n > 4.5`}, want: workload.Said{State: statesync.Failed}},
		{name: "what only the object says to be a bool", rules: Rules{Failed: `object.status.on`}, want: workload.Said{State: statesync.Failed}},

		{name: "another type", rules: Rules{Failed: `object.status.phase`}, err: "failed: got string, want bool"},
		{name: "a wrong call", rules: Rules{Failed: `object.status.phase > 5`}, err: "failed:1:21: no such overload"},
		{name: "a division by zero", rules: Rules{Failed: "1 /\n object.status.zero == 1"}, err: "failed:1:3: division by zero"},
		{name: "a bad time", rules: Rules{Failed: `timestamp(object.status.phase) > timestamp(0)`}, err: `failed:1:10: invalid RFC 3339 timestamp "A"`},
		{name: "a place in a text that it has not", rules: Rules{Failed: `object.status.phase.charAt(5) == "x"`}, err: "failed:1:27: index out of range: 5"},
		{name: "a failure before the first that holds", rules: Rules{Succeeded: `object.status.n`, Running: "true"}, err: "succeeded: got int, want bool"},
		{name: "none after it", rules: Rules{Running: `object.status.n`, Succeeded: "true"}, want: workload.Said{State: statesync.Succeeded}},

		{
			name:  "reason, message and time",
			rules: Rules{Running: "true", Reason: "object.status.phase", Message: `"of " + object.status.list[0]`, Occurred: "object.status.at"},
			want:  workload.Said{State: statesync.Running, Reason: "A", Message: "of x", Occurred: at},
		},
		{name: "a time of CEL's own", rules: Rules{Running: "true", Occurred: `timestamp(object.status.at) + duration("1s")`}, want: workload.Said{State: statesync.Running, Occurred: at.Add(time.Second)}},
		{name: "of another zone", rules: Rules{Running: "true", Occurred: `"2026-05-04T05:02:01+02:00"`}, want: workload.Said{State: statesync.Running, Occurred: at}},
		{
			name:  "what is not there",
			rules: Rules{Running: "true", Reason: "object.status.nope", Message: "object.status.none", Occurred: "object.status.none"},
			want:  workload.Said{State: statesync.Running},
		},
		{name: "an empty time", rules: Rules{Running: "true", Occurred: `""`}, want: workload.Said{State: statesync.Running}},
		{
			name: "a reason that fails costs the reason alone", rules: Rules{Running: "true", Reason: "object.status.n", Message: `"m"`, Occurred: "object.status.at"},
			want: workload.Said{State: statesync.Running, Message: "m", Occurred: at}, err: "reason: got int, want string",
		},
		{name: "a message", rules: Rules{Running: "true", Reason: `"r"`, Message: "object.status.map"}, want: workload.Said{State: statesync.Running, Reason: "r"}, err: "message: got map, want string"},
		{name: "a time that is none", rules: Rules{Running: "true", Occurred: "object.status.phase"}, want: workload.Said{State: statesync.Running}, err: `occurred: got "A", want a time in RFC 3339`},
		{name: "a time of another type", rules: Rules{Running: "true", Occurred: "object.status.n"}, want: workload.Said{State: statesync.Running}, err: "occurred: got int, want timestamp, or string in RFC 3339"},
		{name: "a year that JSON has not", rules: Rules{Running: "true", Occurred: `"9999-12-31T23:59:59-01:00"`}, want: workload.Said{State: statesync.Running}, err: "occurred: got year 10000, want 1 to 9999"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := compile(t, tt.rules)
			u := object(t, "{"+meta+","+status+"}")
			before := u.DeepCopy()
			o, err := k.Reduce(u)
			if o == nil {
				t.Fatal(err)
			}
			if !cmp.Equal(before.Object, u.Object) {
				t.Error("the object was changed")
			}
			if diff := cmp.Diff(tt.want, o.Said); diff != "" {
				t.Errorf("said (-want +got):\n%s", diff)
			}
			if want := "reduce workflows.argoproj.io ns/n: " + tt.err; tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != want) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if _, err := json.Marshal(o); err != nil {
				t.Errorf("the log keeps it as JSON: %v", err)
			}
			k.Trim(u)
			trimmed, after := k.Reduce(u)
			if diff := cmp.Diff(o, trimmed); diff != "" || (err == nil) != (after == nil) || err != nil && err.Error() != after.Error() {
				t.Errorf("trimmed: got error %v and (-whole +trimmed):\n%s", after, diff)
			}
		})
	}
}

func TestAnObjectIsReducedWithItsMetadata(t *testing.T) {
	k := compile(t, Rules{Queued: "true"})
	got, err := k.Reduce(object(t, "{"+meta+"}"))
	if err != nil {
		t.Fatal(err)
	}
	want := &workload.Object{
		Kind: "workflows.argoproj.io", Namespace: "ns", Name: "n", UID: "u", ResourceVersion: 7, Labels: map[string]string{"a": "b"},
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Said: workload.Said{State: statesync.Queued},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("object (-want +got):\n%s", diff)
	}
	u := object(t, "{"+meta+"}")
	grace, now := int64(30), metav1.Unix(1_800_000_000, 0)
	u.SetDeletionTimestamp(&now)
	u.SetDeletionGracePeriodSeconds(&grace)
	u.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "a.b/v1", Kind: "C", Name: "c", UID: "cu", Controller: new(true)}})
	whole, err := k.Reduce(u)
	if err != nil || whole.Controller.Group != "a.b" || !whole.DeleteRequested.Equal(now.Add(-30*time.Second)) {
		t.Errorf("got %+v (%v), want its controller and when its deletion was requested", whole, err)
	}
	k.Trim(u)
	trimmed, err := k.Reduce(u)
	if diff := cmp.Diff(whole, trimmed); diff != "" || err != nil || u.GetKind() != "Workflow" {
		t.Errorf("trimmed (-whole +trimmed), %v:\n%s", err, diff)
	}
	if o, err := k.Reduce(object(t, `{"apiVersion": "v1", "kind": "A", "metadata": {"name": "n"}}`)); o != nil || err == nil {
		t.Errorf("without a resourceVersion: got %v, %v, want an error alone", o, err)
	}
	if o, err := k.Reduce(&corev1.Pod{}); o != nil || err == nil {
		t.Errorf("a Pod: got %v, %v, want an error alone", o, err)
	}
}

func TestWhereAWorkloadStands(t *testing.T) {
	created, at := time.Unix(1_800_000_000, 0), time.Unix(1_800_000_100, 0)
	for name, tt := range map[string]struct {
		said workload.Said
		want workload.Status
	}{
		"it does not say":       {workload.Said{}, workload.Status{}},
		"queued is a way back":  {workload.Said{State: statesync.Queued, Reason: "r", Message: "m"}, workload.Status{State: statesync.Queued, Reason: "r", Message: "m", Back: true}},
		"queued since":          {workload.Said{State: statesync.Queued, Occurred: at}, workload.Status{State: statesync.Queued, Occurred: at, Back: true}},
		"running, no time":      {workload.Said{State: statesync.Running}, workload.Status{State: statesync.Running}},
		"an end, its own words": {workload.Said{State: statesync.Cancelled, Reason: "r", Occurred: at}, workload.Status{State: statesync.Cancelled, Reason: "r", Occurred: at}},
	} {
		k := compile(t, Rules{Queued: "true"})
		if diff := cmp.Diff(tt.want, k.Assess(&workload.Object{Created: created, Said: tt.said})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReasonsAndMessagesAreCut(t *testing.T) {
	k := compile(t, Rules{Running: "true", Reason: "object.a", Message: "object.b"})
	u := object(t, "{"+meta+"}")
	maps.Copy(u.Object, map[string]any{"a": strings.Repeat("é", 128) + "é", "b": "a\xffb" + strings.Repeat("日", 2000)})
	o, err := k.Reduce(u)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("é", 128); o.Said.Reason != want {
		t.Errorf("reason: got %d bytes, want %d", len(o.Said.Reason), len(want))
	}
	if want := "a\uFFFDb" + strings.Repeat("日", 1363); o.Said.Message != want {
		t.Errorf("message: got %d bytes, want %d: %.10q", len(o.Said.Message), len(want), o.Said.Message)
	}
}
