package demo

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/statesync"
)

// changeOf is an event as the agent sends it.
func changeOf(t *testing.T, uid string, seq int64, from, to statesync.State) []byte {
	t.Helper()
	b, err := statesync.MarshalEvent(statesync.Delivery{
		Change: statesync.Change{
			ID: fmt.Sprintf("%s-%d", uid, seq), Cluster: "sim", Epoch: 1, Number: seq, Seq: seq, From: from, To: to,
			Workload: statesync.Ref{Kind: "Pod", Namespace: "a", Name: uid, UID: uid},
		},
		PreviousSeq: seq - 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func gapOf(t *testing.T) []byte {
	t.Helper()
	b, err := statesync.MarshalEvent(statesync.Delivery{Change: statesync.Change{
		ID: "gap", Cluster: "sim", Epoch: 1, Number: 9, Seq: 1, Workload: statesync.StreamRef("pods"),
		Gap: &statesync.Gap{Stream: "pods", Reason: statesync.GapExpired},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// post signs a body with the key and has the receiver answer it.
func post(r *receiver, key, body []byte) int {
	q := httptest.NewRequest(http.MethodPost, "/changes", bytes.NewReader(body))
	stamp := strconv.FormatInt(r.now().Unix(), 10)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "id.%s.%s", stamp, body)
	q.Header.Set("Webhook-Id", "id")
	q.Header.Set("Webhook-Timestamp", stamp)
	q.Header.Set("Webhook-Signature", "v2,x v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	q.Header.Set("Content-Type", "application/cloudevents+json")
	if body[0] == '[' {
		q.Header.Set("Content-Type", "application/cloudevents-batch+json; charset=utf-8")
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, q)
	return w.Code
}

func TestReceiverTakesEachChangeOnce(t *testing.T) {
	key := []byte("a key")
	var told []Told
	now := time.Unix(1_800_000_000, 0)
	r := newReceiver(Manner{}, key, func() time.Time { return now }, func(news []Told) { told = append(told, news...) })
	queued, running := changeOf(t, "u1", 1, "", statesync.Queued), changeOf(t, "u1", 2, statesync.Queued, statesync.Running)
	batch := bytes.Join([][]byte{[]byte("["), queued, []byte(","), running, []byte("]")}, nil)
	for _, step := range []struct {
		key, body []byte
		want      int
	}{
		{[]byte("another"), queued, http.StatusUnauthorized},
		{key, queued, http.StatusNoContent},
		{key, batch, http.StatusNoContent},
		{key, gapOf(t), http.StatusNoContent},
		{key, []byte("{}"), http.StatusBadRequest},
		{key, changeOf(t, "u1", 4, statesync.Queued, statesync.Running), http.StatusNoContent},
	} {
		if got := post(r, step.key, step.body); got != step.want {
			t.Errorf("%s: status %d, want %d", step.body, got, step.want)
		}
	}
	at := now.UnixNano()
	if diff := cmp.Diff([]Told{{"u1", "Queued", at}, {"u1", "Running", at}, {"u1", "Running", at}}, told); diff != "" {
		t.Errorf("told: %s", diff)
	}
	got, last, problem := r.whole()
	if diff := cmp.Diff(Taken{Changes: 3, Duplicates: 1, Gaps: 1, Holes: 1, Unsigned: 1}, got); diff != "" {
		t.Errorf("taken: %s", diff)
	}
	if want := "a/Pod/u1: seq 3 to 3"; problem != want || !last.Equal(now) {
		t.Errorf("problem %q, the last at %s, want %q and %s", problem, last, want, now)
	}
}

func TestReceiverIsDownForItsWindow(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newReceiver(Manner{Down: &Window{5 * time.Second, 15 * time.Second}}, nil, func() time.Time { return now }, func([]Told) {})
	body := changeOf(t, "u1", 1, "", statesync.Queued)
	now = now.Add(7 * time.Second)
	if got := post(r, nil, body); got != http.StatusNoContent {
		t.Errorf("before the beginning: status %d, want 204", got)
	}
	r.begin()
	began := now
	for at, want := range map[time.Duration]int{0: 204, 5*time.Second - 1: 204, 5 * time.Second: 503, 15*time.Second - 1: 503, 15 * time.Second: 204} {
		now = began.Add(at)
		if got := post(r, nil, body); got != want {
			t.Errorf("after %s: status %d, want %d", at, got, want)
		}
	}
}

func TestReceiverTakesNoMoreThanItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(Manner{Latency: time.Millisecond, Rate: 1500}, nil, time.Now, func([]Told) {})
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 300 {
			body := changeOf(t, fmt.Sprint("u", i), 1, "", statesync.Queued)
			wg.Go(func() { post(r, nil, body) })
		}
		wg.Wait()
		if took := time.Since(began).Round(time.Millisecond); took != 200*time.Millisecond {
			t.Errorf("300 changes at 1500/s took %s, want 200ms", took)
		}
		began = time.Now()
		post(r, nil, changeOf(t, "late", 1, "", statesync.Queued))
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("an answer alone took %s, want 1ms", took)
		}
		r.manner.Latency = time.Hour
		began = time.Now()
		wg.Go(func() { post(r, nil, changeOf(t, "v", 1, "", statesync.Queued)) })
		synctest.Wait()
		r.hurry()
		r.hurry()
		wg.Wait()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the receiver took %s once it was to hurry", took)
		}
	})
}

func TestFollowReadsWhatIsAppended(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.ndjson")
	told := make(chan Told, 10)
	r := newReceiver(Manner{}, nil, time.Now, func(news []Told) {
		for _, n := range news {
			told <- n
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- r.follow(t.Context(), path) }()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := string(changeOf(t, "u1", 1, "", statesync.Queued)) + "\n"
	long := strings.Replace(string(changeOf(t, "u2", 1, "", statesync.Failed)), `"message":""`, `"message":"`+strings.Repeat("x", 1<<17)+`"`, 1) + "\n"
	for _, part := range []string{line[:20], line[20:] + long[:70_000], long[70_000:]} {
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"u1 Queued", "u2 Failed"} {
		select {
		case n := <-told:
			if got := n.UID + " " + n.State; got != want {
				t.Errorf("told %s, want %s", got, want)
			}
		case err := <-ended:
			t.Fatalf("follow ended: %v", err)
		case <-time.After(20 * time.Second):
			t.Fatal("nothing was told in 20s")
		}
	}
	if _, err := f.WriteString("{}\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("follow ended with %v, want an error that names the file", err)
	}
}

func TestParseWindow(t *testing.T) {
	for text, want := range map[string]string{
		"5s..15s": "5s..15s", "0s..1m": "0s..1m0s",
		"15s..5s": `got "15s..5s", want an end after the beginning, such as 5s..15s`,
		"5s":      `got "5s", want a beginning and an end, such as 5s..15s`,
		"5s..":    `got "" in "5s..", want a duration, as in 5s..15s`,
		"-5s..5s": `got "-5s" in "-5s..5s", want a duration, as in 5s..15s`,
	} {
		w, err := ParseWindow(text)
		got := w.String()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
