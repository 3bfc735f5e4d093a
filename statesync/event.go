package statesync

import (
	"encoding/json"
	"fmt"
	"time"
)

// The CloudEvents types.
const (
	EventType     = "dev.outrider.workload.changed"
	GapEventType  = "dev.outrider.gap"
	MarkEventType = "dev.outrider.mark"
)

// event is a change or a gap as it is written to a sink: CloudEvents 1.0,
// structured JSON. docs/changes.md is its specification, and a test compares
// the two.
type event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Sequence        string    `json:"sequence"`
	Data            any       `json:"data"` // eventData, gapData or Mark
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
	Skipped       []Skip    `json:"skipped,omitempty"`
	Number        int64     `json:"number"`
	Epoch         int64     `json:"epoch"`
	Reconstructed bool      `json:"reconstructed"`
	ObservedLate  bool      `json:"observed_late"`
	Initial       bool      `json:"initial"`
	Replayed      bool      `json:"replayed"`
}

type gapData struct {
	Gap
	Seq      int64  `json:"seq"`
	Previous int64  `json:"previous"`
	Skipped  []Skip `json:"skipped,omitempty"`
	Number   int64  `json:"number"`
	Epoch    int64  `json:"epoch"`
	Initial  bool   `json:"initial"`
	Replayed bool   `json:"replayed"`
}

// MarshalEvent returns d as one CloudEvent of type [EventType], [GapEventType]
// or [MarkEventType] in structured JSON, without a line break.
//
// source names one life of one workload, or one stream, because a CloudEvents
// sequence orders the events of one source.
func MarshalEvent(d Delivery) ([]byte, error) {
	e := event{
		SpecVersion: "1.0", ID: d.ID, DataContentType: "application/json",
		Time: d.Occurred.UTC(), Sequence: fmt.Sprintf("%020d", d.Seq),
	}
	switch {
	case d.Mark != nil:
		e.Type, e.Source, e.Subject = MarkEventType, "/clusters/"+d.Cluster+"/sinks/"+d.Workload.Name, d.Workload.Name
		e.Sequence = fmt.Sprintf("%020d", d.Mark.Number)
		e.Data = d.Mark
	case d.Gap != nil:
		gap := *d.Gap
		gap.From, gap.To = gap.From.UTC(), gap.To.UTC()
		e.Type, e.Source, e.Subject = GapEventType, "/clusters/"+d.Cluster+"/streams/"+gap.Stream, gap.Stream
		e.Data = gapData{Gap: gap, Seq: d.Seq, Previous: d.PreviousSeq, Skipped: d.Skipped, Number: d.Number, Epoch: d.Epoch, Initial: d.Initial, Replayed: d.Replayed}
	default:
		e.Type, e.Source, e.Subject = EventType, "/clusters/"+d.Cluster+"/workloads/"+d.Workload.UID, d.Workload.Key().String()
		e.Data = changeData(d)
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode change %s: %w", d.ID, err)
	}
	return b, nil
}

func changeData(d Delivery) eventData {
	labels := d.Workload.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	w := d.Workload
	w.Labels = labels
	return eventData{
		Workload: w, From: d.From, To: d.To,
		Reason: d.Reason, Message: d.Message, ExitCode: d.ExitCode,
		Occurred: d.Occurred.UTC(), Observed: d.Observed.UTC(),
		Seq: d.Seq, Previous: d.PreviousSeq, Skipped: d.Skipped, Number: d.Number, Epoch: d.Epoch,
		Reconstructed: d.Reconstructed, ObservedLate: d.ObservedLate,
		Initial: d.Initial, Replayed: d.Replayed,
	}
}
