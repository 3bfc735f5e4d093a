package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

const (
	// The figures of a real kubelet: a lease of 40 s, renewed every 10 s.
	leaseDuration = 40 * time.Second
	leaseRenewal  = 10 * time.Second
	// After a failure the lease is tried again soon, so that nodes are not lost when the API server comes back after a while.
	leaseRetry   = 500 * time.Millisecond
	nodeDeadline = 10 * time.Second
	// hostIP is every node's address: a request to a node's kubelet, for logs say, fails at once and leaves no machine.
	hostIP = "127.0.0.1"
)

// nodes keeps the cluster's nodes registered and alive.
type nodes struct {
	client   kubernetes.Interface
	clock    clock.Clock
	count    int
	capacity corev1.ResourceList
	done     atomic.Bool
}

func newNodes(client kubernetes.Interface, clk clock.Clock, count, podsPerNode int) *nodes {
	return &nodes{client: client, clock: clk, count: count, capacity: corev1.ResourceList{
		corev1.ResourcePods:             *resource.NewQuantity(int64(podsPerNode), resource.DecimalSI),
		corev1.ResourceCPU:              resource.MustParse("10000"),
		corev1.ResourceMemory:           resource.MustParse("100Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("100Ti"),
	}}
}

func (n *nodes) names() []string {
	names := make([]string, n.count)
	for i := range names {
		names[i] = "node-" + strconv.Itoa(i)
	}
	return names
}

// registered tells whether every node was registered once by this process.
func (n *nodes) registered() bool { return n.done.Load() }

// run renews every node until ctx ends.
func (n *nodes) run(ctx context.Context) error {
	for {
		wait := leaseRenewal
		if err := n.renewAll(ctx); err != nil && ctx.Err() == nil {
			slog.Warn("nodes not renewed", "err", err)
			wait = leaseRetry
		} else if err == nil {
			n.done.Store(true)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.clock.After(wait):
		}
	}
}

func (n *nodes) renewAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nodeDeadline)
	defer cancel()
	for _, name := range n.names() {
		node, err := n.ensure(ctx, name)
		if err != nil {
			return fmt.Errorf("register %s: %w", name, err)
		}
		if err := n.renew(ctx, node); err != nil {
			return fmt.Errorf("renew lease of %s: %w", name, err)
		}
	}
	return nil
}

// ensure registers the node, and says that it is ready where the API server holds otherwise: the node controller turns a node whose lease ran out to unknown, and only its kubelet turns it back.
func (n *nodes) ensure(ctx context.Context, name string) (*corev1.Node, error) {
	// Resource version 0 is answered from the API server's cache, as for a real kubelet.
	node, err := n.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		node, err = n.client.CoreV1().Nodes().Create(ctx, n.object(name), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			node, err = n.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		}
	}
	if err != nil {
		return nil, err
	}
	if isReady(node) && node.Status.Capacity.Pods().Equal(*n.capacity.Pods()) {
		return node, nil
	}
	node = node.DeepCopy()
	node.Status = n.status(name)
	return n.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
}

func (n *nodes) renew(ctx context.Context, node *corev1.Node) error {
	leases := n.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := metav1.NewMicroTime(n.clock.Now())
	lease, err := leases.Get(ctx, node.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name: node.Name,
				OwnerReferences: []metav1.OwnerReference{{
					APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
				}},
			},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity:       new(node.Name),
				LeaseDurationSeconds: new(int32(leaseDuration / time.Second)),
				RenewTime:            &now,
			},
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

func (n *nodes) object(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname:   name,
			corev1.LabelOSStable:   "linux",
			corev1.LabelArchStable: "amd64",
			"type":                 "devcluster",
		}},
		Status: n.status(name),
	}
}

func (n *nodes) status(name string) corev1.NodeStatus {
	now := metav1.NewTime(n.clock.Now())
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	return corev1.NodeStatus{
		Capacity:    n.capacity,
		Allocatable: n.capacity,
		Conditions: []corev1.NodeCondition{
			condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
			condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
			condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
			condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
		},
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: hostIP},
			{Type: corev1.NodeHostName, Address: name},
		},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: "v1.36.0-devcluster", ContainerRuntimeVersion: "devcluster://0",
			OperatingSystem: "linux", Architecture: "amd64", OSImage: "devcluster",
		},
	}
}

func isReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
