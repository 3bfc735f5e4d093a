package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/e2e/cluster/component"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
	"github.com/outrider-agent/outrider/e2e/cluster/supervisor"
)

func newUp(at func() (settings.Dir, error)) *cobra.Command {
	var flags settings.Settings
	var extra []string
	cmd := &cobra.Command{
		Use:   "up --dir DIR",
		Short: "Start a cluster and keep it up until SIGTERM or Ctrl-C",
		Long: `up starts a cluster in the directory, prints "ready" when pods can be created,
and keeps it up in the foreground. The directory keeps the cluster's data, ports
and certificates: the next up goes on with them, and flags given then replace
the earlier ones.

It writes to the directory:
  kubeconfig       administrator's access, complete in itself
  ready            present while the cluster is up and has been ready
  log/NAME.log     what a component printed
  kubelet.ndjson   what the stand-in kubelet set, a line each, after the API
                   server's answer`,
		Example: `  devcluster up --dir /tmp/dc
  devcluster up --dir /tmp/dc --port 6443 --nodes 10
  devcluster up --dir /tmp/dc --extra apiserver=--v=4`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := at()
			if err != nil {
				return err
			}
			given, err := merge(cmd, dir, flags, extra)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return supervisor.Run(ctx, dir, given, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	set := cmd.Flags()
	set.IntVar(&flags.Ports.APIServer, "port", 0, "port of the API server; 0 chooses a free one")
	set.IntVar(&flags.Ports.Etcd, "etcd-port", 0, "port of etcd; 0 chooses a free one")
	set.IntVar(&flags.Ports.ControllerManager, "controller-manager-port", 0, "port of the controller manager's health and metrics; 0 chooses a free one")
	set.IntVar(&flags.Ports.Scheduler, "scheduler-port", 0, "port of the scheduler's health and metrics; 0 chooses a free one")
	set.IntVar(&flags.Nodes, "nodes", 3, "number of nodes")
	set.IntVar(&flags.PodsPerNode, "pods-per-node", 1000, "pods that fit on a node")
	set.BoolVar(&flags.UnsafeNoFsync, "unsafe-no-fsync", false, "let etcd answer before its data is on disk: faster, but a crash of the machine loses data")
	set.StringArrayVar(&extra, "extra", nil, "further flag of a Kubernetes server, as apiserver=--v=4; can be repeated")
	return cmd
}

// merge puts the flags that were given over the settings that were saved.
func merge(cmd *cobra.Command, dir settings.Dir, flags settings.Settings, extra []string) (settings.Settings, error) {
	if flags.Nodes < 1 || flags.PodsPerNode < 1 {
		return flags, fmt.Errorf("got %d nodes of %d pods, want at least one of each", flags.Nodes, flags.PodsPerNode)
	}
	parsed, err := parseExtra(extra)
	if err != nil {
		return flags, err
	}
	saved, found, err := settings.Load(dir)
	if err != nil {
		return flags, err
	}
	if !found {
		flags.Extra = parsed
		return flags, nil
	}
	if cmd.Flags().Changed("nodes") && flags.Nodes < saved.Nodes {
		return flags, fmt.Errorf("--nodes: got %d, want at least the %d the cluster has", flags.Nodes, saved.Nodes)
	}
	for name, set := range map[string]func(){
		"port":                    func() { saved.Ports.APIServer = flags.Ports.APIServer },
		"etcd-port":               func() { saved.Ports.Etcd = flags.Ports.Etcd },
		"controller-manager-port": func() { saved.Ports.ControllerManager = flags.Ports.ControllerManager },
		"scheduler-port":          func() { saved.Ports.Scheduler = flags.Ports.Scheduler },
		"nodes":                   func() { saved.Nodes = flags.Nodes },
		"pods-per-node":           func() { saved.PodsPerNode = flags.PodsPerNode },
		"unsafe-no-fsync":         func() { saved.UnsafeNoFsync = flags.UnsafeNoFsync },
		"extra":                   func() { saved.Extra = parsed },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
	return saved, nil
}

func parseExtra(extra []string) (map[string][]string, error) {
	parsed := map[string][]string{}
	for _, each := range extra {
		name, flag, _ := strings.Cut(each, "=")
		switch name {
		case component.APIServer, component.ControllerManager, component.Scheduler:
			parsed[name] = append(parsed[name], flag)
		default:
			return nil, fmt.Errorf("--extra: got %q, want apiserver=, controller-manager= or scheduler= and a flag", each)
		}
	}
	return parsed, nil
}
