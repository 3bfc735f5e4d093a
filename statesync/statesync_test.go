package statesync

import (
	"errors"
	"fmt"
	"regexp"
	"testing"
)

// idOf is what a ChangeID is made of.
type idOf struct {
	cluster         string
	epoch           int64
	uid, resource   string
	resourceVersion uint64
	owner           uint64
	to              State
}

func (i idOf) id() string {
	return ChangeID(i.cluster, i.epoch, i.uid, i.resource, i.resourceVersion, i.owner, i.to)
}

// TestChangeIDIsStable holds IDs to what releases before have sent: receivers
// compare them over an upgrade of the agent.
func TestChangeIDIsStable(t *testing.T) {
	for name, tt := range map[string]struct {
		of   idOf
		want string
	}{
		"a start":     {idOf{"c", 1, "u", "pods", 7, 0, Running}, "2c6ace2d96a073fc32fd90a431a6bfdd"},
		"an end":      {idOf{"c", 1, "u", "pods", 7, 0, Failed}, "b8f9f7c9c6b9e94489d5a5815480fc96"},
		"a departure": {idOf{"c", 1, "u", "pods", 7, 0, Untracked}, "99b6e27e27d3b6c229273b477ec7e51f"},
	} {
		if got := tt.of.id(); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestChangeIDIs128BitsOfHex(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{32}$`)
	for _, to := range []State{"", Queued, Running, Succeeded, Failed, Cancelled, Deleted, Untracked} {
		if id := (idOf{to: to}).id(); !form.MatchString(id) {
			t.Errorf("ID of state %q is %q, want 32 hexadecimal digits", to, id)
		}
	}
}

func TestChangeIDDiffersByEachInput(t *testing.T) {
	base := idOf{"cluster", 1, "uid", "pods", 7, 3, Running}
	seen := map[string]string{base.id(): "nothing changed"}
	for name, edit := range map[string]func(*idOf){
		"another cluster":         func(i *idOf) { i.cluster = "cluster2" },
		"another epoch":           func(i *idOf) { i.epoch = 2 },
		"another UID":             func(i *idOf) { i.uid = "uid2" },
		"another resource":        func(i *idOf) { i.resource = "jobs" },
		"another version":         func(i *idOf) { i.resourceVersion = 8 },
		"a large version":         func(i *idOf) { i.resourceVersion = 7 << 56 },
		"another owner's version": func(i *idOf) { i.owner = 4 },
		"versions swapped":        func(i *idOf) { i.owner, i.resourceVersion = i.resourceVersion, i.owner },
		"another state":           func(i *idOf) { i.to = Queued },
		"an end":                  func(i *idOf) { i.to = Failed },
		"a departure":             func(i *idOf) { i.to = Untracked },
	} {
		other := base
		edit(&other)
		if same, dup := seen[other.id()]; dup {
			t.Errorf("%s has the ID of: %s", name, same)
		}
		seen[other.id()] = name
	}
}

// TestChangeIDOfAnEnd: an end that cannot be taken back is the same change
// whoever saw it, and however; a departure is not, it may happen again.
func TestChangeIDOfAnEnd(t *testing.T) {
	want := idOf{"c", 1, "u", "pods", 7, 0, Succeeded}.id()
	for _, of := range []idOf{
		{"c", 1, "u", "pods", 8, 0, Succeeded},
		{"c", 1, "u", "jobs", 7, 0, Succeeded},
		{"c", 1, "u", "", 0, 9, Succeeded},
		{"c", 1, "u", "pods", 7, 0, Failed},
		{"c", 1, "u", "pods", 7, 0, Cancelled},
		{"c", 1, "u", "audit", 0, 0, Deleted},
	} {
		if got := of.id(); got != want {
			t.Errorf("%+v: %s, want %s, the ID of the same end seen otherwise", of, got, want)
		}
	}
	for _, of := range []idOf{
		{"c", 2, "u", "pods", 7, 0, Succeeded},
		{"d", 1, "u", "pods", 7, 0, Succeeded},
		{"c", 1, "v", "pods", 7, 0, Succeeded},
		{"c", 1, "u", "pods", 7, 0, Untracked},
		{"c", 1, "u", "pods", 7, 0, Running},
	} {
		if of.id() == want {
			t.Errorf("%+v has the ID of another end", of)
		}
	}
	first, again := idOf{"c", 1, "u", "pods", 7, 0, Untracked}, idOf{"c", 1, "u", "pods", 9, 0, Untracked}
	if first.id() == again.id() {
		t.Error("two departures of one workload have one ID")
	}
}

// TestChangeIDFieldsCannotRunTogether moves bytes over each border between
// two fields.
func TestChangeIDFieldsCannotRunTogether(t *testing.T) {
	for name, pair := range map[string][2]idOf{
		"cluster and UID":         {{"ab", 1, "c", "r", 1, 1, Running}, {"a", 1, "bc", "r", 1, 1, Running}},
		"UID and resource":        {{"c", 1, "ab", "c", 1, 1, Running}, {"c", 1, "a", "bc", 1, 1, Running}},
		"an empty UID":            {{"c", 1, "", "u", 1, 1, Running}, {"c", 1, "u", "", 1, 1, Running}},
		"a UID that ends in end":  {{"c", 1, "uend", "", 0, 0, Failed}, {"c", 1, "u", "end", 0, 0, Failed}},
		"a resource named end":    {{"c", 1, "u", "end", 0, 0, Running}, {"c", 1, "u", "end", 0, 0, Failed}},
		"a length within a field": {{"c\x00\x00\x00\x01", 1, "u", "r", 1, 1, Running}, {"c", 1, "\x00\x00\x00\x01u", "r", 1, 1, Running}},
	} {
		if pair[0].id() == pair[1].id() {
			t.Errorf("%s: %+v and %+v have one ID", name, pair[0], pair[1])
		}
	}
}

func TestEnded(t *testing.T) {
	for s, want := range map[State]bool{
		"": false, Queued: false, Running: false,
		Succeeded: true, Failed: true, Cancelled: true, Deleted: true, Untracked: true,
	} {
		if got := s.Ended(); got != want {
			t.Errorf("%q: ended %t, want %t", s, got, want)
		}
	}
}

func TestKeyIsSharedByTheLivesOfAName(t *testing.T) {
	a := Ref{Kind: "Job", Namespace: "ns", Name: "x", UID: "1", Labels: map[string]string{"a": "b"}}
	b := Ref{Kind: "Job", Namespace: "ns", Name: "x", UID: "2"}
	if a.Key() != b.Key() {
		t.Errorf("%v and %v: two lives of one name must keep their order, so share a key", a.Key(), b.Key())
	}
	if got := a.Key().String(); got != "ns/Job/x" {
		t.Errorf("key %s, want ns/Job/x", got)
	}
	for _, other := range []Ref{{Kind: "Pod", Namespace: "ns", Name: "x"}, {Kind: "Job", Namespace: "ms", Name: "x"}, {Kind: "Job", Namespace: "ns", Name: "y"}} {
		if other.Key() == a.Key() {
			t.Errorf("%+v shares the key %v", other, a.Key())
		}
	}
}

func TestSinkErrorIsFoundThroughWrapping(t *testing.T) {
	cause := errors.New("connection refused")
	err := fmt.Errorf("deliver: %w", &SinkError{Cause: "network", Err: cause})
	var s *SinkError
	if !errors.As(err, &s) || s.Cause != "network" {
		t.Errorf("no SinkError in %v", err)
	}
	if !errors.Is(err, cause) || err.Error() != "deliver: connection refused" {
		t.Errorf("error %v does not say its cause", err)
	}
}

func TestStageDescIsOneForAll(t *testing.T) {
	if d := StageDesc(); d.Budget == 0 || len(d.Tags) != 2 {
		t.Errorf("%+v, want the tags stage and sink, and a budget", d)
	}
}
