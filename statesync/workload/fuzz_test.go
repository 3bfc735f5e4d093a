package workload

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// FuzzRules: any object that an API server could send is told of without a
// panic, and the same whether it was trimmed, or kept in the log, or not.
func FuzzRules(f *testing.F) {
	files, err := filepath.Glob("testdata/recorded/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var r recording
		if err := json.Unmarshal(data, &r); err != nil {
			f.Fatal(err)
		}
		for _, e := range r.Events {
			f.Add([]byte(e.Object), uint8(0))
		}
	}
	names := slices.Sorted(maps.Keys(Kinds))
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		var meta struct {
			Kind string `json:"kind"`
		}
		_ = json.Unmarshal(data, &meta) // one that has no kind gets one
		k, known := Kinds[meta.Kind]
		if !known {
			k = Kinds[names[int(n)%len(names)]]
		}
		obj := k.Object()
		if json.Unmarshal(data, obj) != nil {
			return
		}
		o, err := k.Reduce(obj)
		if err != nil {
			return // a resourceVersion that is no number
		}
		k.Trimmer(obj)
		if trimmed, err := k.Reduce(obj); err != nil || !cmp.Equal(o, trimmed) {
			t.Fatalf("trimmed: %v\n%s", err, cmp.Diff(o, trimmed))
		}
		now := k.Assess(o)
		kept, err := json.Marshal(o)
		if err != nil {
			return // a time that JSON has no words for
		}
		var logged Object
		if err := json.Unmarshal(kept, &logged); err != nil {
			t.Fatal(err)
		}
		if got := k.Assess(&logged); !cmp.Equal(now, got) {
			t.Fatalf("from the log:\n%s", cmp.Diff(now, got))
		}
		told(t, k, o, now)
	})
}

// told checks what must hold of any object that stands there.
func told(t *testing.T, k Kind, o *Object, now Status) {
	t.Helper()
	if end := k.Removed(o); !end.State.Ended() {
		t.Errorf("removed, it is %s, want an end", end.State)
	}
	if now.State == statesync.Deleted || now.State == "" {
		t.Errorf("an object that is there is %q", now.State)
	}
	if got := k.Explain(now, []*Object{o, o}); got.State != now.State || got.Reason != now.Reason {
		t.Errorf("explained, it is %s %s, want %s %s", got.State, got.Reason, now.State, now.Reason)
	}
	last := statesync.State("")
	for _, s := range Steps(Before{}, now, o) {
		if last == "" && s.State != statesync.Queued {
			t.Errorf("a story begins with %s", s.State)
		}
		if last.Ended() || last == s.State {
			t.Errorf("%s follows %s", s.State, last)
		}
		last = s.State
	}
	if last != now.State {
		t.Errorf("the story leads to %s, want %s", last, now.State)
	}
	PodRuns(Before{State: statesync.Queued}, o)
	Settled(o)
	if o.Counted() < 0 && o.Pods.Active >= 0 && o.Pods.Terminating >= 0 && o.Pods.Succeeded >= 0 && o.Pods.Failed >= 0 {
		t.Errorf("%+v count %d", o.Pods, o.Counted())
	}
}
