package component

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/outrider-agent/outrider/e2e/cluster/settings"
)

// watchProgress is what kubeadm gives etcd.
const watchProgress = 5 * time.Second

// EtcdName is the member name of the only etcd.
const EtcdName = "devcluster"

// EtcdPeerURL is the address the member is known by, in its data too.
func EtcdPeerURL(ports settings.Ports) string {
	peer := loopback(ports.EtcdPeer)
	return peer.String()
}

func runEtcd(ctx context.Context, dir settings.Dir, given settings.Settings) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	server, err := embed.StartEtcd(etcdConfig(dir, given))
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("run etcd: %w", err)
	case <-server.Server.StopNotify():
		return fmt.Errorf("run etcd: server stopped by itself")
	}
}

func etcdConfig(dir settings.Dir, given settings.Settings) *embed.Config {
	config := embed.NewConfig()
	config.Name = EtcdName
	config.Dir = dir.EtcdData()
	config.UnsafeNoFsync = given.UnsafeNoFsync
	client, peer := loopback(given.Ports.Etcd), loopback(given.Ports.EtcdPeer)
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(EtcdName)
	// The API server's watch caches use progress notifications to serve consistent reads.
	config.WatchProgressNotifyInterval = watchProgress
	return config
}

func loopback(port int) url.URL {
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
}
