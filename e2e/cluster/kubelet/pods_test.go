package kubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// TestTruth checks that the truth log says what the API server acknowledged and nothing else.
func TestTruth(t *testing.T) {
	deleting := newPod(always)
	deleting.DeletionTimestamp = new(metav1.NewTime(begin))
	deleting.Status.Phase = corev1.PodFailed
	tests := []struct {
		name    string
		pod     *corev1.Pod
		code    int
		version string
		wantOps []string
		wantErr bool
	}{
		{"an acknowledged status is logged", newPod(always), http.StatusOK, "8", []string{opStatus}, false},
		{"a status of a pod that is gone is not", newPod(always), http.StatusNotFound, "", nil, false},
		{"a conflict is not, and is tried again", newPod(always), http.StatusConflict, "", nil, true},
		{"a status that changed nothing is not", newPod(always), http.StatusOK, "7", nil, true},
		{"a confirmed deletion is logged", deleting, http.StatusOK, "8", []string{opDelete}, false},
		{"a deletion that came too late is not", deleting, http.StatusNotFound, "", nil, false},
		{"a failing server is tried again", deleting, http.StatusInternalServerError, "", nil, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answer := test.pod.DeepCopy()
				answer.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
				answer.ResourceVersion = test.version
				answer.Status.Phase = corev1.PodFailed // so that nothing follows
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(test.code)
				if test.code == http.StatusOK {
					_ = json.NewEncoder(w).Encode(answer)
				}
			}))
			defer server.Close()
			client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			pods := newPods(client, clock.RealClock{}, newTruth(&out, clock.RealClock{}), []string{"node-0"})
			pod := test.pod.DeepCopy()
			pod.Spec.NodeName, pod.ResourceVersion = "node-0", "7"
			if err := pods.store.Add(pod); err != nil {
				t.Fatal(err)
			}
			err = pods.sync(context.Background(), "default/p")
			if (err != nil) != test.wantErr {
				t.Errorf("sync: got error %v, want one: %t", err, test.wantErr)
			}
			var ops []string
			for decoder := json.NewDecoder(&out); decoder.More(); {
				var got Line
				if err := decoder.Decode(&got); err != nil {
					t.Fatal(err)
				}
				ops = append(ops, got.Op)
				if got.ResourceVersion != test.version || got.UID != "u1" {
					t.Errorf("line: got %+v, want resource version %s of u1", got, test.version)
				}
			}
			if len(ops) != len(test.wantOps) || len(ops) > 0 && ops[0] != test.wantOps[0] {
				t.Errorf("lines: got %v, want %v", ops, test.wantOps)
			}
		})
	}
}

// TestTruthOfALostAnswer: the server sets the status but fails to say so, and the watch shows it later.
func TestTruthOfALostAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	pods := newPods(client, clock.RealClock{}, newTruth(&out, clock.RealClock{}), []string{"node-0"})
	pod := newPod(always, "pull", "1h")
	pod.Spec.NodeName, pod.ResourceVersion = "node-0", "7"
	if err := pods.store.Add(pod); err != nil {
		t.Fatal(err)
	}
	if err := pods.sync(context.Background(), "default/p"); err == nil || out.Len() > 0 {
		t.Errorf("sync with a failing server: got error %v and log %q, want an error and nothing", err, out.String())
	}
	shown := pod.DeepCopy()
	shown.ResourceVersion, shown.Status = "8", *accepted(pod, begin)
	if err := pods.store.Update(shown); err != nil {
		t.Fatal(err)
	}
	if err := pods.sync(context.Background(), "default/p"); err != nil {
		t.Fatal(err)
	}
	var got Line
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("log %q: %v", out.String(), err)
	}
	if got.ResourceVersion != "8" || got.Reason != "ContainerCreating" {
		t.Errorf("line: got %+v, want resource version 8, ContainerCreating", got)
	}
}
