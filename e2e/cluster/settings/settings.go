package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Settings are how a cluster was started. They are saved with it, so that the next start gets the same ports and the child processes need no flag but the directory.
type Settings struct {
	Ports Ports `json:"ports"`
	// Nodes is the number of nodes the stand-in kubelet registers, and PodsPerNode the pod capacity of each.
	Nodes       int `json:"nodes"`
	PodsPerNode int `json:"podsPerNode"`
	// UnsafeNoFsync lets etcd answer before its data is on disk.
	UnsafeNoFsync bool `json:"unsafeNoFsync,omitempty"`
	// Extra are further command-line flags by component.
	Extra map[string][]string `json:"extra,omitempty"`
}

// Ports are TCP ports on 127.0.0.1.
type Ports struct {
	APIServer         int `json:"apiserver"`
	Etcd              int `json:"etcd"`
	EtcdPeer          int `json:"etcdPeer"`
	ControllerManager int `json:"controllerManager"`
	Scheduler         int `json:"scheduler"`
	Kubelet           int `json:"kubelet"`
}

// Fill gives a free port to each that has none.
func (p *Ports) Fill() error {
	each := []*int{&p.APIServer, &p.Etcd, &p.EtcdPeer, &p.ControllerManager, &p.Scheduler, &p.Kubelet}
	taken := map[int]bool{}
	for _, port := range each {
		taken[*port] = true
	}
	for _, port := range each {
		if *port != 0 {
			continue
		}
		free, err := freePort(taken)
		if err != nil {
			return err
		}
		*port, taken[free] = free, true
	}
	return nil
}

// Load reads the settings saved in d; found is false where no cluster was ever started.
func Load(d Dir) (s Settings, found bool, err error) {
	data, err := os.ReadFile(d.settings())
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("read settings: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, false, fmt.Errorf("read settings %s: %w", d.settings(), err)
	}
	return s, true, nil
}

// Save writes the settings to d.
func (s Settings) Save(d Dir) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save settings: %w", err)
	}
	if err := os.WriteFile(d.settings(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("save settings: %w", err)
	}
	return nil
}
