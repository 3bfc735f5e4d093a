package component

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"github.com/outrider-agent/outrider/e2e/cluster/pki"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

// Client limits are far above what two cores can do: the servers, not their clients' own throttle (20 to 50 requests a second by default), set the pace.
const (
	clientQPS   = 1000
	clientBurst = 2000
)

func newAPIServer() *cobra.Command         { return apiserver.NewAPIServerCommand() }
func newControllerManager() *cobra.Command { return controllermanager.NewControllerManagerCommand() }
func newScheduler() *cobra.Command         { return scheduler.NewSchedulerCommand() }

func apiServerFlags(given settings.Settings, files pki.Files) []string {
	return append(serving(given.Ports.APIServer, files),
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", given.Ports.Etcd),
		"--advertise-address=127.0.0.1",
		// An endpoint may not be a loopback address, so the Service "kubernetes" has none.
		"--endpoint-reconciler-type=none",
		// Without it a server that is asked to stop waits a minute for its watches to end by themselves.
		"--shutdown-watch-termination-grace-period=1s",
		"--authorization-mode=RBAC",
		"--token-auth-file="+files.Tokens,
		"--allow-privileged=true",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+files.ServiceAccountPublic,
		"--service-account-signing-key-file="+files.ServiceAccountKey,
	)
}

func controllerManagerFlags(dir settings.Dir, given settings.Settings, files pki.Files) []string {
	flags := append(serving(given.Ports.ControllerManager, files), client(dir)...)
	return append(flags,
		"--kubeconfig="+dir.ComponentKubeconfig(),
		"--leader-elect=false",
		fmt.Sprintf("--kube-api-qps=%d", clientQPS),
		fmt.Sprintf("--kube-api-burst=%d", clientBurst),
		"--root-ca-file="+files.CACert,
		"--service-account-private-key-file="+files.ServiceAccountKey,
		"--flex-volume-plugin-dir="+dir.FlexVolumes(),
	)
}

func schedulerFlags(dir settings.Dir, given settings.Settings, files pki.Files) []string {
	flags := append(serving(given.Ports.Scheduler, files), client(dir)...)
	return append(flags, "--config="+dir.SchedulerConfig())
}

// writeSchedulerConfig writes what the scheduler takes from a file only.
func writeSchedulerConfig(dir settings.Dir) error {
	config := fmt.Sprintf(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  kubeconfig: %q
  qps: %d
  burst: %d
leaderElection:
  leaderElect: false
enableProfiling: false
`, dir.ComponentKubeconfig(), clientQPS, clientBurst)
	if err := os.WriteFile(dir.SchedulerConfig(), []byte(config), 0o600); err != nil {
		return fmt.Errorf("write scheduler configuration: %w", err)
	}
	return nil
}
