package demo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFolderIsOfUseElsewhere(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", "tmp")
	dir, err := makeFolder()
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(dir) {
		t.Errorf("%s, want it whole", dir)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Errorf("no folder %s: %v", dir, err)
	}
	if err := enough("/tmp/x", leastRoom-1); err == nil || !strings.Contains(err.Error(), "room in /tmp: got 255 MiB free, want 256 MiB; set TMPDIR") {
		t.Errorf("too little room: %v", err)
	}
	if err := enough("/tmp/x", leastRoom); err != nil {
		t.Errorf("enough room: %v", err)
	}
}

// TestConfigurationFitsATerminal takes the longest addresses that there are.
func TestConfigurationFitsATerminal(t *testing.T) {
	for _, sink := range []string{SinkWebhook, SinkBatch, SinkFile} {
		const address = "127.0.0.1:65535"
		p := places{
			Folder: t.TempDir(), Public: address, Debug: address, Status: address, Receiver: address,
			Kubeconfig: "/x/cluster/kubeconfig", Sink: sink, Batch: batchSize,
		}
		if sink == SinkFile { // who reads it has no address
			p.Receiver = ""
		}
		text, err := p.writeConfig()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, "//\"") || strings.Contains(text, "///") || strings.Contains(text, "\n\n") {
			t.Errorf("%s: something is left empty:\n%s", sink, text)
		}
		for line := range strings.Lines(indent(text)) {
			if n := len(strings.TrimSuffix(line, "\n")); n >= 80 {
				t.Errorf("%s: %d columns, want less than 80: %s", sink, n, line)
			}
		}
	}
}
