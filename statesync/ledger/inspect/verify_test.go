package inspect

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// found returns what each check has found, by name.
func found(r *Report) map[string]int64 {
	out := map[string]int64{}
	for _, c := range r.Checks {
		if c.Found > 0 {
			out[c.Name] = c.Found
		}
		if c.Skipped != "" {
			out[c.Name+" skipped"] = 1
		}
	}
	return out
}

func TestALedgerThatIsWellHolds(t *testing.T) {
	for name, script := range map[string]string{
		"as written":                           "",
		"its first changes pruned":             "DELETE FROM changes WHERE n <= 3",
		"all pruned":                           "DELETE FROM changes",
		"a tombstone pruned":                   "DELETE FROM changes WHERE n <= 4; DELETE FROM workloads WHERE uid = 'a'",
		"all pruned but what is parked":        "INSERT INTO meta VALUES('pruned', '8'); DELETE FROM changes WHERE n IN (1, 3, 4, 5, 6, 8); " + parked("archive", 2, "a") + parked("archive", 7, "b"),
		"a parked change of a sink let go":     parked("archive", 99, "a") + "UPDATE cursors SET acked = 99; UPDATE sqlite_sequence SET seq = 99 WHERE name = 'changes'; DELETE FROM changes; INSERT INTO meta VALUES('pruned', '99')",
		"a loss that is told":                  "DELETE FROM changes WHERE n IN (4, 5, 6, 7); INSERT INTO losses VALUES(4, 5, 1, 'damage'), (6, 7, 1, 'damage')",
		"the end of the ledger lost":           "DELETE FROM changes WHERE n = 11; INSERT INTO losses VALUES(11, 11, 1, 'damage')",
		"a workload that nothing was told of":  "INSERT INTO workloads SELECT 99, 'x', kind, namespace, 'x', labels, stream, '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM workloads WHERE uid = 'b'",
		"an end taken back by a higher epoch":  follow("'Succeeded'", "'Running'", 2),
		"an end in a ledger without a cluster": "DELETE FROM meta WHERE key = 'cluster'",
	} {
		t.Run(name, func(t *testing.T) {
			path := stopped(t)
			alter(t, path, script)
			if diff := cmp.Diff(map[string]int64{}, found(verify(t, look(t, path)))); diff != "" {
				t.Errorf("findings (-want +got)\n%s", diff)
			}
		})
	}
}

// parked puts a change aside for a sink.
func parked(sink string, n int64, uid string) string {
	return fmt.Sprintf("INSERT INTO aside(sink, lane, n, what, uid, cause, first, seq, previous, skipped, body) VALUES('%s', 'load/Pod/pod-%s', %d, 'parked', '%s', '', 1, 1, 0, '', '');", sink, uid, n, uid)
}

// follow is a fourth change of the pod a, which has ended.
func follow(from, to string, epoch int) string {
	return strings.NewReplacer("FROM_", from, "TO_", to, "EPOCH_", string(rune('0'+epoch))).Replace(`
		INSERT INTO changes SELECT 12, workload, 4, 4, recorded, json_set(body, '$.seq', 4, '$.from', FROM_, '$.to', TO_, '$.id', 'x', '$.epoch', EPOCH_)
			FROM changes WHERE n = 4;
		UPDATE workloads SET seq = 4, last = 12, state = TO_, epoch = EPOCH_ WHERE uid = 'a';`)
}

// kept puts the body of change 3 aside, altered.
func kept(what, body string) string {
	return "INSERT INTO aside(sink, lane, n, what, uid, cause, first, seq, previous, skipped, body) SELECT 'archive', 'l', 0, '" + what + "', 'b', '', 1, 1, 0, '', " +
		body + " FROM changes WHERE n = 3"
}

