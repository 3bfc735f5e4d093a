// Package settings is what one development cluster keeps in its directory: where each file lies, which ports it was given and how it was started.
package settings

import (
	"fmt"
	"os"
	"path/filepath"
)

// A Dir is the directory of one cluster, an absolute path.
type Dir string

// NewDir makes path absolute, so that child processes and the kubeconfig agree on it whatever directory they run in.
func NewDir(path string) (Dir, error) {
	if path == "" {
		return "", fmt.Errorf("directory: got none, want --dir")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("directory %s: %w", path, err)
	}
	return Dir(abs), nil
}

// Create makes the directory and its folders. They are private to the user: they hold the keys of the cluster.
func (d Dir) Create() error {
	for _, folder := range []string{string(d), d.PKI(), d.Logs()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return fmt.Errorf("create cluster directory: %w", err)
		}
	}
	return nil
}

// PKI is the folder of certificates and keys.
func (d Dir) PKI() string { return d.join("pki") }

// Logs is the folder of the components' logs.
func (d Dir) Logs() string { return d.join("log") }

// Log is the file that takes a component's output.
func (d Dir) Log(component string) string { return d.join("log", component+".log") }

// EtcdData is etcd's data directory.
func (d Dir) EtcdData() string { return d.join("etcd") }

// Kubeconfig is the administrator's client configuration.
func (d Dir) Kubeconfig() string { return d.join("kubeconfig") }

// ComponentKubeconfig is the client configuration of the components themselves.
func (d Dir) ComponentKubeconfig() string { return d.join("pki", "components.kubeconfig") }

// SchedulerConfig is the scheduler's own configuration file.
func (d Dir) SchedulerConfig() string { return d.join("scheduler.yaml") }

// FlexVolumes is an empty folder for the controller manager, which would otherwise make one under /usr.
func (d Dir) FlexVolumes() string { return d.join("flexvolumes") }

// Truth is the stand-in kubelet's log of what it set.
func (d Dir) Truth() string { return d.join("kubelet.ndjson") }

// Control is the supervisor's unix socket.
func (d Dir) Control() string { return d.join("control") }

// Ready is the file that exists while the cluster is up and has been seen ready.
func (d Dir) Ready() string { return d.join("ready") }

// Lock is the file that the running supervisor holds locked.
func (d Dir) Lock() string { return d.join("lock") }

func (d Dir) settings() string { return d.join("settings.json") }

func (d Dir) join(parts ...string) string {
	return filepath.Join(append([]string{string(d)}, parts...)...)
}
