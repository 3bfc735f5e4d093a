package inspect

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger"
)

// TestNothingIsWrittenBesideALedgerThatNobodyHasOpen looks at ledgers in
// folders that may not be written to, and compares every file's time.
func TestNothingIsWrittenBesideALedgerThatNobodyHasOpen(t *testing.T) {
	for name, suffixes := range map[string][]string{
		"stopped":          {""},
		"copied with WAL":  {"", "-wal"},
		"killed":           {"", "-wal", "-shm"},
		"with a ?# in its": {""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, folder := t.TempDir(), filepath.Join(t.TempDir(), name+" ?mode=rw#x%41")
			w := write(t, dir)
			w.small()
			if len(suffixes) == 1 {
				w.stop()
			}
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, s := range suffixes {
				copyFile(t, w.path()+s, filepath.Join(folder, ledger.File+s))
			}
			if err := os.Chmod(folder, 0o500); err != nil {
				t.Fatal(err)
			}
			before := files(t, folder)
			f, err := Open(filepath.Join(folder, ledger.File))
			if err != nil {
				t.Fatal(err)
			}
			if got := list(t, f, Query{}); len(got) != smallHead {
				t.Errorf("%d changes, want %d", len(got), smallHead)
			}
			if r := verify(t, f); !r.Holds() {
				t.Errorf("found %v", found(r))
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			after := files(t, folder)
			delete(before, ledger.File+"-shm") // the index of the WAL is made anew when nobody has it
			delete(after, ledger.File+"-shm")
			if len(suffixes) < 3 {
				if entries := files(t, folder); len(entries) != len(suffixes) {
					t.Errorf("files %v, want %d", entries, len(suffixes))
				}
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the folder has changed (-before +after)\n%s", diff)
			}
		})
	}
}

func TestALiveLedgerIsReadAsItGrows(t *testing.T) {
	w := write(t, t.TempDir())
	f := look(t, w.path())
	for n := 1; n < 4; n++ {
		w.append(w.change(fmt.Sprint(n), statesync.Queued))
		if got := list(t, f, Query{}); len(got) != n {
			t.Errorf("%d changes, want %d", len(got), n)
		}
	}
	if err := f.page(t.Context(), func() error { return f.each("DELETE FROM changes", nil, nil) }); err == nil {
		t.Error("the ledger could be written")
	}
}

