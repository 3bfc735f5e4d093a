package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var failpointCall = regexp.MustCompile(`(?:failpoint\.Here|\bs\.step)\("([^"]+)"\)`) // the file sink's step is one too; read-only

// failpoints reads the names of all places from the code.
func failpoints(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir("../statesync", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range failpointCall.FindAllSubmatch(b, -1) {
			names = append(names, string(m[1]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
