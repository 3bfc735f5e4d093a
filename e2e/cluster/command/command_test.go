package command_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/e2e/cluster/command"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

func TestErrors(t *testing.T) {
	// Longer than the kernel takes as a socket's path.
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))
	made, err := settings.NewDir(deep)
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Create(); err != nil {
		t.Fatal(err)
	}
	if err := (settings.Settings{Nodes: 3, PodsPerNode: 10}).Save(made); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"a verb needs a directory", []string{"status"}, "devcluster: directory: got none, want --dir\n"},
		{
			"a directory without a cluster says how to start one",
			[]string{"status", "--dir", "/nowhere"},
			"devcluster: no cluster is running in /nowhere; start one with: devcluster up --dir /nowhere\n",
		},
		{"a long directory is no trouble", []string{"status", "--dir", deep}, "no cluster is running in"},
		{
			"an unknown component is named with those that exist",
			[]string{"kill", "--dir", deep, "proxy"},
			"devcluster: component: got \"proxy\", want one of etcd, apiserver, controller-manager, scheduler, kubelet\n",
		},
		{
			"nodes are not taken away",
			[]string{"up", "--dir", deep, "--nodes", "2"},
			"devcluster: --nodes: got 2, want at least the 3 the cluster has\n",
		},
		{
			"a cluster needs a node",
			[]string{"up", "--dir", deep, "--nodes", "0"},
			"devcluster: got 0 nodes of 1000 pods, want at least one of each\n",
		},
		{
			"an extra flag names its server",
			[]string{"up", "--dir", deep, "--extra", "--v=4"},
			"devcluster: --extra: got \"--v=4\", want apiserver=, controller-manager= or scheduler= and a flag\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := command.Run(context.Background(), test.args, &out, &errs); code == 0 {
				t.Errorf("exit code: got 0, want another")
			}
			if got := errs.String(); !strings.Contains(got, test.want) {
				t.Errorf("error: got %q, want %q", got, test.want)
			}
		})
	}
}
