package component

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/outrider-agent/outrider/e2e/cluster/kubelet"
	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

func runKubelet(ctx context.Context, dir settings.Dir, given settings.Settings) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	client, err := clientcmd.BuildConfigFromFlags("", dir.ComponentKubeconfig())
	if err != nil {
		return fmt.Errorf("run kubelet: %w", err)
	}
	return kubelet.Run(ctx, kubelet.Config{
		Client:      client,
		Nodes:       given.Nodes,
		PodsPerNode: given.PodsPerNode,
		Truth:       dir.Truth(),
		Health:      fmt.Sprintf("127.0.0.1:%d", given.Ports.Kubelet),
	})
}
