// Package component runs one server of the cluster in this process, with the flags its cluster's settings ask for.
package component

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"

	"github.com/outrider-agent/outrider/e2e/cluster/pki"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

// The components, by the names users give them.
const (
	Etcd              = "etcd"
	APIServer         = "apiserver"
	ControllerManager = "controller-manager"
	Scheduler         = "scheduler"
	Kubelet           = "kubelet"
)

// Names lists the components in the order they start; they stop in the opposite one.
func Names() []string {
	return []string{Etcd, APIServer, ControllerManager, Scheduler, Kubelet}
}

// Program is the name of the real program, which the API server sees as its client's: os.Args[0] makes the user agent and the field manager.
func Program(name string) string {
	if name == Etcd || name == Kubelet {
		return name
	}
	return "kube-" + name
}

// Check refuses a name that is no component's.
func Check(name string) error {
	if slices.Contains(Names(), name) {
		return nil
	}
	return fmt.Errorf("component: got %q, want one of %s", name, strings.Join(Names(), ", "))
}

// Port is where the component listens for its clients.
func Port(name string, ports settings.Ports) int {
	switch name {
	case Etcd:
		return ports.Etcd
	case APIServer:
		return ports.APIServer
	case ControllerManager:
		return ports.ControllerManager
	case Scheduler:
		return ports.Scheduler
	default:
		return ports.Kubelet
	}
}

// ReadyURL answers 200 once the component does its work.
func ReadyURL(name string, ports settings.Ports) string {
	scheme, path := "https", "/readyz"
	switch name {
	case Etcd:
		scheme, path = "http", "/health"
	case ControllerManager:
		// It has no /readyz.
		path = "/healthz"
	case Kubelet:
		scheme, path = "http", "/healthz"
	}
	return fmt.Sprintf("%s://127.0.0.1:%d%s", scheme, Port(name, ports), path)
}

// Run runs the component of the cluster in dir until ctx ends or SIGTERM arrives, and gives the process's exit code. It takes over signals and the process-wide logger, so a process runs one component.
func Run(ctx context.Context, name string, dir settings.Dir) (int, error) {
	if err := Check(name); err != nil {
		return 2, err
	}
	// The process was started through /proc/self/exe, and would show as "exe" in ps. Its name is no matter for the cluster.
	_ = os.WriteFile("/proc/self/comm", []byte(Program(name)), 0)
	given, found, err := settings.Load(dir)
	if err != nil {
		return 1, err
	}
	if !found {
		return 1, fmt.Errorf("run %s: got no cluster in %s, want one started by devcluster up", name, dir)
	}
	switch name {
	case Etcd:
		return code(runEtcd(ctx, dir, given))
	case Kubelet:
		return code(runKubelet(ctx, dir, given))
	}
	command, flags, err := server(name, dir, given)
	if err != nil {
		return 1, err
	}
	// Flags given by the user come last, and so win.
	command.SetArgs(append(flags, given.Extra[name]...))
	return cli.Run(command), nil
}

// server gives the Kubernetes server's own command and our flags for it.
func server(name string, dir settings.Dir, given settings.Settings) (*cobra.Command, []string, error) {
	files := pki.In(dir.PKI())
	switch name {
	case APIServer:
		return newAPIServer(), apiServerFlags(given, files), nil
	case ControllerManager:
		return newControllerManager(), controllerManagerFlags(dir, given, files), nil
	case Scheduler:
		if err := writeSchedulerConfig(dir); err != nil {
			return nil, nil, err
		}
		return newScheduler(), schedulerFlags(dir, given, files), nil
	}
	panic("BUG: no server " + name)
}

// serving are the flags that make a server listen on 127.0.0.1 with the cluster's certificate.
func serving(port int, files pki.Files) []string {
	return []string{
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + files.ServerCert,
		"--tls-private-key-file=" + files.ServerKey,
		"--client-ca-file=" + files.CACert,
		"--profiling=false",
	}
}

// client are the flags of a server that is itself the API server's client. It knows the cluster's authority from its flags, so it need not look it up at start.
func client(dir settings.Dir) []string {
	return []string{
		"--authentication-kubeconfig=" + dir.ComponentKubeconfig(),
		"--authorization-kubeconfig=" + dir.ComponentKubeconfig(),
		"--authentication-skip-lookup=true",
	}
}

func code(err error) (int, error) {
	if err != nil {
		return 1, err
	}
	return 0, nil
}
