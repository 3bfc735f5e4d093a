package alerts

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics/catalogue"
)

var update = flag.Bool("update", false, "write golden files, and alerts/generated")

// TestWhatIsGeneratedIsFresh holds alerts/generated to the rules that ship.
func TestWhatIsGeneratedIsFresh(t *testing.T) {
	set, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, b := range Backends() {
		files, err := b.Render(set, catalogue.Own())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := b.Render(set, catalogue.Own()); err != nil || !cmp.Equal(files, again) {
			t.Errorf("%s: rendered twice: two different results, %v", b.Name, err)
		}
		for _, f := range files {
			path := filepath.Join("generated", b.Name, f.Path)
			want = append(want, path)
			if !bytes.Contains(f.Data, []byte("outrider alerts render")) && !bytes.Contains(f.Data, []byte("managed-by:outrider")) {
				t.Errorf("%s: got no mark, want one by which outrider alerts render knows its own files", path)
			}
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(got), string(f.Data)); diff != "" {
				t.Errorf("%s is stale, run go test ./alerts -run Fresh -update (-file +rules):\n%s", path, diff)
			}
		}
	}
	var there []string
	err = filepath.WalkDir("generated", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			there = append(there, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if diff := cmp.Diff(there, want); diff != "" {
		t.Errorf("files in alerts/generated (-there +rendered)\n%s", diff)
	}
}

// TestTheTemplatesAreClean: rules to begin with are good rules.
func TestTheTemplatesAreClean(t *testing.T) {
	shipped, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	shipped.Rules = nil
	set, err := Load(shipped, "templates.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := Lint(set, catalogue.Own()); err != nil {
		t.Error(err)
	}
}
