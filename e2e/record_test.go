package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// recordings is where the rules' own tests find what the API server says.
const recordings = "../statesync/workload/testdata/recorded"

// TestRecordWorkloads runs the scenarios and writes what a watch of the API
// server tells of each, for the tests of the rules. It is no test of ours.
func TestRecordWorkloads(t *testing.T) {
	needCluster(t)
	if os.Getenv("OUTRIDER_RECORD") == "" {
		t.Skip("OUTRIDER_RECORD is not set: the recordings stay as they are")
	}
	const prefix = "recorded-"
	r := startRecorder(t)
	for _, name := range inWorlds(t, prefix).ended {
		lines := r.of(t, prefix+name)
		var b bytes.Buffer
		fmt.Fprintf(&b, "{\n\"scenario\": %q,\n\"kubernetes\": %q,\n\"events\": [\n%s\n]\n}\n", name, r.kubernetes, bytes.Join(lines, []byte(",\n")))
		if !json.Valid(b.Bytes()) {
			t.Fatalf("%s: the recording is no JSON", name)
		}
		if err := os.WriteFile(filepath.Join(recordings, name+".json"), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d events, %d KiB", name, len(lines), b.Len()>>10)
	}
}

// A recorder watches all objects of the kinds that a workload is made of.
type recorder struct {
	kubernetes string // the server's version

	mu     sync.Mutex
	events []recorded
}

// recorded is one event of a watch.
type recorded struct {
	namespace string
	revision  uint64 // the API server's, so that events of different kinds have one order
	line      []byte
}

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	raw, err := env.client.CoreV1().RESTClient().Get().AbsPath("/version").SetHeader("Accept", "application/json").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		t.Fatal(err)
	}
	r := &recorder{kubernetes: version.GitVersion}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	for resource, client := range map[string]rest.Interface{
		"pods": env.client.CoreV1().RESTClient(), "jobs": env.client.BatchV1().RESTClient(),
		"deployments": env.client.AppsV1().RESTClient(), "statefulsets": env.client.AppsV1().RESTClient(),
		"replicasets": env.client.AppsV1().RESTClient(), "daemonsets": env.client.AppsV1().RESTClient(),
	} {
		// From now on, so that nothing of a scenario is older.
		body, err := client.Get().Resource(resource).SetHeader("Accept", "application/json").
			VersionedParams(&metav1.ListOptions{Watch: true, TimeoutSeconds: new(int64(1800))}, metav1.ParameterCodec).Stream(ctx)
		if err != nil {
			t.Fatalf("watch %s: %v", resource, err)
		}
		wg.Go(func() {
			defer body.Close()
			if err := r.read(body); ctx.Err() == nil {
				t.Errorf("watch %s: %v; want it to go on until the end", resource, err)
			}
		})
	}
	return r
}

func (r *recorder) read(body io.Reader) error {
	dec := json.NewDecoder(body)
	dec.UseNumber()
	for {
		var e struct {
			Type   string         `json:"type"`
			Object map[string]any `json:"object"`
		}
		if err := dec.Decode(&e); err != nil {
			return err
		}
		meta, ok := e.Object["metadata"].(map[string]any)
		if !ok || e.Type == "ERROR" {
			return fmt.Errorf("event %s of %v", e.Type, e.Object)
		}
		delete(meta, "managedFields")
		revision, err := strconv.ParseUint(fmt.Sprint(meta["resourceVersion"]), 10, 64)
		line, encodeErr := json.Marshal(e)
		if err := errors.Join(err, encodeErr); err != nil {
			return err
		}
		r.mu.Lock()
		r.events = append(r.events, recorded{namespace: fmt.Sprint(meta["namespace"]), revision: revision, line: line})
		r.mu.Unlock()
	}
}

// of returns what was recorded of a namespace, in the order of revisions, once
// the last of it has come.
func (r *recorder) of(t *testing.T, namespace string) (lines [][]byte) {
	t.Helper()
	var mine []recorded
	waitFor(t, 10*time.Second, "the end of every object in "+namespace, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		mine = slices.DeleteFunc(slices.Clone(r.events), func(e recorded) bool { return e.namespace != namespace })
		created, deleted := 0, 0
		for _, e := range mine {
			switch {
			case strings.Contains(string(e.line), `"type":"ADDED"`):
				created++
			case strings.Contains(string(e.line), `"type":"DELETED"`):
				deleted++
			}
		}
		return created > 0 && created == deleted
	})
	slices.SortStableFunc(mine, func(a, b recorded) int { return cmp.Compare(a.revision, b.revision) })
	for _, e := range mine {
		lines = append(lines, e.line)
	}
	return lines
}
