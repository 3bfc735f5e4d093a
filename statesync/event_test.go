package statesync

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// east is far from UTC, so that a time that is not converted shows.
var east = time.FixedZone("east", 5*3600+1800)

func fullDelivery() Delivery {
	code := int32(137)
	return Delivery{
		Change: Change{
			Number: 4711, Previous: 4700, ID: "6b0d2f7c5a1e4f3d9c8b7a6950413f2e",
			Cluster: "c7a5", Epoch: 2,
			Workload: Ref{
				Kind: "Job", Namespace: "team-a", Name: "train", UID: "u-1",
				Labels: map[string]string{"b": "2", "a": "<1> & \u2028", "c": ""},
			},
			From: Running, To: Failed, Reason: "OOMKilled", Message: "line one\nline \"two\"\xff", ExitCode: &code,
			Seq: 3, Occurred: time.Date(2026, 3, 1, 2, 3, 4, 0, east),
			Observed: time.Date(2026, 3, 1, 2, 3, 5, 123456789, east), Recorded: time.Date(2026, 3, 1, 2, 3, 6, 0, east),
			Reconstructed: true, ObservedLate: true,
		},
		PreviousSeq: 2, Initial: true, Replayed: true,
	}
}

// leastDelivery has nothing that may be left out.
func leastDelivery() Delivery {
	return Delivery{Change: Change{
		Number: 1, ID: "id", Cluster: "c", Epoch: 1,
		Workload: Ref{Kind: "Pod", Namespace: "n", Name: "p", UID: "u"}, To: Queued, Seq: 1,
		Occurred: time.Unix(1_800_000_000, 0), Observed: time.Unix(1_800_000_000, 0),
	}}
}

func TestMarshalEventIsGolden(t *testing.T) {
	for name, d := range map[string]Delivery{"event_full.json": fullDelivery(), "event_least.json": leastDelivery()} {
		t.Run(name, func(t *testing.T) {
			got, err := MarshalEvent(d)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSuffix(string(want), "\n"), string(got)); diff != "" {
				t.Errorf("receivers read these bytes; changing them breaks receivers (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMarshalEventIsACloudEvent checks what the specification asks for, not
// what the golden file happens to hold.
func TestMarshalEventIsACloudEvent(t *testing.T) {
	for name, d := range map[string]Delivery{"full": fullDelivery(), "least": leastDelivery()} {
		body, err := MarshalEvent(d)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(body, "\n\r") {
			t.Errorf("%s: the event has a line break, but the file sink writes one event a line: %s", name, body)
		}
		var e map[string]any
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, attribute := range []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "sequence"} {
			if s, ok := e[attribute].(string); !ok || s == "" {
				t.Errorf("%s: attribute %s is %#v, want a text that is not empty", name, attribute, e[attribute])
			}
		}
		if e["specversion"] != "1.0" || e["datacontenttype"] != "application/json" {
			t.Errorf("%s: specversion %v, datacontenttype %v", name, e["specversion"], e["datacontenttype"])
		}
		if s := e["sequence"].(string); len(s) != 20 || strings.Trim(s, "0123456789") != "" {
			t.Errorf("%s: sequence %q, want 20 digits: receivers order it as text", name, s)
		}
		data := e["data"].(map[string]any)
		for key, v := range map[string]any{"time": e["time"], "occurred": data["occurred"], "observed": data["observed"]} {
			text, _ := v.(string)
			if _, err := time.Parse(time.RFC3339Nano, text); err != nil || !strings.HasSuffix(text, "Z") {
				t.Errorf("%s: %s is %v, want a time in UTC", name, key, v)
			}
		}
		if labels, ok := data["workload"].(map[string]any)["labels"].(map[string]any); !ok {
			t.Errorf("%s: labels are %v, want an object even when there are none", name, labels)
		}
	}
}

func TestMarshalEventLeavesTheDeliveryAlone(t *testing.T) {
	d := leastDelivery()
	if _, err := MarshalEvent(d); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(leastDelivery(), d); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
}

func TestMarshalEventSequenceOrdersAsText(t *testing.T) {
	var before string
	for _, seq := range []int64{1, 2, 9, 10, 99, 100, 1 << 40, 1<<63 - 1} {
		d := leastDelivery()
		d.Seq = seq
		body, err := MarshalEvent(d)
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Sequence string }
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatal(err)
		}
		if e.Sequence <= before {
			t.Errorf("sequence %s of seq %d comes before %s", e.Sequence, seq, before)
		}
		before = e.Sequence
	}
}

func TestMarshalEventThatCannotBeEncodedNamesTheChange(t *testing.T) {
	d := leastDelivery()
	d.Occurred = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := MarshalEvent(d); err == nil || !strings.Contains(err.Error(), "encode change id") {
		t.Errorf("error %v, want one that names the change", err)
	}
}
