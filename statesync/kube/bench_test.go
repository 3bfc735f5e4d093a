package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// BenchmarkDecode compares client-go's decoder with the one that reads in
// part: an event of a watch, as it comes off the wire.
func BenchmarkDecode(b *testing.B) {
	objects := map[string]*corev1.Pod{"pod=real": realPod(), "pod=small": smallPod()}
	codecs := map[string]runtime.NegotiatedSerializer{"codecs=stock": scheme.Codecs.WithoutConversion(), "codecs=lean": leanOf(b, podKind())}
	for size, pod := range objects {
		data := event(b, "MODIFIED", encoded(b, pod))
		for name, c := range codecs {
			b.Run(size+"/"+name, func(b *testing.B) {
				object, event := decoders(b, c)
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					var e metav1.WatchEvent
					if _, _, err := event.Decode(data, nil, &e); err != nil {
						b.Fatal(err)
					}
					if _, err := runtime.Decode(object, e.Object.Raw); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// realPod is a pod as clusters have them: 7 KB.
func realPod() *corev1.Pod {
	now := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	p := smallPod()
	p.Annotations = map[string]string{
		"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "checksum/config": strings.Repeat("0a", 32),
		"cni.projectcalico.org/podIP": "10.1.2.3/32", "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z",
	}
	for _, manager := range []string{"kube-controller-manager", "kubelet"} {
		p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{
			Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &now, FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{` + strings.Repeat(`"f:app.kubernetes.io/name":{},`, 45) + `".":{}}}`),
		})
	}
	probe := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080), Scheme: "HTTP"}},
		PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
	}
	p.Spec.ServiceAccountName, p.Spec.SchedulerName, p.Spec.DNSPolicy = "trainer", "default-scheduler", "ClusterFirst"
	for i := range 2 {
		c := corev1.Container{
			Name: fmt.Sprintf("main-%d", i), Image: "registry.example.com/team/trainer:v1.2.3", ImagePullPolicy: "IfNotPresent",
			Command: []string{"/bin/trainer"}, Args: []string{"--config=/etc/trainer/config.yaml", "--log-level=info"},
			LivenessProbe: probe, ReadinessProbe: probe, TerminationMessagePath: "/dev/termination-log",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("1Gi")}},
		}
		for n := range 16 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_NUMBER_%d", n), Value: "a value of some length, such as an address"})
		}
		for n := range 4 {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: fmt.Sprintf("volume-%d", n), MountPath: fmt.Sprintf("/mnt/volume-%d", n)})
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
	for n := range 4 {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{
			Name:         fmt.Sprintf("volume-%d", n),
			VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
		})
	}
	p.Status.HostIP, p.Status.PodIP, p.Status.PodIPs, p.Status.QOSClass = "10.0.0.1", "10.1.2.3", []corev1.PodIP{{IP: "10.1.2.3"}}, "Burstable"
	for _, typ := range []corev1.PodConditionType{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: typ, Status: "True", LastTransitionTime: now})
	}
	for i := range 2 {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: fmt.Sprintf("main-%d", i), Ready: true, Image: "registry.example.com/team/trainer:v1.2.3",
			ImageID:     "registry.example.com/team/trainer@sha256:" + strings.Repeat("0a", 32),
			ContainerID: "containerd://" + strings.Repeat("0b", 32), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	return p
}

// smallPod is a pod of the size that the simulated cluster has.
func smallPod() *corev1.Pod {
	now, yes := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "training-7f9c-x2v4k", Namespace: "team-a", UID: "6d1ff0e5-7c0b-4d3c-8a55-1d2f2a3b4c5d", ResourceVersion: "123456789", CreationTimestamp: now,
			Labels: map[string]string{"app.kubernetes.io/name": "training", "batch.kubernetes.io/job-name": "training-7f9c", "team": "a"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "batch/v1", Kind: "Job", Name: "training-7f9c", UID: "0f5e3f0a-94cf-4ef1-9c45-6e5a4a1d0b11", Controller: &yes, BlockOwnerDeletion: &yes,
			}},
		},
		Spec:   corev1.PodSpec{NodeName: "node-17", RestartPolicy: corev1.RestartPolicyNever},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now},
	}
}
