package inspect

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// maxLine is the longest line of a record. A receiver's limit for one event
// is 1 MiB too.
const maxLine = 1 << 20

// errOther marks an event that is none of a change or a gap.
var errOther = errors.New("neither a change nor a gap")

// told is one delivery as a receiver has recorded it.
type told struct {
	line int64
	statesync.Delivery
}

// record reads NDJSON of CloudEvents.
type record struct {
	r    *bufio.Reader
	line int64
	buf  []byte
}

func newRecord(r io.Reader) *record { return &record{r: bufio.NewReaderSize(r, 64<<10)} }

// next returns the next line that is not blank, without its line break. whole
// is false for a last line that has none. After an error of reading, and at
// the end with io.EOF, there is no line. A line above maxLine is cut.
func (r *record) next() (line []byte, whole bool, err error) {
	for {
		r.buf = r.buf[:0]
		r.line++
		for {
			part, err := r.r.ReadSlice('\n')
			if room := maxLine + 1 - len(r.buf); room > 0 {
				r.buf = append(r.buf, part[:min(room, len(part))]...)
			}
			if err == nil {
				whole = true
				break
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if !errors.Is(err, io.EOF) {
				return nil, false, fmt.Errorf("read line %d: %w", r.line, err)
			}
			if len(bytes.TrimSpace(r.buf)) == 0 {
				return nil, false, io.EOF
			}
			return r.buf, false, nil
		}
		if line := bytes.TrimSpace(r.buf); len(line) > 0 {
			return line, whole, nil
		}
	}
}

// cloudEvent is what docs/changes.md says of an event's envelope.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Subject     string          `json:"subject"`
	Time        time.Time       `json:"time"`
	Sequence    string          `json:"sequence"`
	Data        json.RawMessage `json:"data"`
}

// aboutOne is what an event's data say of the delivery to one receiver.
type aboutOne struct {
	Previous int64            `json:"previous"`
	Skipped  []statesync.Skip `json:"skipped"`
	Initial  bool             `json:"initial"`
	Replayed bool             `json:"replayed"`
}

// parseEvent reads one event. It returns errOther for an event of another
// type.
func parseEvent(line []byte) (d statesync.Delivery, err error) {
	if len(line) > maxLine {
		return d, fmt.Errorf("more than %d bytes", maxLine)
	}
	var e cloudEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return d, err
	}
	if e.SpecVersion != "1.0" {
		return d, fmt.Errorf("specversion %q, want 1.0", clip(e.SpecVersion))
	}
	var one aboutOne
	var kind, name string
	switch e.Type {
	case statesync.EventType:
		err = errors.Join(json.Unmarshal(e.Data, &d.Change), json.Unmarshal(e.Data, &one))
		d.Gap = nil
		kind, name = "workloads", d.Workload.UID
	case statesync.GapEventType:
		d.Gap = &statesync.Gap{}
		var place struct {
			Seq   int64 `json:"seq"`
			Epoch int64 `json:"epoch"`
		}
		err = errors.Join(json.Unmarshal(e.Data, d.Gap), json.Unmarshal(e.Data, &one), json.Unmarshal(e.Data, &place))
		d.Seq, d.Epoch, d.Workload = place.Seq, place.Epoch, statesync.StreamRef(d.Gap.Stream)
		d.Occurred = e.Time
		kind, name = "streams", d.Gap.Stream
	default:
		return d, fmt.Errorf("type %q: %w", clip(e.Type), errOther)
	}
	if err != nil {
		return d, fmt.Errorf("data: %w", err)
	}
	d.ID, d.PreviousSeq, d.Skipped, d.Initial, d.Replayed = e.ID, one.Previous, one.Skipped, one.Initial, one.Replayed
	cluster, ok := strings.CutPrefix(e.Source, "/clusters/")
	if ok {
		d.Cluster, ok = strings.CutSuffix(cluster, "/"+kind+"/"+name)
	}
	switch {
	case e.ID == "":
		err = errors.New("no id")
	case name == "" || !ok || d.Cluster == "" || strings.Contains(d.Cluster, "/"):
		err = fmt.Errorf("source %q, want /clusters/ID/%s/%s", clip(e.Source), kind, clip(name))
	case d.Seq < 1 || e.Sequence != fmt.Sprintf("%020d", d.Seq):
		err = fmt.Errorf("sequence %q, want the 20 digits of seq %d, from 1", clip(e.Sequence), d.Seq)
	case d.PreviousSeq < 0 || d.PreviousSeq >= d.Seq:
		err = fmt.Errorf("previous %d, want one from 0 to below seq %d", d.PreviousSeq, d.Seq)
	}
	return d, err
}
