package scenario

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/outrider-agent/outrider/statesync/simcluster"
)

// podLook returns pods as they come from charts and operators: a few KB.
func podLook(r *simcluster.Resource, name, image string, stays bool) *look {
	labels := map[string]string{
		"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "sim", "app.kubernetes.io/version": "2026.1",
		"sim.outrider.dev/cost-center": "4711", "sim.outrider.dev/queue": "default",
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Annotations: map[string]string{
				"cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
				"prometheus.io/scrape":                           "true", "prometheus.io/port": "9090", "prometheus.io/path": "/metrics",
				"sim.outrider.dev/source": `{"repository":"git.sim/` + name + `","revision":"8f2c1d77e0b94b0f8a3c5f6e2d1a9b8c7d6e5f40","pipeline":"release","built":"2026-01-07T09:12:44Z"}`,
			},
			Generation:    1,
			ManagedFields: managed("kube-controller-manager", "Update", `"f:metadata":{"f:annotations":{".":{}},"f:labels":{".":{},"f:app.kubernetes.io/name":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:env":{".":{}},"f:image":{},"f:resources":{".":{},"f:limits":{".":{},"f:cpu":{},"f:memory":{}}}}},"f:restartPolicy":{},"f:volumes":{".":{}}}`),
		},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{mainContainer(name, image)},
			Volumes:                       volumes(name),
			RestartPolicy:                 corev1.RestartPolicyNever,
			ServiceAccountName:            "default",
			SchedulerName:                 corev1.DefaultSchedulerName,
			DNSPolicy:                     corev1.DNSClusterFirst,
			TerminationGracePeriodSeconds: new(int64(grace)),
			Priority:                      new(int32(0)),
			EnableServiceLinks:            new(true),
			SecurityContext:               &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(1000)), FSGroup: new(int64(1000))},
			Tolerations: []corev1.Toleration{
				{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))},
				{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))},
			},
		},
		Status: corev1.PodStatus{QOSClass: corev1.PodQOSBurstable},
	}
	if stays {
		p.Spec.RestartPolicy = corev1.RestartPolicyAlways
		side := mainContainer(name, "registry.sim/mesh/proxy:1.24")
		side.Name, side.Env, side.Command = "proxy", side.Env[:2], []string{"/usr/local/bin/proxy", "--config", "/etc/proxy/config.yaml"}
		p.Spec.Containers = append(p.Spec.Containers, side)
	}
	return &look{resource: r, prefix: name, labels: labels, object: p}
}

func mainContainer(name, image string) corev1.Container {
	var env []corev1.EnvVar
	for _, v := range []string{"LOG_LEVEL=info", "REGION=eu-central-1", "DATA_PATH=/data/current", "HTTP_PROXY=http://proxy.sim:3128", "NO_PROXY=.svc,.cluster.local,10.0.0.0/8", "OMP_NUM_THREADS=4", "NCCL_DEBUG=WARN", "CACHE=/var/cache/" + name} {
		key, value, _ := strings.Cut(v, "=")
		env = append(env, corev1.EnvVar{Name: key, Value: value})
	}
	env = append(env, corev1.EnvVar{Name: "TOKEN", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name + "-token"}, Key: "token",
	}}})
	return corev1.Container{
		Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{"python", "-m", "sim." + strings.ReplaceAll(name, "-", "_")}, Args: []string{"--config", "/etc/sim/config.yaml", "--checkpoint-every", "15m"},
		Env:   env,
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {Name: "metrics", ContainerPort: 9090, Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("1Gi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi")},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "config", MountPath: "/etc/sim", ReadOnly: true},
			{Name: "data", MountPath: "/data"},
			{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true},
		},
		TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
}

func volumes(name string) []corev1.Volume {
	return []corev1.Volume{
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: name + "-config"}, DefaultMode: new(int32(0o644)),
		}}},
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name + "-data"}}},
		{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: new(int32(0o644)),
			Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: new(int64(3607)), Path: "token"}},
				{ConfigMap: &corev1.ConfigMapProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
				}},
			},
		}}},
	}
}

func managed(manager, operation, fields string) []metav1.ManagedFieldsEntry {
	return []metav1.ManagedFieldsEntry{{
		Manager: manager, Operation: metav1.ManagedFieldsOperationType(operation), APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1("{" + fields + "}"),
	}}
}
