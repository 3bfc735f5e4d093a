package simcluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
)

const maxFault = 64 << 10 // bytes of a request

// A Script says which faults come when.
type Script struct {
	Steps []Step // in order of their time
}

// A Step is a fault and when it begins.
type Step struct {
	At    time.Duration // after the script's beginning
	Fault Fault
	line  int // of the script's text
}

// Parse reads a script: a line for each fault, with the time from which on and,
// of what lasts or repeats, up to which it acts; its kind; the resource, unless
// it is all; and what else it has. What follows # is a comment.
//
//	2s      lose-delete pods count=3
//	5s..15s too-many retry-after=1s
//	5s..15s end-watch jobs.batch every=1s
func Parse(text string) (*Script, error) {
	s := &Script{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		step, err := parseStep(words)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		step.line = number
		s.Steps = append(s.Steps, step)
	}
	slices.SortStableFunc(s.Steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return s, nil
}

// Check says which line is of a resource that the cluster does not have.
func (s *Script) Check(c *Cluster) error {
	all := c.Resources()
	for _, step := range s.Steps {
		if err := step.Fault.among(all); err != nil {
			return fmt.Errorf("line %d: %w", step.line, err)
		}
	}
	return nil
}

func parseStep(words []string) (step Step, err error) {
	from, to, span := strings.Cut(words[0], "..")
	if step.At, err = time.ParseDuration(from); err != nil || step.At < 0 {
		return step, fmt.Errorf("got time %.100q, want one such as 5s or 5s..15s", words[0])
	}
	if span {
		until, err := time.ParseDuration(to)
		if err != nil {
			return step, fmt.Errorf("got time %.100q, want one such as 5s or 5s..15s", words[0])
		}
		if until <= step.At {
			return step, fmt.Errorf("got time %.100q, want an end after the beginning", words[0])
		}
		step.Fault.For = until - step.At
	}
	if len(words) < 2 {
		names, _ := FaultKinds()
		return step, fmt.Errorf("got no fault, want one of %s", strings.Join(names, ", "))
	}
	step.Fault.Kind = words[1]
	seen := map[string]bool{"for": span}
	for i, word := range words[2:] {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case !ok && i == 0:
			step.Fault.Resource = word
		case !ok:
			return step, fmt.Errorf("got %.100q, want key=value", word)
		case seen[key]:
			return step, fmt.Errorf("got %.100q, want one %s: it was said before", word, key)
		default:
			seen[key] = true
			if err := step.Fault.set(key, value); err != nil {
				return step, err
			}
		}
	}
	return step, step.Fault.validate()
}

// set sets what a word of a script or a key of a request says.
func (fault *Fault) set(key, value string) error {
	var to *time.Duration
	switch key {
	case "every":
		to = &fault.Every
	case "for":
		to = &fault.For
	case "retry-after":
		to = &fault.RetryAfter
	case "delay":
		to = &fault.Delay
	case "by":
		to = &fault.By
	case "count":
		n, err := strconv.Atoi(value)
		if err != nil || n == 0 { // 0 would be as if it was not said
			return fmt.Errorf("got count=%.100s, want a number from 1 on", value)
		}
		fault.Count = n
		return nil
	default:
		return fmt.Errorf("got key %.100q, want one of by, count, delay, every, for, retry-after", key)
	}
	d, err := time.ParseDuration(value)
	if err != nil || d == 0 {
		return fmt.Errorf("got %s=%.100s, want a time such as 5s", key, value)
	}
	*to = d
	return nil
}

// Run adds the faults of a script at their times, and returns when the last
// was added, or ctx ends.
func (f *Faults) Run(ctx context.Context, s *Script) error {
	begin := time.Now()
	for _, step := range s.Steps {
		t := time.NewTimer(time.Until(begin.Add(step.At)))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		if err := f.Add(step.Fault); err != nil {
			return fmt.Errorf("at %s: %w", step.At, err)
		}
	}
	return nil
}

// faultJSON is a fault in a request.
type faultJSON struct {
	Fault      string `json:"fault"`
	Resource   string `json:"resource,omitempty"`
	For        string `json:"for,omitempty"`
	Every      string `json:"every,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
	Delay      string `json:"delay,omitempty"`
	By         string `json:"by,omitempty"`
	Count      int    `json:"count,omitempty"`
}

func (j faultJSON) fault() (Fault, error) {
	f := Fault{Kind: j.Fault, Resource: j.Resource, Count: j.Count}
	for _, w := range [][2]string{{"for", j.For}, {"every", j.Every}, {"retry-after", j.RetryAfter}, {"delay", j.Delay}, {"by", j.By}} {
		if w[1] == "" {
			continue
		}
		if err := f.set(w[0], w[1]); err != nil {
			return f, err
		}
	}
	return f, nil
}

// MarshalJSON is a fault as requests have it.
func (fault Fault) MarshalJSON() ([]byte, error) {
	text := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	return json.Marshal(faultJSON{
		Fault: fault.Kind, Resource: fault.Resource, Count: fault.Count,
		For: text(fault.For), Every: text(fault.Every), RetryAfter: text(fault.RetryAfter), Delay: text(fault.Delay), By: text(fault.By),
	})
}

// post adds the fault of a request.
func (f *Faults) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFault))
	var fault Fault
	if err == nil {
		fault, err = parseFault(body)
	}
	if n := len(f.Active()); err == nil && n >= maxActive {
		http.Error(w, fmt.Sprintf("got %d faults that last, want fewer: DELETE ends them", n), http.StatusConflict)
		return
	}
	if err == nil {
		fault.spare, _ = r.Context().Value(connKey{}).(net.Conn)
		err = f.Add(fault)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func parseFault(body []byte) (Fault, error) {
	var j faultJSON
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return Fault{}, fmt.Errorf("read fault: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Fault{}, errors.New("read fault: got more than one, want one JSON object")
	}
	return j.fault()
}

// writeActive lists the faults of the moment.
func (f *Faults) writeActive(w http.ResponseWriter) {
	all := f.Active()
	if all == nil {
		all = []Fault{}
	}
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	_ = json.NewEncoder(w).Encode(all)
}
