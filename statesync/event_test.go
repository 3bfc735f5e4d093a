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
		PreviousSeq: 0, Skipped: []Skip{{From: 1, To: 1, Cause: SkipFilter}, {From: 2, To: 2, Cause: SkipDeadLetter}},
		Initial: true, Replayed: true,
	}
}

// fullGap is a gap of one sink alone: it has every field.
func fullGap() Delivery {
	from, to := time.Date(2026, 3, 1, 2, 3, 4, 5000, east), time.Date(2026, 3, 1, 4, 3, 4, 0, east)
	return Delivery{
		Change: Change{
			Number: 812, ID: "0d0c5b1f6a2e4e5f8a9b7c6d5e4f3a2b", Cluster: "c7a5", Epoch: 2,
			Workload: StreamRef("sink/platform"), Seq: 4, Occurred: to, Observed: to,
			Gap: &Gap{Stream: "sink/platform", Reason: GapDetached, FromRV: 1, ToRV: 2, From: from, To: to, FromNumber: 700, ToNumber: 812},
		},
		PreviousSeq: 2, Skipped: []Skip{{From: 3, To: 3, Cause: SkipSeveral}}, Replayed: true,
	}
}

func fullMark() Delivery {
	return MarkDelivery("platform", "c7a5", 2,
		Mark{Previous: 4700, Number: 4711, Changes: 8, Skipped: 2, Waiting: 1}, time.Date(2026, 3, 1, 2, 3, 14, 0, east))
}

// deliveries are one of each shape, by the name of its golden file.
func deliveries() map[string]Delivery {
	return map[string]Delivery{
		"event_full.json": fullDelivery(), "event_least.json": leastDelivery(),
		"gap_full.json": fullGap(), "mark_full.json": fullMark(),
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
	for name, d := range deliveries() {
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
	for name, d := range deliveries() {
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
		times := map[string]any{"time": e["time"]}
		switch e["type"] {
		case EventType:
			times["occurred"], times["observed"] = data["occurred"], data["observed"]
		case GapEventType:
			times["from_time"], times["to_time"] = data["from_time"], data["to_time"]
		}
		for key, v := range times {
			text, _ := v.(string)
			if _, err := time.Parse(time.RFC3339Nano, text); err != nil || !strings.HasSuffix(text, "Z") {
				t.Errorf("%s: %s is %v, want a time in UTC", name, key, v)
			}
		}
		if e["type"] != EventType {
			continue
		}
		if labels, ok := data["workload"].(map[string]any)["labels"].(map[string]any); !ok {
			t.Errorf("%s: labels are %v, want an object even when there are none", name, labels)
		}
	}
}

func TestMarshalEventLeavesTheDeliveryAlone(t *testing.T) {
	before := deliveries()
	for name, d := range deliveries() {
		if _, err := MarshalEvent(d); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before[name], d); diff != "" {
			t.Errorf("%s: changed (-before +after):\n%s", name, diff)
		}
	}
}

// TestAMarksIDIsOfItsInterval: a try of the same mark again is a repeat, and
// no other mark is.
func TestAMarksIDIsOfItsInterval(t *testing.T) {
	id := func(sink, cluster string, m Mark) string { return MarkDelivery(sink, cluster, 1, m, time.Now()).ID }
	mark := Mark{Previous: 1, Number: 23, Changes: 4}
	if a, b := id("s", "c", mark), id("s", "c", mark); a != b {
		t.Errorf("IDs of one mark: %s and %s, want the same", a, b)
	}
	seen := map[string]string{}
	for name, got := range map[string]string{
		"the mark":        id("s", "c", mark),
		"another end":     id("s", "c", Mark{Previous: 1, Number: 24, Changes: 4}),
		"another start":   id("s", "c", Mark{Previous: 12, Number: 3}),
		"another sink":    id("t", "c", mark),
		"another cluster": id("s", "d", mark),
	} {
		if other := seen[got]; other != "" {
			t.Errorf("%s and %s have one ID", name, other)
		}
		seen[got] = name
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
