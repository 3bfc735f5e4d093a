package inspect

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// recordOf is what a receiver of the whole small ledger has, a line a change.
func recordOf(t testing.TB, f *File) []string {
	t.Helper()
	var lines []string
	last := map[string]int64{}
	for _, r := range list(t, f, Query{}) {
		b, err := statesync.MarshalEvent(statesync.Delivery{Change: r.Change, PreviousSeq: last[r.Workload.UID]})
		if err != nil {
			t.Fatal(err)
		}
		last[r.Workload.UID] = r.Seq
		lines = append(lines, string(b))
	}
	return lines
}

func compare(t testing.TB, f *File, record string) (*Report, error) {
	t.Helper()
	s, err := f.Stat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checks, notes, err := Compare(t.Context(), CompareOptions{
		Cluster: s.Cluster, Sink: s.Sinks[0], Record: strings.NewReader(record),
		Rows: func(yield func(Row) error) error { return f.Ls(t.Context(), Query{}, yield) },
	})
	return &Report{Checks: checks, Notes: notes}, err
}

// TestARecordIsComparedWithTheLedger edits the lines of a record that is
// right. The sink has acknowledged the first 10 of 11 changes.
func TestARecordIsComparedWithTheLedger(t *testing.T) {
	replace := func(n int, old, new string) func([]string) []string {
		return func(lines []string) []string {
			if !strings.Contains(lines[n-1], old) {
				panic(fmt.Sprintf("line %d has no %s: %s", n, old, lines[n-1]))
			}
			lines[n-1] = strings.ReplaceAll(lines[n-1], old, new)
			return lines
		}
	}
	seq := func(line string, n int) string {
		for _, old := range []string{"1", "2", "3"} {
			line = strings.Replace(line, `"seq":`+old+",", fmt.Sprintf(`"seq":%d,`, n), 1)
			line = strings.Replace(line, `"sequence":"0000000000000000000`+old, fmt.Sprintf(`"sequence":"%020d`, n), 1)
		}
		return line
	}
	whole := func(lines []string) []string { return lines }
	for name, tt := range map[string]struct {
		edit func(lines []string) []string
		want map[string]int64
		says string
	}{
		"all of it":                  {whole, nil, ""},
		"only what is acknowledged":  {func(l []string) []string { return l[:10] }, nil, ""},
		"workloads in another order": {func(l []string) []string { return slices.Concat(l[2:3], l[6:7], l[:2], l[3:6], l[7:]) }, nil, ""},
		"repeats":                    {func(l []string) []string { return slices.Concat(l[:4], l[1:4], l[4:]) }, nil, ""},
		"a replay": {func(l []string) []string {
			return append(l, strings.Replace(l[0], `"replayed":false`, `"replayed":true`, 1))
		}, nil, ""},
		"where it stood, after a gap": {func(l []string) []string {
			initial := strings.Replace(strings.Replace(l[6], `"id":"`, `"id":"00`, 1), `"initial":false`, `"initial":true`, 1)
			return append(l, strings.Replace(initial, `e so"`, `e no"`, 1))
		}, nil, ""},
		"blank lines":              {func(l []string) []string { return slices.Insert(l, 3, "", "  ") }, nil, ""},
		"an event of another kind": {func(l []string) []string { return append(l, `{"specversion":"1.0","type":"dev.outrider.mark"}`) }, nil, "note: 1 lines of the record were left out: they tell neither"},
		"another cluster's":        {func(l []string) []string { return append(l, strings.ReplaceAll(l[0], cluster, "other")) }, nil, "note: 1 lines of the record were left out: they are of other clusters"},
		"a workload the ledger has pruned": {func(l []string) []string {
			return append(l, strings.ReplaceAll(strings.ReplaceAll(l[2], `"b"`, `"old"`), "/workloads/b", "/workloads/old"))
		}, map[string]int64{checkOnce: 1}, "the ID of line 3"},
		"a last line that is torn":        {func(l []string) []string { return append(l, l[0][:40]+"\x00") }, nil, "note: line 12 of the record, the last one, is not finished"},
		"one acknowledged change missing": {func(l []string) []string { return slices.Delete(l, 4, 5) }, map[string]int64{checkTold: 1}, "change 5, s: got no line, want seq 1, to Queued, ID "},
		"an acknowledged gap missing":     {func(l []string) []string { return slices.Delete(l, 5, 6) }, map[string]int64{checkTold: 1}, "change 6, stream/pods: got no line"},
		"one missing in between":          {func(l []string) []string { return slices.Delete(l, 1, 2) }, map[string]int64{checkTold: 1, checkLinks: 1}, "line 3, a: got seq 3 after seq 2, want after 1"},
		"nothing at all":                  {func([]string) []string { return nil }, map[string]int64{checkTold: 10}, "got no line"},
		"a line that is no JSON":          {func(l []string) []string { return slices.Insert(l, 2, "{") }, map[string]int64{checkLines: 1}, "line 3: got unexpected end of JSON input, want a change or a gap"},
		"a torn line in the middle":       {func(l []string) []string { l[4] = l[4][:50]; return l }, map[string]int64{checkLines: 1, checkTold: 1}, "line 5: got"},
		"a line too long":                 {func(l []string) []string { return append(l, `"`+strings.Repeat("x", 3*maxLine)+`"`, l[0]) }, map[string]int64{checkLines: 1}, "line 12: got more than 1048576 bytes"},
		"another source":                  {replace(5, "/workloads/s", "/workloads/z"), map[string]int64{checkLines: 1, checkTold: 1}, "line 5: got source"},
		"another sequence":                {replace(5, `"sequence":"00000000000000000001"`, `"sequence":"1"`), map[string]int64{checkLines: 1, checkTold: 1}, `line 5: got sequence "1"`},
		"a previous not before":           {replace(5, `"previous":0`, `"previous":1`), map[string]int64{checkLines: 1, checkTold: 1}, "line 5: got previous 1"},
		"another state":                   {replace(5, `"to":"Queued"`, `"to":"Failed"`), map[string]int64{checkTold: 1}, "change 5, s: got to Failed, want Queued"},
		"another message":                 {replace(5, `e so"`, `e no"`), map[string]int64{checkTold: 1}, "line 5, change 5, s: got another content"},
		"another ID":                      {replace(5, `"id":"`, `"id":"00`), map[string]int64{checkTold: 1}, "line 5, change 5, s: got ID 00"},
		"a gap of other versions":         {replace(6, `"from_rv":100`, `"from_rv":101`), map[string]int64{checkTold: 1}, "line 6, change 6, stream/pods: got another content"},
		"against the order":               {func(l []string) []string { l[2], l[6] = l[6], l[2]; return l }, map[string]int64{checkOrder: 1}, "line 7, b: got seq 1 after seq 2, want a later one, or a repeat"},
		"a repeat under another ID":       {func(l []string) []string { return append(l, strings.Replace(l[0], `"id":"`, `"id":"00`, 1)) }, map[string]int64{checkOrder: 1}, "line 12, a: got seq 1 again, with ID 00"},
		"a repeat with another content":   {func(l []string) []string { return append(l, strings.Replace(l[0], `e so"`, `e no"`, 1)) }, map[string]int64{checkOnce: 1}, "with another content, want that of line 1"},
		"a change that the ledger never had": {func(l []string) []string {
			return append(l, strings.Replace(strings.Replace(seq(l[6], 3), `"previous":1`, `"previous":2`, 1), `"id":"`, `"id":"00`, 1))
		}, map[string]int64{checkTold: 1}, "line 12, b: got seq 3, want a change that the ledger has"},
	} {
		t.Run(name, func(t *testing.T) {
			f := look(t, stopped(t))
			text := strings.Join(tt.edit(recordOf(t, f)), "\n") + "\n"
			text = strings.Replace(text, "\x00\n", "", 1)
			r, err := compare(t, f, text)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				tt.want = map[string]int64{}
			}
			var report strings.Builder
			if err := r.WriteText(&report); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, found(r)); diff != "" {
				t.Errorf("findings (-want +got)\n%s\n%s", diff, report.String())
			}
			if !strings.Contains(report.String(), tt.says) {
				t.Errorf("the report does not say %q:\n%s", tt.says, report.String())
			}
		})
	}
}

