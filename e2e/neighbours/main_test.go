package neighbours

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// env is where things are; set by TestMain and read-only after it.
var env struct {
	outrider string // the command
	system   string // Debian's packages, unpacked
	venv     string // the exporter's Python
	missing  string // why the tests cannot run
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e/neighbours:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	env.missing = findInstalled()
	if env.missing != "" {
		if os.Getenv("CI") != "" || os.Getenv("OUTRIDER_E2E") != "" {
			return 1, errors.New(env.missing)
		}
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "outrider-neighbours-")
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

// findInstalled says why the tests cannot run; empty: they can.
func findInstalled() string {
	const run = ", want what e2e/neighbours/install.sh installs: run it"
	cache, err := os.UserCacheDir()
	if err != nil {
		return err.Error()
	}
	root := filepath.Join(cache, "outrider-e2e", "neighbours")
	env.system, env.venv = filepath.Join(root, "system"), filepath.Join(root, "venv")
	var want []byte
	for _, file := range []string{"install.sh", "testdata/exporter.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		want = append(want, text...)
	}
	got, err := os.ReadFile(filepath.Join(root, "installed"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "got nothing in " + root + run
	case err != nil:
		return err.Error()
	case string(bytes.TrimSpace(got)) != fmt.Sprintf("%x", sha256.Sum256(want)):
		return "got what another version installed in " + root + run
	}
	return ""
}

func needsInstalled(t *testing.T) {
	t.Helper()
	if env.missing != "" {
		t.Skip(env.missing)
	}
}