// TestWhatIsBrokenIsFound breaks one thing each and wants to hear of that
// alone.
func TestWhatIsBrokenIsFound(t *testing.T) {
	set := func(path, value, n string) string {
		return "UPDATE changes SET body = json_set(body, '$." + path + "', " + value + ") WHERE n = " + n
	}
	for name, tt := range map[string]struct {
		script string
		want   map[string]int64
		says   string
	}{
		"an index that lacks rows": {
			"PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE INDEX tombstones ON workloads(gone)' WHERE name = 'tombstones'",
			map[string]int64{checkIntegrity: 5},
			"missing from index tombstones",
		},
		"a number that is not there": {
			"DELETE FROM changes WHERE n = 5",
			map[string]int64{checkNumbers: 1, checkPruned: 1},
			"change 5: got no change 5..5, want numbers without holes",
		},
		"a head above the last change": {
			"UPDATE sqlite_sequence SET seq = 14", map[string]int64{checkNumbers: 1}, "got no change 12..14",
		},
		"a loss that explains only a part": {
			"DELETE FROM changes WHERE n IN (5, 6); INSERT INTO losses VALUES(6, 6, 1, 'x')",
			map[string]int64{checkNumbers: 1, checkPruned: 1},
			"got no change 5..5",
		},
		"a hole within a life": {
			"DELETE FROM changes WHERE n = 2",
			map[string]int64{checkNumbers: 1, checkSequence: 1, checkPrevious: 1, checkFrom: 1},
			"change 4, a: got seq 3, want 2",
		},
		"a body that is no JSON": {
			"UPDATE changes SET body = '{' WHERE n = 3", map[string]int64{checkBodies: 1}, "change 3, b: got JSON that cannot be read",
		},
		"another seq in the body": {set("seq", "7", "3"), map[string]int64{checkBodies: 1}, "got seq 7 in the body, want 1 as in the row"},
		"another UID in the body": {set("workload.uid", "'z'", "3"), map[string]int64{checkBodies: 1}, "got load/Pod/pod-b z in the body, want load/Pod/pod-b b"},
		"a change of another cluster": {
			set("cluster", "'z'", "3"), map[string]int64{checkBodies: 1}, "got cluster z",
		},
		"a change without an epoch": {
			set("epoch", "0", "3"), map[string]int64{checkBodies: 1}, "got epoch 0",
		},
		"a seq left out": {
			"UPDATE changes SET seq = 4, body = json_set(body, '$.seq', 4) WHERE n = 7; UPDATE workloads SET seq = 4 WHERE uid = 'b'",
			map[string]int64{checkSequence: 1},
			"change 7, b: got seq 4, want 2",
		},
		"a first seq of 0": {
			"UPDATE changes SET seq = 0, body = json_set(body, '$.seq', 0) WHERE n = 5; UPDATE workloads SET seq = 0 WHERE uid = 's'",
			map[string]int64{checkSequence: 1},
			"change 5, s: got seq 0, want 1 or more",
		},
		"a link to another's change": {"UPDATE changes SET previous = 5 WHERE n = 7", map[string]int64{checkPrevious: 1}, "change 7, b: got change 5 before it, want 3"},
		"a first change with a link": {"UPDATE changes SET previous = 2 WHERE n = 3", map[string]int64{checkPrevious: 1}, "got change 2 before seq 1, want none"},
		"a link to nothing above seq 1": {
			"DELETE FROM changes WHERE n <= 3; UPDATE changes SET previous = 0 WHERE n = 7", map[string]int64{checkPrevious: 1}, "got no change before seq 2",
		},
		"a link past what was pruned": {
			"DELETE FROM changes WHERE n <= 3; UPDATE changes SET previous = 5 WHERE n = 7", map[string]int64{checkPrevious: 1}, "change 7, b: got change 5 before it, which is none of this UID's",
		},
		"from another state":          {set("from", "'Failed'", "7"), map[string]int64{checkFrom: 1}, "got from Failed, want Queued, as change 3 left it"},
		"a first change from a state": {set("from", "'Queued'", "5"), map[string]int64{checkFrom: 1}, `got from Queued at seq 1, want ""`},
		"a change after an end":       {follow("'Succeeded'", "'Running'", 1), map[string]int64{checkEnds: 1}, "change 12, a: got Running after Succeeded of change 4, want nothing after an end"},
		"an epoch that falls": {
			set("epoch", "3", "3"), map[string]int64{checkEpochs: 1}, "change 7, b: got epoch 1, want at least 3, as change 3",
		},
		"an ID given twice": {
			"UPDATE changes SET body = json_set(body, '$.id', (SELECT json_extract(body, '$.id') FROM changes WHERE n = 3)) WHERE n = 5",
			map[string]int64{checkIDs: 1},
			"change 5, s: got ID",
		},
		"a short ID given twice": {set("id", "'x'", "3") + ";" + set("id", "'x'", "5"), map[string]int64{checkIDs: 1}, "got ID x of change 3, want an ID of its own"},
		"no ID":                  {set("id", "''", "3"), map[string]int64{checkIDs: 1}, "change 3, b: got no ID"},
		"an end with another's ID": {
			set("id", "'00112233445566778899aabbccddeeff'", "4"),
			map[string]int64{checkIDs: 1},
			"change 4, a: got ID 00112233445566778899aabbccddeeff, want " + statesync.ChangeID(cluster, 1, "a", "", 0, 0, statesync.Deleted),
		},
		"a gap of a pod":               {set("gap", "json('{\"stream\":\"pods\"}')", "5"), map[string]int64{checkGaps: 1}, "change 5, s: got a gap of a Pod"},
		"a stream's change without":    {"UPDATE changes SET body = json_remove(body, '$.gap') WHERE n = 6", map[string]int64{checkGaps: 1}, "change 6, stream/pods: got a change of a stream without a gap"},
		"a gap of another stream":      {set("gap.stream", "'jobs'", "6"), map[string]int64{checkGaps: 1}, "got a gap of stream jobs, want pods"},
		"a gap against time":           {set("gap.to_time", "'2026-11-22T11:00:00Z'", "6"), map[string]int64{checkGaps: 1}, "got a gap that ends at 2026-11-22T11:00:00.000Z, want not before 2026-11-22T12:00:00.000Z"},
		"a hole above what was pruned": {"INSERT INTO meta VALUES('pruned', '3'); DELETE FROM changes WHERE n IN (2, 9)", map[string]int64{checkNumbers: 1, checkSequence: 1, checkPrevious: 1, checkFrom: 1}, "change 9: got no change 9..9"},
		"put aside for nobody":         {parked("nobody", 2, "a"), map[string]int64{checkAside: 1}, "nobody: got an entry put aside, 1, want a cursor of the sink"},
		"put aside above the cursor":   {parked("archive", 11, "b"), map[string]int64{checkAside: 1}, "archive: got change 11 put aside, want one up to the cursor at 10"},
		"told of no workload":          {"INSERT INTO told VALUES('archive', 99, 1, '[]')", map[string]int64{checkAside: 1}, "archive: got what it was told of workload 99, want a workload that is there"},
		"told what cannot be read":     {"INSERT INTO told SELECT 'archive', id, 1, 'x' FROM workloads WHERE uid = 'b'", map[string]int64{checkAside: 1}, "archive: got what it was told of workload 2, with x, want JSON of what was left out"},
		"put aside, and cannot be read": {
			kept("initial", `json_set(body, '$.observed', '2026-s1-22T12:00:00Z')`),
			map[string]int64{checkAside: 1},
			"archive: got an entry put aside, 1, want JSON of a change with seq 1",
		},
		"put aside with another seq":     {kept("replay", `json_set(body, '$.seq', 3)`), map[string]int64{checkAside: 1}, "want JSON of a change with seq 1"},
		"put aside without what it was":  {kept("gap", `''`), map[string]int64{checkAside: 1}, "want JSON of a change with seq 1"},
		"put aside as what there is not": {kept("gaq", "body"), map[string]int64{checkAside: 1}, `archive: got an entry put aside, 1, that is "gaq", want parked, `},
		"a dead letter that cannot be read": {
			"INSERT INTO dead_letters SELECT 1, 'archive', n, 'b', 'l', seq, '{}', 0, '', 0, 1, 1, 1, 'x' FROM changes WHERE n = 3",
			map[string]int64{checkAside: 1},
			"archive: got dead letter 1, want JSON of a change with seq 1",
		},
		"a row of another state":       {"UPDATE workloads SET state = 'Failed' WHERE uid = 'b'", map[string]int64{checkWorkloads: 1}, "b: got a row with last change 7, seq 2, epoch 1, state Failed, want 7, 2, 1, Running"},
		"a row of another seq":         {"UPDATE workloads SET seq = 3 WHERE uid = 'b'", map[string]int64{checkWorkloads: 1}, "seq 3"},
		"a row of another epoch":       {"UPDATE workloads SET epoch = 3 WHERE uid = 'b'", map[string]int64{checkWorkloads: 1}, "epoch 3"},
		"a row that is behind":         {"UPDATE workloads SET last = 3 WHERE uid = 'b'", map[string]int64{checkWorkloads: 1}, "last change 3"},
		"a row ahead of the ledger":    {"UPDATE workloads SET last = 77 WHERE uid = 'b'", map[string]int64{checkWorkloads: 1}, "b: got a row with last change 77, want at most 11, the head"},
		"a stream's row that is wrong": {"UPDATE workloads SET seq = 3 WHERE kind = 'Stream'", map[string]int64{checkWorkloads: 1}, "stream/pods"},
		"a change without a row":       {"DELETE FROM workloads WHERE uid = 's'", map[string]int64{checkWorkloads: 1}, "change 5, s: got no row"},
		"a row whose changes are gone": {
			"INSERT INTO workloads SELECT 99, 'x', kind, namespace, 'x', labels, stream, state, '', 1, 1, 1, 0, 0, 0, 5, 0, 0, 0 FROM workloads WHERE uid = 'b'",
			map[string]int64{checkPruned: 1},
			"x: got last change 5, which is not there, want one below 1, the lowest kept",
		},
		"labels that are no JSON":       {"UPDATE workloads SET labels = '[1' WHERE uid = 'b'", map[string]int64{checkLabels: 1}, "b: got [1, want a JSON object"},
		"a cursor ahead of the ledger":  {"UPDATE cursors SET acked = 12", map[string]int64{checkCursors: 1}, "archive: got a cursor at 12, want at most 11, the head"},
		"a cursor below its start":      {"UPDATE cursors SET since = 11", map[string]int64{checkCursors: 1}, "archive: got a cursor at 10, below its start at 11"},
		"an object of no stream":        {"INSERT INTO objects VALUES(77, 'o', 0, x'00')", map[string]int64{checkObjects: 1}, "o: got stream 77, which is not there"},
		"a stream deleted from beneath": {"DELETE FROM streams WHERE name = 'pods'", map[string]int64{checkObjects: 2}, "b: got stream"},
	} {
		t.Run(name, func(t *testing.T) {
			path := stopped(t)
			alter(t, path, tt.script)
			r := verify(t, look(t, path))
			got := found(r)
			if _, ok := tt.want[checkIntegrity]; ok && got[checkIntegrity] > 0 {
				tt.want[checkIntegrity] = got[checkIntegrity] // SQLite counts as it likes
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("findings (-want +got)\n%s", diff)
			}
			var text strings.Builder
			if err := r.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(text.String(), tt.says) {
				t.Errorf("the report does not say %q:\n%s", tt.says, text.String())
			}
		})
	}
}

