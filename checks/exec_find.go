package checks

import (
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// pluginDirs is where distributions put Nagios' plugins. Read-only.
var pluginDirs = []string{"/usr/lib/nagios/plugins", "/usr/lib64/nagios/plugins"}

// findProgram returns the full path of a program, or says what is wrong with it.
func findProgram(name string, path []string) (full, wrong string) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			return "", "is relative to a folder that is not known"
		}
		return name, notRunnable(name)
	}
	wrong = "is neither in PATH nor in " + strings.Join(pluginDirs, " or ")
	if name == "" {
		return "", wrong
	}
	for _, dir := range slices.Concat(path, pluginDirs) {
		if !filepath.IsAbs(dir) {
			continue // such as ".": what runs must not depend on where the agent was started
		}
		full := filepath.Join(dir, name)
		switch why := notRunnable(full); why {
		case "":
			return full, ""
		case notThere:
		default:
			wrong = "is " + full + ", which " + why // one in a later folder may do
		}
	}
	return "", wrong
}

const notThere = "is not there"

// notRunnable says why a file cannot be run; "": it looks as if it can.
func notRunnable(path string) string {
	_, err := exec.LookPath(path)
	switch failed, is := errors.AsType[*exec.Error](err); {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return notThere
	case errors.Is(err, fs.ErrPermission):
		return "is not executable"
	case is:
		return "cannot be run: " + failed.Err.Error()
	}
	return "cannot be run: " + err.Error()
}
