package series

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// shared is what all tests use.
type shared struct {
	installed string // the folder that install.sh fills
	required  bool   // a server that is missing is a failure
	outrider  string // the binary; empty: not built, as nothing is installed
}

// env is set by TestMain and read-only after it.
var env shared

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e/series:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return 1, err
	}
	env.installed = filepath.Join(cache, "outrider-e2e", "series")
	env.required = os.Getenv("CI") != "" || os.Getenv("OUTRIDER_E2E") != ""
	if _, err := os.Stat(env.installed); err != nil && !env.required {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "outrider-series-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env.outrider = filepath.Join(dir, "outrider")
	build := exec.Command("go", "build", "-o", env.outrider, "../../cmd/outrider")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build outrider: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// need returns the path of a command that install.sh brings, or skips the test.
func need(t *testing.T, command string) string {
	t.Helper()
	path := filepath.Join(env.installed, command)
	if _, err := os.Stat(path); err != nil {
		if env.required {
			t.Fatalf("%s is missing: run e2e/series/install.sh, as make e2e does", path)
		}
		t.Skipf("%s is missing: run e2e/series/install.sh, as make e2e does", path)
	}
	return path
}