// TestADamagedFileIsAFinding writes over pages in the middle of the file.
func TestADamagedFileIsAFinding(t *testing.T) {
	path := stopped(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	damaged := false
	for at := page; at+page <= len(b); at += page {
		if strings.Contains(string(b[at:at+page]), `"from"`) {
			for i := range page {
				b[at+i] = 0xa5
			}
			damaged = true
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil || !damaged {
		t.Fatal(err, damaged)
	}
	r := verify(t, look(t, path))
	if got := found(r); got[checkIntegrity] == 0 || got[checkNumbers+" skipped"] == 0 || r.Holds() {
		t.Errorf("found %v, want damage, and that the rest was not looked at", got)
	}
}

func TestFindingsAreCountedBeyondThoseShown(t *testing.T) {
	path := stopped(t)
	alter(t, path, "UPDATE workloads SET labels = 'x'")
	r, err := look(t, path).Verify(t.Context(), VerifyOptions{Findings: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.Name == checkLabels && (c.Found != 5 || len(c.Findings) != 2) {
			t.Errorf("%d found and %d shown, want 5 and 2", c.Found, len(c.Findings))
		}
	}
}

// TestALiveLedgerMayGrowAndShrinkMeanwhile appends and prunes between the
// pages of a recount.
func TestALiveLedgerMayGrowAndShrinkMeanwhile(t *testing.T) {
	dir := t.TempDir()
	w := write(t, dir)
	w.many(3 * pageRows)
	w.append(w.change("a", statesync.Queued))
	f := look(t, w.path())
	stages := map[string]int{}
	r, err := f.Verify(t.Context(), VerifyOptions{Progress: func(p Progress) {
		stages[p.Stage]++
		if p.Stage == "changes" && p.Done > 0 && stages["pruned"] == 0 {
			stages["pruned"]++
			alter(t, w.path(), "DELETE FROM changes WHERE n <= 700")
		}
		w.append(w.change("b", []statesync.State{statesync.Queued, statesync.Running}[w.rows["b"].Seq%2]))
		w.append(w.change(fmt.Sprint("new", len(w.rows)), statesync.Queued))
		if p.Stage == "workloads" {
			alter(t, w.path(), fmt.Sprintf("DELETE FROM changes WHERE n <= %d; DELETE FROM workloads WHERE uid = 'a'", 3*pageRows+1))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if stages["pruned"] != 1 || stages["changes"] < 3 || stages["workloads"] < 1 {
		t.Fatalf("stages %v: nothing happened meanwhile", stages)
	}
	if diff := cmp.Diff(map[string]int64{}, found(r)); diff != "" {
		t.Errorf("findings (-want +got)\n%s", diff)
	}
}
