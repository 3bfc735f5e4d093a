package alerts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// wreckedAgent has beside what oncallAgent has much that is broken, so that commands
// which show what is wrong have something to show.
const wreckedAgent = oncallAgent + `    - {name: refusing, webhook: {url: "%[4]s/refused"}}
exporters:
  - {name: tsdb, every: 1s, opentsdb: {url: "%[4]s/broken"}}
collectors:
  - {name: nobody, every: 1s, prometheus: {url: "%[4]s/broken"}}
checks:
  - {name: disk, every: 1s, category: page, http: {url: "%[4]s/broken"}}
  - {name: mail, every: 1s, category: email, http: {url: "%[4]s/broken"}}
`

// wrecked are the checks that fail then. Read-only.
var wrecked = []string{"alert/pipeline-drops", "alert/sink-failing", "disk", "mail", "neighbour/nobody"}

// quietCommands may find nothing in that agent, and why: they end with grep, which
// then ends with 1. All others print something and end with 0. Read-only.
var quietCommands = map[string]string{
	"audit-corrections 1": "the watch was told everything",
	"checks-late 1":       "no check hangs",
	"checks-stuck 1":      "no check hangs",
	"checks-stuck 2":      "no check hangs, though one may run",
	"pipeline-balance 1":  "all books balance",
	"series-folded 1":     "no metric has more series than its budget",
	"series-folded 3":     "no metric has more series than its budget",
	"stream-gap 1":        "there is no gap",
}

// TestRunbooksCommandsRun runs what all runbooks have one look at first.
func TestRunbooksCommandsRun(t *testing.T) {
	w := oncallScene(t, wreckedAgent)
	w.beside.broken.Store(true)
	w.beside.dropping.Store(true)
	if _, err := exec.LookPath("nc"); err != nil { // as far as the runbooks need it
		place(t, w.dir, "nc", []byte("#!/bin/bash\nexec cat </dev/tcp/\"$1\"/\"$2\"\n"))
		if err := os.Chmod(filepath.Join(w.dir, "nc"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var failing []string
	if !boardBecomes(t, time.Minute, func() bool {
		failing = w.digest(t, "").Failing
		return !slices.ContainsFunc(wrecked, func(check string) bool { return !slices.Contains(failing, check) })
	}) {
		t.Fatalf("got the failing checks %q, want %q", failing, wrecked)
	}
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(pages) < 20 {
		t.Fatalf("got %d runbooks, %v, want those of all rules", len(pages), err)
	}
	for name := range quietCommands {
		page, _, _ := strings.Cut(name, " ")
		if !slices.Contains(pages, "../../docs/runbooks/"+page+".md") {
			t.Errorf("quietCommands has %s, want a page that is there", name)
		}
	}
	var ran atomic.Int64
	t.Run("of", func(t *testing.T) {
		for _, path := range pages {
			page := strings.TrimSuffix(filepath.Base(path), ".md")
			if page == "README" {
				continue
			}
			t.Run(page, func(t *testing.T) {
				t.Parallel()
				for i, command := range lookFirst(t, path) {
					if w.shows(t, fmt.Sprintf("%s %d", page, i+1), command) {
						ran.Add(1)
					}
				}
			})
		}
	})
	if want := int64(2 * len(pages)); ran.Load() < want {
		t.Errorf("ran %d commands, want %d or more: what do they need that is not here?", ran.Load(), want)
	}
}

var quoted = regexp.MustCompile(`'[^']*'`) // read-only

// shows runs a command and reports whether it did: its programs may be missing here.
func (w *oncallWorld) shows(t *testing.T, name, command string) bool {
	t.Helper()
	for stage := range strings.SplitSeq(quoted.ReplaceAllString(command, ""), " | ") {
		program, _, _ := strings.Cut(stage, " ")
		if _, err := w.runs(t, "command -v "+program); err != nil {
			t.Logf("%s: left out, there is no %s here: %s", name, program, command)
			return false
		}
	}
	out, err := w.runs(t, command)
	why, quiet := quietCommands[name]
	exit, _ := errors.AsType[*exec.ExitError](err)
	switch source, _, piped := strings.Cut(command, " | "); {
	case !quiet && err != nil:
		t.Errorf("%s: %s: %v\n%s", name, command, err, out)
	case !quiet && out == "":
		t.Errorf("%s: %s: printed nothing", name, command)
	case err != nil && (exit == nil || exit.ExitCode() != 1 || out != ""):
		t.Errorf("%s: %s: got %v, want at most that grep finds nothing, because %s\n%s", name, command, err, why, out)
	case quiet && piped:
		if out, _ := w.runs(t, source); out == "" { // a digest with failures is an error
			t.Errorf("%s: %s: printed nothing", name, source)
		}
	}
	return true
}
