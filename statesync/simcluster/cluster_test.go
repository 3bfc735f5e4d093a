package simcluster

import (
	"fmt"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A model is a cluster without a server.
type model struct {
	*Cluster
	pods *Resource
}

func newModel(history int) *model {
	pods := Pods()
	return &model{New(Options{History: history}, pods), pods}
}

func (m *model) create(t *testing.T, namespace, name string) *Version {
	t.Helper()
	return must(m.Create(m.pods, Version{Namespace: namespace, Name: name, UID: "u"}))(t)
}

func names(all []*Version) string {
	var out []string
	for _, v := range all {
		out = append(out, fmt.Sprintf("%s/%s@%d", v.Namespace, v.Name, v.Number))
	}
	return fmt.Sprint(out)
}

// told is what there is to tell after a version.
func (m *model) told(after int64) string {
	events, version, wake, err := m.Events(m.pods, after, 10)
	if err != nil {
		return fmt.Sprint(statusOf(err).Code)
	}
	text := ""
	for _, e := range events {
		before := "new"
		if e.Before != nil {
			before = fmt.Sprint(e.Before.Number)
		}
		text += fmt.Sprintf("%s %s@%d (%s) ", e.Type, e.Object.Name, e.Object.Number, before)
	}
	if wake != nil {
		text += "wait "
	}
	return text + fmt.Sprint(version)
}

func TestClusterLists(t *testing.T) {
	m := newModel(0)
	for _, n := range []string{"b", "a", "a-b", "c"} {
		m.create(t, n, "y")
		m.create(t, n, "x")
	}
	all, version, err := m.List(m.pods, "")
	if got, want := names(all), "[a/x@5 a/y@4 a-b/x@7 a-b/y@6 b/x@3 b/y@2 c/x@9 c/y@8]"; got != want || version != 9 || err != nil {
		t.Errorf("got %s at %d and %v, want %s at 9", got, version, err, want)
	}
	some, _, _ := m.List(m.pods, "a")
	if got, want := names(some), "[a/x@5 a/y@4]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestClusterTellsOfAResourcesEnd(t *testing.T) {
	m := newModel(0)
	m.create(t, "n", "a")
	m.Remove(m.pods)
	if got, want := m.told(1), "ADDED a@2 (new) DELETED a@3 (2) 3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := m.told(3); got != "404" {
		t.Errorf("got %s, want 404", got)
	}
	m.Add(m.pods)
	if got := m.told(1) + ", " + m.told(3); got != "410, wait 3" {
		t.Errorf("once it is back: got %s, want 410, wait 3", got)
	}
}

func TestClusterWrites(t *testing.T) {
	m := newModel(0)
	v := m.create(t, "n", "a")
	if _, err := m.Create(m.pods, *v); !apierrors.IsAlreadyExists(err) {
		t.Errorf("created again: got %v", err)
	}
	other := *v
	other.UID = "other"
	if _, err := m.Update(m.pods, other, 0); !apierrors.IsConflict(err) {
		t.Errorf("another UID: got %v", err)
	}
	must(m.Update(m.pods, *v, v.Number))(t)
	if _, err := m.Update(m.pods, *v, v.Number); !apierrors.IsConflict(err) {
		t.Errorf("of a version that is past: got %v", err)
	}
	if _, err := m.deleteAt(m.pods, v); !apierrors.IsConflict(err) {
		t.Errorf("deleted as it was: got %v", err)
	}
	must(m.Delete(m.pods, "n", "a", nil))(t)
	if _, err := m.Get(m.pods, "n", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	if got, want := m.told(1), "ADDED a@2 (new) MODIFIED a@3 (2) DELETED a@4 (3) 4"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestClusterForgets(t *testing.T) {
	m := newModel(2)
	for i := range 5 { // 2 to 6; with the fifth, the first two of four go
		m.create(t, "n", fmt.Sprint(i))
	}
	if got, want := m.told(2)+", "+m.told(3), "410, ADDED 2@4 (new) ADDED 3@5 (new) ADDED 4@6 (new) 6"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m.SetBack(3)
	m.create(t, "n", "late")
	if got, want := m.told(2)+", "+m.told(3)+", "+m.told(6), "410, ADDED late@4 (new) 4, wait 4"; got != want {
		t.Errorf("set back: got %s, want %s", got, want)
	}
	m.Compact()
	if got, want := m.told(3)+", "+m.told(4), "410, wait 4"; got != want {
		t.Errorf("compacted: got %s, want %s", got, want)
	}
}

// A view stays as it is while others write.
func TestAViewIsOfItsVersion(t *testing.T) {
	m := newModel(0)
	for i := range 1000 {
		m.create(t, "n", fmt.Sprintf("%04d", i))
	}
	at := m.Now()
	var writers sync.WaitGroup
	defer writers.Wait()
	writers.Go(func() {
		for i := range 1000 {
			_, _ = m.Delete(m.pods, "n", fmt.Sprintf("%04d", i), nil)
			_, _ = m.Create(m.pods, Version{Namespace: "n", Name: fmt.Sprintf("x%04d", i)})
		}
	})
	for range 20 {
		seen := must(m.view(m.pods, at))(t)
		n := 0
		seen.each("", "", func(v *Version) bool {
			if v.Number > at {
				t.Errorf("got %s of %d, want none after %d", v.Name, v.Number, at)
			}
			n++
			return true
		})
		if n != 1000 {
			t.Errorf("got %d objects, want 1000", n)
		}
	}
}
