package statesync

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventType is the CloudEvents type of a change.
const EventType = "dev.outrider.workload.changed"

// event is a change as it is written to a sink: CloudEvents 1.0, structured
// JSON. docs/changes.md is its specification, and a test compares the two.
type event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Sequence        string    `json:"sequence"`
	Data            eventData `json:"data"`
}

type eventData struct {
	Workload      Ref       `json:"workload"`
	From          State     `json:"from"`
	To            State     `json:"to"`
	Reason        string    `json:"reason"`
	Message       string    `json:"message"`
	ExitCode      *int32    `json:"exit_code,omitempty"`
	Occurred      time.Time `json:"occurred"`
	Observed      time.Time `json:"observed"`
	Seq           int64     `json:"seq"`
	Previous      int64     `json:"previous"`
	Epoch         int64     `json:"epoch"`
	Reconstructed bool      `json:"reconstructed"`
	ObservedLate  bool      `json:"observed_late"`
	Initial       bool      `json:"initial"`
	Replayed      bool      `json:"replayed"`
}

// MarshalEvent returns d as one CloudEvent of type [EventType] in structured
// JSON, without a line break.
//
// source names one life of one workload, because a CloudEvents sequence
// orders the events of one source.
func MarshalEvent(d Delivery) ([]byte, error) {
	labels := d.Workload.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	w := d.Workload
	w.Labels = labels
	b, err := json.Marshal(event{
		SpecVersion:     "1.0",
		ID:              d.ID,
		Source:          "/clusters/" + d.Cluster + "/workloads/" + w.UID,
		Type:            EventType,
		Subject:         w.Key().String(),
		Time:            d.Occurred.UTC(),
		DataContentType: "application/json",
		Sequence:        fmt.Sprintf("%020d", d.Seq),
		Data: eventData{
			Workload: w, From: d.From, To: d.To,
			Reason: d.Reason, Message: d.Message, ExitCode: d.ExitCode,
			Occurred: d.Occurred.UTC(), Observed: d.Observed.UTC(),
			Seq: d.Seq, Previous: d.PreviousSeq, Epoch: d.Epoch,
			Reconstructed: d.Reconstructed, ObservedLate: d.ObservedLate,
			Initial: d.Initial, Replayed: d.Replayed,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("encode change %s: %w", d.ID, err)
	}
	return b, nil
}
