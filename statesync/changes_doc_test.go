package statesync

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTheDocumentsExamplesAreWhatIsSent compares each example of
// docs/changes.md with what MarshalEvent makes of the same delivery, and wants
// a line of a table for each of its fields, and for those that it leaves out.
func TestTheDocumentsExamplesAreWhatIsSent(t *testing.T) {
	code := int32(137)
	const cluster = "8c2e61a0-5b5e-4f64-9f0d-2f1f0f3f7c11"
	gap := func(id string, seq int64, g Gap) Delivery {
		return Delivery{Change: Change{
			ID: id, Cluster: cluster, Epoch: 1, Workload: StreamRef(g.Stream), Seq: seq, Occurred: g.To, Observed: g.To, Gap: &g,
		}}
	}
	stream := gap("5f0d7a52c8b14e0b9a57c1d2e3f40516", 1, Gap{
		Stream: "pods/load", Reason: GapExpired, FromRV: 48210, ToRV: 51877,
		From: time.Date(2026, 11, 22, 12, 0, 5, 0, time.UTC), To: time.Date(2026, 11, 22, 12, 31, 7, 0, time.UTC),
	})
	stream.Number = 4790
	examples := []Delivery{
		{PreviousSeq: 1, Skipped: []Skip{{From: 2, To: 2, Cause: SkipDeadLetter}}, Change: Change{
			ID: "6f1c0c8b5a5e4c1d9b7a3f2e1d0c9b8a", Cluster: cluster, Epoch: 1, Number: 4711,
			Workload: Ref{
				Kind: "Pod", Namespace: "load", Name: "report-7", UID: "3b0f6f57-6b60-4b55-8d0e-6b3ce1a1f6b0",
				Labels: map[string]string{"team": "reports"},
			},
			From: Running, To: Failed, Reason: "OOMKilled", Message: "container main: OOMKilled, exit code 137", ExitCode: &code, Seq: 3,
			Occurred: time.Date(2026, 11, 22, 12, 0, 5, 0, time.UTC), Observed: time.Date(2026, 11, 22, 12, 0, 5, 231846000, time.UTC),
		}},
		stream,
		gap("c41e07b2a9d84f6e8b3d5a6f70812934", 1, Gap{
			Stream: "sink/platform", Reason: GapDetached, FromNumber: 4790, ToNumber: 9120,
			From: time.Date(2026, 11, 22, 14, 2, 0, 0, time.UTC), To: time.Date(2026, 11, 22, 16, 40, 12, 0, time.UTC),
		}),
		MarkDelivery("platform", cluster, 1, Mark{Previous: 4700, Number: 4711, Changes: 8, Skipped: 2, Waiting: 1},
			time.Date(2026, 11, 22, 12, 0, 10, 0, time.UTC)),
	}
	text := document(t)
	documentedAs := blocks(t, "json")
	if len(documentedAs) != len(examples) {
		t.Fatalf("docs/changes.md has %d examples, want %d", len(documentedAs), len(examples))
	}
	for i, d := range examples {
		b, err := MarshalEvent(d)
		var documented, sent map[string]any
		if err := errors.Join(err, json.Unmarshal([]byte(documentedAs[i]), &documented), json.Unmarshal(b, &sent)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(documented, sent); diff != "" {
			t.Errorf("example %d of docs/changes.md and MarshalEvent differ (-documented +sent)\n%s", i+1, diff)
		}
		for _, field := range slices.Sorted(maps.Keys(sent["data"].(map[string]any))) {
			if !strings.Contains(text, "| `"+field+"`") && !strings.Contains(text, ", `"+field+"` |") {
				t.Errorf("docs/changes.md has no line for the field %s of a %s", field, sent["type"])
			}
		}
	}
}

// TestTheDocumentNamesEveryWord: the types, the causes of skips and the
// reasons of gaps are what receivers compare with.
func TestTheDocumentNamesEveryWord(t *testing.T) {
	text := document(t)
	for _, word := range []string{
		EventType, GapEventType, MarkEventType,
		SkipFilter, SkipCompacted, SkipDeadLetter, SkipBefore, SkipSeveral,
		GapExpired, GapRestored, GapLedgerLost, GapRedefined, GapDetached,
	} {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("docs/changes.md does not say what %s means", word)
		}
	}
}

// TestTheDocumentsReceiverCompiles vets the program that the document offers.
func TestTheDocumentsReceiverCompiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "receiver.go")
	if err := os.WriteFile(file, []byte(blocks(t, "go")[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func document(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/changes.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blocks returns the document's blocks of code in a language; there is one at
// least.
func blocks(t *testing.T, language string) (out []string) {
	t.Helper()
	_, rest, ok := strings.Cut(document(t), "```"+language+"\n")
	for ok {
		code, after, closed := strings.Cut(rest, "```")
		if !closed {
			t.Fatalf("docs/changes.md does not close a block of %s", language)
		}
		out = append(out, code)
		_, rest, ok = strings.Cut(after, "```"+language+"\n")
	}
	if len(out) == 0 {
		t.Fatalf("docs/changes.md has no block of %s", language)
	}
	return out
}
