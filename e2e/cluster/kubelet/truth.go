package kubelet

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// The operations of the truth log.
const (
	opStatus = "status"
	opDelete = "delete"
)

// A Line is one line of the truth log: what the API server has acknowledged.
type Line struct {
	// Time is when the answer came.
	Time time.Time `json:"time"`
	// Op is status or delete.
	Op        string `json:"op"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// ResourceVersion is that of the answer.
	ResourceVersion string          `json:"resourceVersion"`
	Phase           corev1.PodPhase `json:"phase"`
	// Reason and Message are the pod's, or else those of its containers' state.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// ExitCode is there where the containers have terminated.
	ExitCode *int32 `json:"exitCode,omitempty"`
	Ready    bool   `json:"ready"`
	Deleting bool   `json:"deleting"`
}

// truth writes the truth log, a line a write, so that a reader sees whole lines at once and a killed process loses none.
type truth struct {
	clock clock.PassiveClock
	mu    sync.Mutex
	out   io.Writer
}

func newTruth(out io.Writer, clk clock.PassiveClock) *truth { return &truth{clock: clk, out: out} }

// record logs the answer pod to op.
func (t *truth) record(op string, pod *corev1.Pod) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	data, err := json.Marshal(line(op, pod, t.clock.Now()))
	if err != nil {
		return fmt.Errorf("write truth log: %w", err)
	}
	if _, err := t.out.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("write truth log: %w", err)
	}
	return nil
}

func line(op string, pod *corev1.Pod, now time.Time) Line {
	made := Line{
		Time: now, Op: op, Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID),
		ResourceVersion: pod.ResourceVersion, Phase: pod.Status.Phase,
		Reason: pod.Status.Reason, Message: pod.Status.Message,
		Ready: ready(&pod.Status), Deleting: pod.DeletionTimestamp != nil,
	}
	reason, message := "", ""
	switch state, _ := containerState(&pod.Status); {
	case state.Terminated != nil:
		made.ExitCode = &state.Terminated.ExitCode
		reason, message = state.Terminated.Reason, state.Terminated.Message
	case state.Waiting != nil:
		reason, message = state.Waiting.Reason, state.Waiting.Message
	}
	if made.Reason == "" {
		made.Reason, made.Message = reason, message
	}
	return made
}
