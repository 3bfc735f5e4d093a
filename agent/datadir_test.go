package agent

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDataDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outrider-data")
	d, err := OpenDataDir(path, "platform-sync")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 || d.Path() != path {
		t.Errorf("got %v (%v), path %s, want mode 0700 and %s", info, err, d.Path(), path)
	}
	_, err = OpenDataDir(path, "other")
	if err == nil {
		t.Fatal("second: got no error")
	}
	got := since.ReplaceAllString(err.Error(), "since X")
	got = strings.ReplaceAll(got, pidText(), "pid 1")
	want := "data directory " + path + " is in use by pid 1 (service platform-sync, since X): stop it or set another data_dir"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = OpenDataDir(path, "third")
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	_ = d.Close()

	linked := t.TempDir()
	if err := os.Symlink(filepath.Join(path, "elsewhere"), filepath.Join(linked, "lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataDir(linked, "x"); err == nil {
		t.Error("a lock that is a link: got no error")
	}
	if err := os.WriteFile(filepath.Join(linked, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataDir(filepath.Join(linked, "file"), "x"); err == nil || !strings.Contains(err.Error(), "set data_dir") {
		t.Errorf("a file: got %v, want what to do", err)
	}
}

func TestALongDataDirCostsOnlyTheControlSocket(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	a := newAgent(t, Options{DataDir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if got := a.controlSpec(); got != "off" || !strings.Contains(log.String(), "path is too long") {
		t.Errorf("got %s, log %q, want off and a warning", got, log.String())
	}
}
