package settings_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

func TestFillKeepsGivenPortsAndChoosesDifferentOnes(t *testing.T) {
	ports := settings.Ports{APIServer: 6443}
	if err := ports.Fill(); err != nil {
		t.Fatal(err)
	}
	if ports.APIServer != 6443 {
		t.Errorf("API server's port: got %d, want the given 6443", ports.APIServer)
	}
	seen := map[int]bool{}
	for _, port := range []int{ports.APIServer, ports.Etcd, ports.EtcdPeer, ports.ControllerManager, ports.Scheduler, ports.Kubelet} {
		if port == 0 || seen[port] {
			t.Errorf("ports: got %+v, want six different ones", ports)
		}
		seen[port] = true
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir, err := settings.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := settings.Load(dir); found || err != nil {
		t.Errorf("load from an empty directory: got found %t, error %v", found, err)
	}
	want := settings.Settings{Ports: settings.Ports{Etcd: 1}, Nodes: 2, PodsPerNode: 3, Extra: map[string][]string{"apiserver": {"--v=4"}}}
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, found, err := settings.Load(dir)
	if err != nil || !found {
		t.Fatalf("load: got found %t, error %v", found, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}
