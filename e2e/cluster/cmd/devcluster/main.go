// Command devcluster runs a real Kubernetes control plane with stand-in kubelets on this machine alone.
package main

import (
	"context"
	"os"

	"github.com/outrider-agent/outrider/e2e/cluster/command"
)

func main() {
	os.Exit(command.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
