package alertstest

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the table in docs/alerts.md")

// TestEveryDifferenceIsDocumented holds the table at the end of docs/alerts.md to the
// histories.
func TestEveryDifferenceIsDocumented(t *testing.T) {
	const path, mark = "../../docs/alerts.md", "<!-- differences: written by go test ./alerts/alertstest -update -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(text), mark)
	if !ok {
		t.Fatalf("%s has no line %s", path, mark)
	}
	var b strings.Builder
	b.WriteString(head + mark + "\n| history | in | the agent | there | why |\n|---|---|---|---|---|\n")
	for _, h := range Histories(t) {
		for _, backend := range slices.Sorted(maps.Keys(h.Differs)) {
			d := h.Differs[backend]
			if d.Why == "" {
				t.Errorf("%s: %s differs, and nobody says why", h.Name, backend)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", h.Name, backend, list(h.Want), list(d.Want), d.Why)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), b.String()); diff != "" {
		t.Errorf("%s is stale, run go test ./alerts/alertstest -update (-file +histories):\n%s", path, diff)
	}
}

func list(episodes []Episode) string {
	if len(episodes) == 0 {
		return "none"
	}
	out := make([]string, len(episodes))
	for i, e := range episodes {
		out[i] = string(e)
	}
	return strings.Join(out, ", ")
}
