package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/v3"
	clientsnapshot "go.etcd.io/etcd/client/v3/snapshot"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"github.com/outrider-agent/outrider/e2e/cluster/component"
)

// compact drops etcd's history, so that a watch from an older revision is answered 410 once the API server's own cache of it is gone too, that is after its restart.
func (s *Supervisor) compact(ctx context.Context) (string, error) {
	client, err := clientv3.New(s.etcd())
	if err != nil {
		return "", fmt.Errorf("compact: %w", err)
	}
	defer func() { _ = client.Close() }() // what it could say, the calls have said
	got, err := client.Get(ctx, "compact", clientv3.WithCountOnly())
	if err != nil {
		return "", fmt.Errorf("compact: %w", err)
	}
	revision := got.Header.Revision
	if _, err := client.Compact(ctx, revision, clientv3.WithCompactPhysical()); err != nil {
		return "", fmt.Errorf("compact to revision %d: %w", revision, err)
	}
	if _, err := client.Defragment(ctx, s.etcd().Endpoints[0]); err != nil {
		return "", fmt.Errorf("defragment: %w", err)
	}
	return fmt.Sprintf("compacted to revision %d", revision), nil
}

// snapshot saves etcd's data while it runs.
func (s *Supervisor) snapshot(ctx context.Context, file string) (string, error) {
	if !filepath.IsAbs(file) {
		return "", fmt.Errorf("snapshot: got file %q, want an absolute path", file)
	}
	if _, err := clientsnapshot.SaveWithVersion(ctx, zap.NewNop(), s.etcd(), file); err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	status, err := snapshot.NewV3(zap.NewNop()).Status(file)
	if err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	return fmt.Sprintf("saved revision %d", status.Revision), nil
}

// restore stops all components, puts etcd's data back to the snapshot and starts all again. The data that was there is kept until the snapshot has been unpacked.
func (s *Supervisor) restore(ctx context.Context, file string) (string, error) {
	manager := snapshot.NewV3(zap.NewNop())
	status, err := manager.Status(file)
	if err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	if err := s.stopAll(downPatience); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	if err := s.unpack(manager, file); err != nil {
		// Better the old cluster than none.
		return "", errors.Join(fmt.Errorf("restore: %w", err), s.startAll(ctx))
	}
	if err := s.startAll(ctx); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	if err := s.waitUsable(ctx); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	return fmt.Sprintf("restored revision %d", status.Revision), nil
}

// unpack replaces etcd's data directory.
func (s *Supervisor) unpack(manager snapshot.Manager, file string) error {
	data := s.dir.EtcdData()
	fresh, old := data+".restored", data+".old"
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(old)); err != nil {
		return err
	}
	peer := component.EtcdPeerURL(s.settings.Ports)
	err := manager.Restore(snapshot.RestoreConfig{
		SnapshotPath:        file,
		Name:                component.EtcdName,
		OutputDataDir:       fresh,
		PeerURLs:            []string{peer},
		InitialCluster:      component.EtcdName + "=" + peer,
		InitialClusterToken: component.EtcdName,
	})
	if err != nil {
		return err
	}
	if err := os.Rename(data, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, data); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

func (s *Supervisor) etcd() clientv3.Config {
	return clientv3.Config{
		Endpoints: []string{fmt.Sprintf("http://127.0.0.1:%d", s.settings.Ports.Etcd)},
		Logger:    zap.NewNop(),
	}
}
