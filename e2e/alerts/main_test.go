package alerts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// env is where things are; set by TestMain and read-only after it.
var env struct {
	cache    string // the folder below which install.sh puts things
	required bool   // what is missing is a failure
}

func TestMain(m *testing.M) {
	cache, err := os.UserCacheDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e/alerts:", err)
		os.Exit(1)
	}
	env.cache = filepath.Join(cache, "outrider-e2e")
	env.required = os.Getenv("CI") != "" || os.Getenv("OUTRIDER_E2E") != ""
	os.Exit(m.Run())
}

// need returns the full path of a file below the cache, such as
// alerts/usr/bin/promtool, or skips the test.
func need(t *testing.T, file string) string {
	t.Helper()
	path := filepath.Join(env.cache, file)
	if _, err := os.Stat(path); err != nil {
		const text = "got no %s, want what e2e/alerts/install.sh gets, as make e2e does"
		if env.required {
			t.Fatalf(text, path)
		}
		t.Skipf(text, path)
	}
	return path
}

// run runs a command and returns what it prints. It fails the test if the command does.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// write writes a file into a folder of the test's own, and returns its path.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// try runs a command that may fail.
func try(t *testing.T, name string, args ...string) (out string, ok bool) {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(text), err == nil
}