// TestARecordOfALedgerThatGrowsMayHaveMore takes away what the ledger of the
// moment of the look did not have yet.
func TestARecordOfALedgerThatGrowsMayHaveMore(t *testing.T) {
	path := stopped(t)
	f := look(t, path)
	lines := recordOf(t, f)
	for lost, want := range map[bool]int64{false: 1, true: 0} {
		checks, _, err := Compare(t.Context(), CompareOptions{
			Cluster: cluster, Sink: SinkStat{Cursor: 6}, Lost: lost, Record: strings.NewReader(strings.Join(lines, "\n")),
			Rows: func(yield func(Row) error) error {
				return f.Ls(t.Context(), Query{}, func(r Row) error {
					if r.Number == 7 || r.Number > 8 {
						return nil
					}
					return yield(r)
				})
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := found(&Report{Checks: checks})[checkTold]; (got > 0) != (want > 0) {
			t.Errorf("lost %t: %d found, want %d", lost, got, want)
		}
	}
}

// FuzzRecord reads any bytes as a record. Whatever is read as an event is the
// same event when it is written and read again.
func FuzzRecord(f *testing.F) {
	for _, line := range recordOf(f, look(f, stopped(f))) {
		f.Add([]byte(line + "\n" + line))
	}
	f.Add([]byte("\n{\n\r\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRecord(bytes.NewReader(b))
		for lines := 0; ; lines++ {
			line, whole, err := r.next()
			if err != nil {
				break
			}
			if lines > len(b) || !whole && bytes.Count(b, []byte("\n")) != int(r.line)-1 {
				t.Fatalf("line %d of %q, whole %t", r.line, b, whole)
			}
			d, err := parseEvent(line)
			if err != nil {
				continue
			}
			again, err := statesync.MarshalEvent(d)
			if err != nil {
				continue // a year above 9999
			}
			second, err := parseEvent(again)
			if err != nil {
				t.Fatalf("%s: written as %s: %v", line, again, err)
			}
			third, err := statesync.MarshalEvent(second)
			if err != nil || !bytes.Equal(again, third) {
				t.Fatalf("%s\nthen %s: %v", again, third, err)
			}
		}
	})
}

// TestWhatASinkWasNotGivenIsNotMissing, as long as the ledger or the record
// says so.
func TestWhatASinkWasNotGivenIsNotMissing(t *testing.T) {
	told := func(uid, cause string) string {
		return fmt.Sprintf(`INSERT INTO told SELECT 'archive', id, 0, json_array(json_object('from', 1, 'to', 1, 'cause', '%s')) FROM workloads WHERE uid = '%s';`, cause, uid)
	}
	for name, tt := range map[string]struct {
		script string
		edit   func(lines []string) []string
		want   map[string]int64
	}{
		"a change that waits aside":        {parked("archive", 5, "s"), without(5), map[string]int64{}},
		"one that waits for another sink":  {"INSERT INTO cursors(sink, since, acked) VALUES('b', 0, 9);" + parked("b", 5, "s"), without(5), map[string]int64{checkTold: 1}},
		"one that was left out":            {told("s", "filter"), without(5), map[string]int64{}},
		"another that was left out":        {told("b", "filter"), without(5), map[string]int64{checkTold: 1}},
		"one that is to be told left out":  {strings.Replace(parked("archive", 0, "s"), "'parked'", "'skipped'", 1), without(5), map[string]int64{}},
		"one that the record says it is":   {"", func(l []string) []string { return saysSkipped(without(3)(l)) }, map[string]int64{}},
		"what was before the sink's start": {"UPDATE cursors SET begun = 5", func(l []string) []string { return l[5:] }, map[string]int64{}},
	} {
		t.Run(name, func(t *testing.T) {
			path := stopped(t)
			alter(t, path, tt.script)
			f := look(t, path)
			r, err := compare(t, f, strings.Join(tt.edit(recordOf(t, f)), "\n")+"\n")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, found(r)); diff != "" {
				t.Errorf("findings (-want +got)\n%s", diff)
			}
		})
	}
}

// without leaves a line out of a record.
func without(n int) func([]string) []string {
	return func(lines []string) []string { return slices.Delete(lines, n-1, n) }
}

// saysSkipped has the second change of b say that the first was left out.
func saysSkipped(lines []string) []string {
	for i, line := range lines {
		if strings.Contains(line, "/workloads/b") {
			lines[i] = strings.Replace(line, `"previous":1,`, `"previous":0,"skipped":[{"from":1,"to":1,"cause":"filter"}],`, 1)
		}
	}
	return lines
}
