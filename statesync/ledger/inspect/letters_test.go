package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// buried writes the small ledger with two dead letters of the sink archive, of
// which it has put the last change aside, and a sink that is detached.
func buried(t *testing.T) *writer {
	t.Helper()
	w := write(t, t.TempDir())
	w.small()
	if _, err := w.l.Cursor("gone"); err != nil {
		t.Fatal(err)
	}
	changed := w.change("b", statesync.Failed)
	w.append(changed)
	long := changed.Changes[0]
	long.Number, long.Workload.Name = 12, strings.Repeat("long-", 40)
	start := w.change("c", statesync.Running).Changes[0]
	at := time.Date(2026, 11, 22, 15, 4, 5, 0, time.UTC)
	put, err := w.l.Read(t.Context(), statesync.ReadQuery{Sink: "archive", After: 11, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []statesync.Progress{
		{Sink: "archive", Acked: 12, PutAside: put, Letters: []statesync.DeadLetter{
			{Delivery: statesync.Delivery{Change: long, PreviousSeq: 1, Skipped: []statesync.Skip{{From: 2, To: 2, Cause: statesync.SkipFilter}}}, Tries: 4, First: at, Last: at.Add(time.Minute), Error: "status 422, want 2xx: " + strings.Repeat("no such\x1b[2Jproject ", 20)},
			{Delivery: statesync.Delivery{Change: start, Initial: true}, Tries: 1, First: at, Last: at, Error: "status 400"},
		}},
		{Sink: "gone", Acked: 11, Detach: statesync.DetachedGone},
	} {
		saved := make(chan struct{})
		p.Saved = func() { close(saved) }
		w.l.Save(p)
		<-saved
	}
	return w
}

func TestLetters(t *testing.T) {
	f := look(t, buried(t).path())
	got, all, err := f.Letters(t.Context(), LetterQuery{})
	if err != nil || all != 2 || len(got) != 2 {
		t.Fatalf("%d of %d, error %v, want 2", len(got), all, err)
	}
	if l := got[0]; l.Letter != 1 || l.Number != 12 || l.Previous != 1 || l.Tries != 4 || l.Change.To != statesync.Failed || len(l.Skipped) != 1 {
		t.Errorf("got %+v", l)
	}
	text := got[0].Text() + got[1].Text()
	const want = `1 archive load/Pod/long-long-long-long-long...ng-long-long-long-long-long-long- seq 3 Running>Failed
    4 tries, last 2026-11-22 15:05:05Z: status 422, want 2xx: no such_[2Jproject no such_[2Jproje...
2 archive load/Pod/pod-c seq 4 initial Running
    1 try, last 2026-11-22 15:04:05Z: status 400
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(line) - 1; n > wide {
			t.Errorf("%d columns, want %d: %s", n, wide, line)
		}
	}
	key := statesync.Key{Namespace: "load", Kind: "Pod", Name: "pod-c"}
	for name, tt := range map[string]struct {
		q    LetterQuery
		want int64 // the first one listed; 0: none is
		all  int64
	}{
		"the last":    {LetterQuery{Last: 1}, 2, 2},
		"a sink":      {LetterQuery{Sink: "archive"}, 1, 2},
		"another":     {LetterQuery{Sink: "gone"}, 0, 0},
		"a workload":  {LetterQuery{Workload: &key}, 2, 1},
		"a life":      {LetterQuery{UID: "b"}, 1, 1},
		"of nobody's": {LetterQuery{UID: "x"}, 0, 0},
	} {
		got, all, err := f.Letters(t.Context(), tt.q)
		first := int64(0)
		if len(got) > 0 {
			first = got[0].Letter
		}
		if err != nil || first != tt.want || all != tt.all {
			t.Errorf("%s: the first of %d is %d (%v), want %d of %d", name, all, first, err, tt.want, tt.all)
		}
	}
	if _, _, err := f.Letters(t.Context(), LetterQuery{Sink: "none"}); !errors.Is(err, ErrNoSink) || !strings.Contains(err.Error(), "got none, want one of archive, gone") {
		t.Errorf("a sink that is not there: %v", err)
	}
}

func TestSinks(t *testing.T) {
	sinks, err := look(t, buried(t).path()).Sinks(t.Context())
	if err != nil || len(sinks) != 2 {
		t.Fatalf("got %+v, error %v", sinks, err)
	}
	at := time.Date(2026, 11, 22, 15, 4, 5, 0, time.UTC)
	if sinks[1].DetachedAt == nil || sinks[1].DetachedAt.IsZero() {
		t.Errorf("got %+v, want when it was detached", sinks[1])
	}
	sinks[1].DetachedAt = &at
	Configure(sinks, []string{"archive", "new"})
	yes, no := true, false
	want := []SinkState{
		{Name: "archive", Acked: 12, Waiting: 1, Aside: 1, Letters: 2, Configured: &yes},
		{Name: "gone", Acked: 11, Detached: "gone", DetachedAt: &at, Configured: &no},
	}
	// A new sink is told where the three live workloads stand.
	want[1].Aside = sinks[1].Aside
	if diff := cmp.Diff(want, sinks); diff != "" || sinks[1].Aside == 0 {
		t.Errorf("sinks (-want +got):\n%s", diff)
	}
	var b bytes.Buffer
	if err := WriteSinks(&b, sinks[:1]); err != nil {
		t.Fatal(err)
	}
	sinks[0].Configured = nil
	if err := WriteSinks(&b, sinks); err != nil {
		t.Fatal(err)
	}
	const text = `sink                                      acked        waiting      aside dead letters  configured
archive                                      12              1          1            2  yes
sink                                      acked        waiting      aside dead letters  configured
archive                                      12              1          1            2  -
gone                                         11              0          3            0  no
  detached since 2026-11-22 15:04:05Z: the receiver answered 410: it wants nothing any more
  it comes back with a gap: outrider ledger attach gone
  its cursor is kept in case it comes back; if it will not: outrider ledger forget gone
`
	if diff := cmp.Diff(text, b.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

func TestActionsList(t *testing.T) {
	url := serve(t, buried(t).path())
	for query, want := range map[string]struct {
		status int
		says   []string
	}{
		"sinks":                             {200, []string{"archive  ", "detached since"}},
		"sinks?json=true":                   {200, []string{`"name":"archive","acked":12,"waiting":1`}},
		"deadletters":                       {200, []string{"1 archive load/Pod/long", "status 400"}},
		"deadletters?last=1":                {200, []string{"the last 1 of 2; all: --last 0"}},
		"deadletters?sink=gone":             {200, []string{"no dead letters"}},
		"deadletters?uid=b&json=true":       {200, []string{`{"all":1,"letters":[{"letter":1,"sink":"archive"`}},
		"deadletters?sink=x":                {422, []string{"no such sink in the ledger: got x, want one of archive, gone"}},
		"deadletters?workload=x":            {400, []string{"want NAMESPACE/KIND/NAME"}},
		"deadletters?workload=load/Pod/any": {200, []string{"no dead letters"}},
		"deadletters?last=x":                {400, []string{`last: got "x"`}},
	} {
		status, body := get(t, url+"/ledger/"+query)
		if status != want.status {
			t.Errorf("%s: status %d, want %d: %s", query, status, want.status, body)
		}
		for _, s := range want.says {
			if !strings.Contains(body, s) {
				t.Errorf("%s: no %q in\n%s", query, s, body)
			}
		}
	}
	_, body := get(t, url+"/ledger/deadletters?json=true&uid=b")
	var list LetterList
	if err := json.Unmarshal([]byte(body), &list); err != nil || list.Letters[0].Change.ID == "" || list.Letters[0].Seq != 3 {
		t.Errorf("error %v, read back %+v, want the change with its ID", err, list)
	}
}