// TestAnAgentThatStartsIsNoticed: what is read without locks would be wrong.
func TestAnAgentThatStartsIsNoticed(t *testing.T) {
	path := stopped(t)
	f := look(t, path)
	w := write(t, filepath.Dir(path))
	if err := f.Ls(t.Context(), Query{}, func(Row) error { return nil }); err == nil || !strings.Contains(err.Error(), "opened it meanwhile") {
		t.Errorf("error %v, want one that tells of the agent", err)
	}
	w.stop()
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other, future := filepath.Join(dir, "other.db"), stopped(t)
	copyFile(t, future, other)
	alter(t, other, "DROP TABLE changes")
	alter(t, future, "UPDATE meta SET value = '5' WHERE key = 'format'")
	for name, tt := range map[string]struct{ path, want string }{
		"not there":         {filepath.Join(dir, "none.db"), "got no such file, want the path of a ledger"},
		"a folder":          {dir, "got a directory or a device, want the file of a ledger"},
		"empty":             {file("empty.db", ""), "got an empty file, want a ledger"},
		"text":              {file("text.db", strings.Repeat("service: here\n", 100)), "got a file that is no SQLite database, want a ledger"},
		"another database":  {other, "got a database without the tables of a ledger, want a ledger"},
		"of another format": {future, `got format "5", want 4: it was written by another version of outrider`},
	} {
		f, err := Open(tt.path)
		if err == nil {
			_ = f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "open ledger "+tt.path+": ") {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

func TestLsSelects(t *testing.T) {
	f := look(t, stopped(t))
	for name, tt := range map[string]struct {
		q    Query
		want []int64
	}{
		"all":                     {Query{}, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
		"the last":                {Query{Last: 2}, []int64{10, 11}},
		"more than there are":     {Query{Last: 99}, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
		"after a number":          {Query{After: 9}, []int64{10, 11}},
		"the last after a number": {Query{After: 5, Last: 1}, []int64{11}},
		"after the head":          {Query{After: 99}, nil},
		"a life":                  {Query{UID: "a"}, []int64{1, 2, 4}},
		"a workload":              {Query{Workload: &statesync.Key{Kind: "Pod", Namespace: "load", Name: "pod-b"}}, []int64{3, 7}},
		"the last of a life":      {Query{UID: "c", Last: 2}, []int64{9, 10}},
		"gaps":                    {Query{Gaps: true}, []int64{6, 11}},
		"gaps after a number":     {Query{Gaps: true, After: 6, Last: 5}, []int64{11}},
	} {
		var got []int64
		for _, r := range list(t, f, tt.q) {
			got = append(got, r.Number)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	for _, q := range []Query{{UID: "z"}, {Workload: &statesync.Key{Kind: "Job", Namespace: "load", Name: "pod-b"}}} {
		if err := f.Ls(t.Context(), q, func(Row) error { return nil }); !errors.Is(err, ErrNoWorkload) {
			t.Errorf("%+v: %v, want ErrNoWorkload", q, err)
		}
	}
	stop := errors.New("enough")
	if err := f.Ls(t.Context(), Query{}, func(Row) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v, want the error of yield", err)
	}
}

// TestLsReadsOverPages wants the same from a ledger of several pages.
func TestLsReadsOverPages(t *testing.T) {
	w := write(t, t.TempDir())
	const n = 2*pageRows + 7
	w.many(n)
	f := look(t, w.path())
	for q, want := range map[Query]int{{}: n, {Last: pageRows + 1}: pageRows + 1, {After: 3}: n - 3, {UID: "b", Last: 2 * pageRows}: 2 * pageRows} {
		got := list(t, f, q)
		if len(got) != want || got[len(got)-1].Number != n || got[0].Number != int64(n-want+1) {
			t.Errorf("%+v: %d changes from %d, want %d from %d", q, len(got), got[0].Number, want, n-want+1)
		}
	}
}

func TestLinesOfChanges(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 1e6, time.UTC)
	pod := statesync.Ref{Kind: "Pod", Namespace: "load", Name: "a"}
	for want, r := range map[string]Row{
		"1 2026-11-22T12:00:00.001Z load/Pod/a >Queued":                                   {Number: 1, Recorded: at, Change: statesync.Change{Workload: pod, To: "Queued"}},
		"2 2026-11-22T12:00:00.001Z load/Pod/a Queued>Failed(O_[31mM) late reconstructed": {Number: 2, Recorded: at, Change: statesync.Change{Workload: pod, From: "Queued", To: "Failed", Reason: "O\x1b[31mM", ObservedLate: true, Reconstructed: true}},
		"3 2026-11-22T12:00:00.001Z stream pods gap(Expired) rv 5..9, 1m30s":              {Number: 3, Recorded: at, Change: statesync.Change{Workload: statesync.StreamRef("pods"), Gap: &statesync.Gap{Stream: "pods", Reason: "Expired", FromRV: 5, ToRV: 9, From: at, To: at.Add(90 * time.Second)}}},
	} {
		if got := r.Line(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestStatSumsUp(t *testing.T) {
	path := stopped(t)
	alter(t, path, `INSERT INTO losses VALUES(3, 4, 1763812800000000000, 'a page that cannot be read'); DELETE FROM changes WHERE n <= 4;
		INSERT INTO meta VALUES('rescued_at', '2026-11-22T12:00:00Z'), ('rescued', 'from ledger.db.damaged-1: 7 changes')`)
	s, err := look(t, path).Stat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.FileBytes == 0 || s.Changes.Bytes == 0 {
		t.Errorf("file of %d bytes, changes of %d bytes", s.FileBytes, s.Changes.Bytes)
	}
	want := &Stat{
		Path: path, Format: 4, Cluster: cluster, Epoch: 1, Head: 11,
		Changes:   ChangeStat{Kept: 7, First: 5, Last: 11, Bytes: s.Changes.Bytes},
		Workloads: WorkloadStat{ByState: map[statesync.State]int64{"Queued": 2, "Running": 1, "Succeeded": 1}, Live: 3, Gone: 1},
		Streams: []StreamStat{
			{Name: "jobs", Definition: "all", Version: 250, At: began},
			{Name: "pods", Definition: "all", Version: 250, At: began, Objects: 2, Unread: 1},
		},
		Sinks:     []SinkStat{{Name: "archive", Cursor: 10, Behind: 1}},
		Losses:    []LossStat{{First: 3, Last: 4, At: time.Unix(0, 1763812800000000000).UTC(), Cause: "a page that cannot be read"}},
		Rescue:    &RescueStat{At: "2026-11-22T12:00:00Z", Note: "from ledger.db.damaged-1: 7 changes"},
		FileBytes: s.FileBytes, FreeBytes: s.FreeBytes,
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestStatTextFits80Columns(t *testing.T) {
	long := strings.Repeat("a-long-name/", 12)
	s := &Stat{
		Path: "/var/lib/" + long + "ledger.db", Format: 4, Cluster: "sha256:" + strings.Repeat("0", 64), Epoch: 1 << 20, Head: 1 << 50,
		Changes:   ChangeStat{Kept: 1 << 40, First: 1 << 40, Last: 1 << 41, Bytes: 1 << 35},
		Workloads: WorkloadStat{ByState: map[statesync.State]int64{}, Live: 1 << 32, Ended: 1 << 32, Gone: 1 << 32},
		Streams:   []StreamStat{{Name: long, Version: 1 << 44, At: began, Objects: 1 << 30, Unread: 3, Lost: long}},
		Sinks:     []SinkStat{{Name: long, Since: 1 << 44, Cursor: 1 << 44, Behind: 1 << 44, Aside: 1 << 40, Letters: 1 << 40, Detached: "full"}},
		Losses:    []LossStat{{First: 1 << 40, Last: 1 << 41, At: began, Cause: strings.Repeat("some words ", 20)}},
		Rescue:    &RescueStat{At: "2026-11-22T12:00:00Z", Note: strings.Repeat("some words ", 20)},
		FileBytes: 1 << 50, FreeBytes: 1 << 40, WALBytes: 1 << 30,
	}
	for _, state := range []statesync.State{"", "Queued", "Running", "Succeeded", "Failed", "Cancelled", "Deleted", "Untracked"} {
		s.Workloads.ByState[state] = 1 << 40
	}
	var b strings.Builder
	if err := s.WriteText(&b, began.Add(300*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimSuffix(line, "\n"); len(line) > 80 || strings.TrimRight(line, " ") != line {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
	for _, want := range []string{"Untracked 1099511627776", "300h0m0s", "lost: ", "rescued: 2026", "3 of the objects", "1099511627776 put aside", "detached: full"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
