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

// TestTheDocumentsExampleIsWhatIsSent compares docs/changes.md with what
// MarshalEvent makes of the same change.
func TestTheDocumentsExampleIsWhatIsSent(t *testing.T) {
	var documented, sent any
	example := block(t, "json")
	if err := json.Unmarshal([]byte(example), &documented); err != nil {
		t.Fatal(err)
	}
	code := int32(137)
	b, err := MarshalEvent(Delivery{PreviousSeq: 2, Change: Change{
		ID: "6f1c0c8b5a5e4c1d9b7a3f2e1d0c9b8a", Cluster: "8c2e61a0-5b5e-4f64-9f0d-2f1f0f3f7c11", Epoch: 1,
		Workload: Ref{
			Kind: "Pod", Namespace: "load", Name: "report-7", UID: "3b0f6f57-6b60-4b55-8d0e-6b3ce1a1f6b0",
			Labels: map[string]string{"team": "reports"},
		},
		From: Running, To: Failed, Reason: "OOMKilled", Message: "container main: OOMKilled, exit code 137", ExitCode: &code, Seq: 3,
		Occurred: time.Date(2026, 11, 22, 12, 0, 5, 0, time.UTC), Observed: time.Date(2026, 11, 22, 12, 0, 5, 231846000, time.UTC),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &sent); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(documented, sent); diff != "" {
		t.Errorf("docs/changes.md and MarshalEvent differ (-documented +sent)\n%s", diff)
	}
	text := document(t)
	data := sent.(map[string]any)["data"].(map[string]any)
	for _, field := range slices.Sorted(maps.Keys(data)) {
		if !strings.Contains(text, "| `"+field+"` |") && field != "workload" {
			t.Errorf("docs/changes.md has no line for the field %s", field)
		}
	}
}

// TestTheDocumentsGapIsWhatIsSent does the same for the second example.
func TestTheDocumentsGapIsWhatIsSent(t *testing.T) {
	gap := Gap{
		Stream: "pods/load", Reason: GapExpired, FromRV: 48210, ToRV: 51877,
		From: time.Date(2026, 11, 22, 12, 0, 5, 0, time.UTC), To: time.Date(2026, 11, 22, 12, 31, 7, 0, time.UTC),
	}
	b, err := MarshalEvent(Delivery{Change: Change{
		ID: "5f0d7a52c8b14e0b9a57c1d2e3f40516", Cluster: "8c2e61a0-5b5e-4f64-9f0d-2f1f0f3f7c11", Epoch: 1,
		Workload: StreamRef("pods/load"), Seq: 1, Occurred: gap.To, Observed: gap.To, Gap: &gap,
	}})
	if err != nil {
		t.Fatal(err)
	}
	var documented, sent map[string]any
	if err := errors.Join(json.Unmarshal([]byte(block(t, "jsonc")), &documented), json.Unmarshal(b, &sent)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(documented, sent); diff != "" {
		t.Errorf("docs/changes.md and MarshalEvent differ (-documented +sent)\n%s", diff)
	}
}

// TestTheDocumentsReceiverCompiles vets the program that the document offers.
func TestTheDocumentsReceiverCompiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "receiver.go")
	if err := os.WriteFile(file, []byte(block(t, "go")), 0o600); err != nil {
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

// block returns the document's first block of code in a language.
func block(t *testing.T, language string) string {
	t.Helper()
	_, rest, ok := strings.Cut(document(t), "```"+language+"\n")
	code, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatalf("docs/changes.md has no block of %s", language)
	}
	return code
}
