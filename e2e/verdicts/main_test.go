package verdicts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// env is where things are; set by TestMain and read-only after it.
var env struct {
	cache    string // the folder below which install.sh puts things
	required bool   // what is missing is a failure
	bin      string // a folder with the command outrider, also as check_digest
	outrider string // that command
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e/verdicts:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return 1, err
	}
	env.cache = filepath.Join(cache, "outrider-e2e")
	env.required = os.Getenv("CI") != "" || os.Getenv("OUTRIDER_E2E") != ""
	if _, err := os.Stat(filepath.Join(env.cache, "verdicts")); err != nil && !env.required {
		return m.Run(), nil
	}
	if env.bin, err = os.MkdirTemp("", "outrider-verdicts-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(env.bin)) }()
	env.outrider = filepath.Join(env.bin, "outrider")
	build := exec.Command("go", "build", "-o", env.outrider, "../../cmd/outrider")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build outrider: %w\n%s", err, out)
	}
	if err := os.Symlink("outrider", filepath.Join(env.bin, "check_digest")); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// need returns the full path of a file below the cache, such as
// verdicts/usr/sbin/nagios4, or skips the test.
func need(t *testing.T, file string) string {
	t.Helper()
	path := filepath.Join(env.cache, file)
	if _, err := os.Stat(path); err != nil {
		if env.required {
			t.Fatalf("got no %s, want what e2e/verdicts/install.sh and e2e/series/install.sh get, as make e2e does", path)
		}
		t.Skipf("got no %s, want what e2e/verdicts/install.sh and e2e/series/install.sh get, as make e2e does", path)
	}
	return path
}
