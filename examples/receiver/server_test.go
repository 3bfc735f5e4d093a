package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/examples/receiver/story"
)

// change is an event as it is sent.
func change(uid string, seq, previous int64, more string) string {
	from := "Running"
	if seq == 1 {
		from = ""
	}
	return fmt.Sprintf(`{"specversion":"1.0","id":"%s-%d","source":"/clusters/c/workloads/%s","type":"dev.outrider.workload.changed","subject":"n/Pod/%s",`+
		`"time":"2026-03-01T00:00:00Z","data":{"from":"%s","to":"Running","seq":%d,"previous":%d,"epoch":1%s}}`, uid, seq, uid, uid, from, seq, previous, more)
}

// open starts a notebook on a store, and a surface.
func open(t *testing.T, store string) (*httptest.Server, *notebook) {
	t.Helper()
	notes, err := openNotebook(store, time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- notes.run(ctx) }()
	s := &server{notes: notes, maxBody: 1 << 20, logger: slog.New(slog.DiscardHandler)}
	surface := httptest.NewServer(s.handler())
	t.Cleanup(func() {
		surface.Close()
		cancel()
		<-done
		notes.close()
	})
	return surface, notes
}

func post(t *testing.T, surface *httptest.Server, contentType, body string) int {
	t.Helper()
	resp, err := surface.Client().Post(surface.URL+"/changes", contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func get(t *testing.T, surface *httptest.Server, path string) (string, http.Header) {
	t.Helper()
	resp, err := surface.Client().Get(surface.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: status %d, error %v", path, resp.StatusCode, err)
	}
	return string(b), resp.Header
}

func TestPost(t *testing.T) {
	one, two := change("a", 1, 0, ""), change("a", 2, 1, "")
	for name, tt := range map[string]struct {
		contentType, body string
		want              int
		applied           int64
	}{
		"one":                {oneEvent, one, 204, 1},
		"one, with charset":  {oneEvent + "; charset=utf-8", one, 204, 1},
		"a batch":            {manyEvents, "[" + one + ",\n" + two + "]", 204, 2},
		"an empty batch":     {manyEvents, "[]", 204, 0},
		"a batch, half good": {manyEvents, "[" + one + ", {}]", 400, 0},
		"a batch as one":     {oneEvent, "[" + one + "]", 400, 0},
		"two, as one":        {oneEvent, one + two, 400, 0},
		"no JSON":            {oneEvent, "x", 400, 0},
		"another version":    {oneEvent, strings.Replace(one, `"1.0"`, `"2.0"`, 1), 400, 0},
		"previous above seq": {oneEvent, change("a", 1, 3, ""), 400, 0},
		"another type":       {"application/json", one, 415, 0},
		"no type":            {"", one, 415, 0},
		"too large":          {oneEvent, change("a", 1, 0, `,"x":"`+strings.Repeat("x", 1<<20)+`"`), 413, 0},
	} {
		t.Run(name, func(t *testing.T) {
			surface, notes := open(t, "")
			if got := post(t, surface, tt.contentType, tt.body); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
			if r := notes.report(10); r.Applied != tt.applied {
				t.Errorf("%d applied, want %d", r.Applied, tt.applied)
			}
		})
	}
}

func TestUnsignedIsRefused(t *testing.T) {
	_, notes := open(t, "")
	s := &server{notes: notes, keys: [][]byte{[]byte("k")}, maxBody: 1 << 20, logger: slog.New(slog.DiscardHandler)}
	surface := httptest.NewServer(s.handler())
	defer surface.Close()
	if got := post(t, surface, oneEvent, change("a", 1, 0, "")); got != http.StatusUnauthorized {
		t.Errorf("status %d, want 401", got)
	}
	if r := notes.report(1); r.Events != 0 {
		t.Errorf("%d events were taken", r.Events)
	}
}

// TestTheStoreSurvives: what was acknowledged is there after a restart, each
// change once, and a line that a crash tore is not.
func TestTheStoreSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.ndjson")
	surface, first := open(t, path)
	for _, body := range []string{change("a", 1, 0, ""), change("a", 3, 1, `,"skipped":[{"from":2,"to":2,"cause":"dead_letter"}]`), change("a", 1, 0, "")} {
		if got := post(t, surface, oneEvent, body); got != 204 {
			t.Fatalf("status %d, want 204", got)
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(change("a", 4, 3, "")[:50])
	f.Close()
	first.close()

	again, notes := open(t, path)
	if r := notes.report(10); r.Applied != 2 || r.Repeats != 0 || len(r.Missing) != 1 || r.Missing[0].From != 2 || !r.Whole {
		t.Errorf("after a restart: %+v; want 2 applied, and seq 2 missing as a dead letter", r)
	}
	post(t, again, oneEvent, change("a", 3, 1, ""))
	post(t, again, manyEvents, "["+change("a", 2, 1, `,"replayed":true`)+","+change("a", 4, 3, "")+"]")
	if r := notes.report(10); r.Applied != 3 || r.Filled != 1 || r.Repeats != 1 || r.MissingRuns != 0 {
		t.Errorf("after the replay: %+v; want 3 applied, 1 filled, 1 repeat, nothing missing", r)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for line := range bytes.Lines(text) {
		e, err := story.Decode(line)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		ids = append(ids, e.ID)
	}
	if want := []string{"a-1", "a-3", "a-2", "a-4"}; !slices.Equal(ids, want) {
		t.Errorf("the store has %v, want %v", ids, want)
	}
}

func TestAStoreThatIsNoneIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.ndjson")
	if err := os.WriteFile(path, []byte("something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openNotebook(path, time.Hour, time.Now); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("error %v, want one that names line 1", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "something else\n" {
		t.Errorf("the file was changed: %q", text)
	}
}

// TestAFileWithoutALineBreakIsLeftAlone, unless it is a line that a crash tore.
func TestAFileWithoutALineBreakIsLeftAlone(t *testing.T) {
	for text, want := range map[string]string{
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		`{"key": "of something else"}`:           `{"key": "of something else"}`,
		change("a", 1, 0, ""):                    "",
		`{"spec`:                                 "",
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := openNotebook(path, time.Hour, time.Now)
		if err == nil {
			n.close()
		}
		if got, _ := os.ReadFile(path); string(got) != want || (err == nil) != (want == "") {
			t.Errorf("%q is now %q, error %v; want %q", text, got, err, want)
		}
	}
}

// TestAStoreBelongsToOneReceiver: two would not know what the other has.
func TestAStoreBelongsToOneReceiver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.ndjson")
	n, err := openNotebook(path, time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := openNotebook(path, time.Hour, time.Now); err == nil || !strings.Contains(err.Error(), "another receiver") {
		t.Errorf("opened twice: %v, %v", second, err)
	}
	n.close()
	if n, err = openNotebook(path, time.Hour, time.Now); err != nil {
		t.Fatal(err)
	}
	n.close()
}

// TestReplaysAreStored even where the book thinks that it has them: a store
// that lost lines gets them back by nothing else.
func TestReplaysAreStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.ndjson")
	surface, _ := open(t, path)
	for _, body := range []string{change("a", 1, 0, ""), change("a", 1, 0, ""), change("a", 1, 0, `,"replayed":true`)} {
		if got := post(t, surface, oneEvent, body); got != 204 {
			t.Fatalf("status %d, want 204", got)
		}
	}
	text, err := os.ReadFile(path)
	if n := bytes.Count(text, []byte("\n")); err != nil || n != 2 || !bytes.Contains(text, []byte(`"replayed":true`)) {
		t.Errorf("%d lines, error %v, want the change and its replay:\n%s", n, err, text)
	}
}

// TestTheStoreIsTheBook: what is read back counts for marks as what was taken.
func TestTheStoreIsTheBook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.ndjson")
	surface, notes := open(t, path)
	for _, body := range []string{
		change("a", 3, 0, `,"initial":true,"number":0`), // where it stands
		change("a", 3, 2, `,"number":2`),                // and the change itself
		`{"specversion":"1.0","id":"m","source":"/clusters/c/sinks/s","type":"dev.outrider.mark","data":{"previous":1,"number":2,"changes":1}}`,
	} {
		if got := post(t, surface, oneEvent, body); got != 204 {
			t.Fatalf("status %d, want 204", got)
		}
	}
	if r := notes.report(1); !r.Whole || r.Since != 1 {
		t.Fatalf("whole %v since %d, want it since 1", r.Whole, r.Since)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := path + ".copy"
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openNotebook(copied, time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if r := again.report(1); !r.Whole {
		t.Errorf("not whole after a restart: %v", r.Accounts)
	}
}

// TestARestartForgetsInTime: what has ended is not remembered anew.
func TestARestartForgetsInTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.ndjson")
	ended := strings.Replace(change("a", 1, 0, ""), `"to":"Running"`, `"to":"Succeeded"`, 1)
	if err := os.WriteFile(path, []byte(ended+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	end := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	n, err := openNotebook(path, 24*time.Hour, func() time.Time { return end.Add(23 * time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	n.with(func(b *story.Book) { b.Forget(end.Add(25 * time.Hour)) })
	if r := n.report(1); r.Forgotten != 1 {
		t.Errorf("%d forgotten 25 hours after the end, want 1 after 24", r.Forgotten)
	}
}

// TestWhatIsNotStoredIsNotAcknowledged: nor is its repeat, and the notebook
// ends, because nobody knows what the file holds.
func TestWhatIsNotStoredIsNotAcknowledged(t *testing.T) {
	notes, err := openNotebook(filepath.Join(t.TempDir(), "changes.ndjson"), time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- notes.run(context.Background()) }()
	notes.close() // every write fails
	e, err := story.Decode([]byte(change("a", 1, 0, "")))
	if err != nil {
		t.Fatal(err)
	}
	if err := notes.take(context.Background(), []story.Event{e}, [][]byte{[]byte("x")}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want that of the file", err)
	}
	if err := <-done; err == nil {
		t.Error("the notebook goes on without its store")
	}
	if r := notes.report(1); r.Events != 0 {
		t.Errorf("%d events in the book, want none", r.Events)
	}
}

// TestManyAtOnce has lanes send at the same time, each with repeats.
func TestManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "changes.ndjson")
	surface, notes := open(t, path)
	var wg sync.WaitGroup
	for lane := range 8 {
		wg.Go(func() {
			for seq := int64(1); seq <= 10; seq++ {
				body := change(fmt.Sprint("w", lane), seq, seq-1, "")
				for range 2 {
					resp, err := surface.Client().Post(surface.URL, oneEvent, strings.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusNoContent {
						t.Errorf("status %d", resp.StatusCode)
					}
				}
			}
		})
	}
	wg.Wait()
	r := notes.report(1)
	if r.Applied != 80 || r.Repeats != 80 || !r.Whole {
		t.Errorf("%+v; want 80 applied, 80 repeats", r)
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Count(text, []byte("\n")) != 80 {
		t.Errorf("%d lines, error %v; want 80", bytes.Count(text, []byte("\n")), err)
	}
}

func TestPageAndReport(t *testing.T) {
	surface, _ := open(t, "")
	text, header := get(t, surface, "/")
	if !strings.Contains(text, "<title>Whole") || !strings.Contains(text, "none yet") || !strings.Contains(text, `name="viewport"`) || strings.Contains(text, "<script") {
		t.Errorf("the empty page:\n%s", text)
	}
	if got := header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") {
		t.Errorf("policy %q", got)
	}
	post(t, surface, oneEvent, strings.ReplaceAll(change("a", 3, 2, ""), "n/Pod/a", "n/Pod/<b>"))
	text, _ = get(t, surface, "/")
	for _, want := range []string{"<title>Not whole", "2 changes missing", "n/Pod/&lt;b&gt;", "<td>1..2</td><td>not accounted for</td>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	text, _ = get(t, surface, "/report")
	var r story.Report
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Whole || r.Unexplained != 2 || len(r.Missing) != 1 {
		t.Errorf("report %s, error %v", text, err)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(oneEvent, []byte(change("a", 1, 0, "")))
	f.Add(manyEvents+"; charset=utf-8", []byte("["+change("a", 1, 0, "")+",\n"+change("b", 2, 1, "")+"]"))
	f.Add("x/y; =", []byte("["))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		events, texts, status, err := decode(contentType, body)
		if (err != nil) != (status != 0) || len(events) != len(texts) {
			t.Fatalf("%d events, %d texts, status %d, error %v", len(events), len(texts), status, err)
		}
		for i, text := range texts {
			if again, err := story.Decode(text); err != nil || again.ID != events[i].ID || bytes.ContainsAny(text, "\n\r") {
				t.Fatalf("line %q: %v", text, err)
			}
		}
	})
}
