package kubelet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	always    = corev1.RestartPolicyAlways
	onFailure = corev1.RestartPolicyOnFailure
	never     = corev1.RestartPolicyNever
)

// begin has a fraction of a second, which a pod's status drops.
var begin = time.Date(2026, 1, 2, 3, 4, 5, 900_000_000, time.UTC)

func newPod(policy corev1.RestartPolicy, annotations ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u1", Generation: 1, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{RestartPolicy: policy, Containers: []corev1.Container{{Name: "main", Image: "app:1"}, {Name: "proxy", Image: "proxy:1"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	for i := 0; i < len(annotations); i += 2 {
		pod.Annotations[Prefix+annotations[i]] = annotations[i+1]
	}
	return pod
}

// live lets the pod live as the kubelet would, on a clock of its own, and tells its story: the time and state of each status. A change happens to the pod at its time.
func live(pod *corev1.Pod, limit time.Duration, change func(*corev1.Pod), changeAt time.Duration) []string {
	var story []string
	now, at := begin, Moments{Since: begin}
	for now.Sub(begin) <= limit {
		if change != nil && now.Sub(begin) >= changeAt {
			change(pod)
			change = nil
			at.Deleting = now
		}
		step := Next(pod, at, now)
		switch {
		case step.Confirm:
			return append(story, fmt.Sprintf("%s confirm", now.Sub(begin)))
		case step.Status != nil:
			if pod.Status.StartTime == nil {
				at.Accepted = now
			}
			if !sameState(&pod.Status, step.Status) {
				at.Since = now
			}
			pod.Status = *whole(step.Status)
			story = append(story, fmt.Sprintf("%s %s", now.Sub(begin), brief(pod)))
			continue
		}
		wait := step.Wait
		if change != nil && (wait == 0 || begin.Add(changeAt).Sub(now) < wait) {
			wait = begin.Add(changeAt).Sub(now)
		}
		if wait == 0 {
			return story
		}
		now = now.Add(wait)
	}
	return story
}

// whole drops fractions of seconds, as the API server does.
func whole(status *corev1.PodStatus) *corev1.PodStatus {
	cut := func(t *metav1.Time) { t.Time = t.Truncate(time.Second) }
	if status.StartTime != nil {
		cut(status.StartTime)
	}
	for i := range status.ContainerStatuses {
		if running := status.ContainerStatuses[i].State.Running; running != nil {
			cut(&running.StartedAt)
		}
	}
	return status
}

// brief is phase, deciding reason, exit code and readiness.
func brief(pod *corev1.Pod) string {
	got := line(opStatus, pod, begin)
	parts := []string{string(got.Phase)}
	if got.Reason != "" {
		parts = append(parts, got.Reason)
	}
	if got.ExitCode != nil {
		parts = append(parts, fmt.Sprint(*got.ExitCode))
	}
	if got.Ready {
		parts = append(parts, "ready")
	}
	return strings.Join(parts, " ")
}

// A life is a pod with what happens to it, and its story.
type life struct {
	name   string
	pod    *corev1.Pod
	change func(*corev1.Pod)
	at     time.Duration
	want   []string
}

func TestLife(t *testing.T) {
	for _, test := range lives() {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, live(test.pod, time.Minute, test.change, test.at)); diff != "" {
				t.Errorf("story (-want +got):\n%s", diff)
			}
		})
	}
}

// lives are short ones, on a clock of their own.
func lives() []life {
	deleted := func(pod *corev1.Pod) { pod.DeletionTimestamp = new(metav1.NewTime(begin)) }
	return []life{
		{
			name: "a pod without annotations runs for ever", pod: newPod(always),
			want: []string{"0s Pending ContainerCreating", "50ms Running ready"},
		},
		{
			name: "a pod that has nothing to pull runs at once", pod: newPod(always, "pull", "0s"),
			want: []string{"0s Running ready"},
		},
		{
			name: "a run ends in success", pod: newPod(never, "run", "2s"),
			want: []string{"0s Pending ContainerCreating", "50ms Running ready", "2.05s Succeeded Completed 0"},
		},
		{
			name: "an exit code ends in failure", pod: newPod(never, "pull", "1s", "run", "2s", "exit", "3"),
			want: []string{"0s Pending ContainerCreating", "1s Running ready", "3s Failed Error 3"},
		},
		{
			name: "an exit code alone asks for an end", pod: newPod(never, "exit", "0"),
			want: []string{"0s Pending ContainerCreating", "50ms Running ready", "150ms Succeeded Completed 0"},
		},
		{
			name: "memory runs out", pod: newPod(never, "end", "OOMKilled"),
			want: []string{"0s Pending ContainerCreating", "50ms Running ready", "150ms Failed OOMKilled 137"},
		},
		{
			name: "a node evicts", pod: newPod(always, "run", "1s", "end", "Evicted"),
			want: []string{"0s Pending ContainerCreating", "50ms Running ready", "1.05s Failed Evicted 137"},
		},
		{
			name: "an image cannot be pulled", pod: newPod(always, "end", "ImagePullBackOff"),
			want: []string{"0s Pending ContainerCreating", "50ms Pending ErrImagePull", "150ms Pending ImagePullBackOff"},
		},
		{
			name: "a configuration is missing", pod: newPod(always, "pull", "0s", "end", "CreateContainerConfigError"),
			want: []string{"0s Pending ContainerCreating", "0s Pending CreateContainerConfigError"},
		},
		{
			name: "a node refuses the pod", pod: newPod(always, "end", "OutOfcpu"),
			want: []string{"0s Failed OutOfcpu"},
		},
		{
			name: "a misspelt annotation is refused", pod: newPod(always, "rum", "1s"),
			want: []string{"0s Failed InvalidDevclusterAnnotation"},
		},
		{
			name: "failures are restarted until one run succeeds", pod: newPod(onFailure, "run", "1s", "exit", "1,1,0"),
			want: []string{
				"0s Pending ContainerCreating", "50ms Running ready", "1.05s Running Error 1", "1.05s Running ready",
				"2.05s Running Error 1", "2.05s Running CrashLoopBackOff", "2.25s Running ready", "3.25s Succeeded Completed 0",
			},
		},
		{
			name: "readiness comes later than running", pod: newPod(always, "ready", "1s"),
			want: []string{"0s Pending ContainerCreating", "50ms Running", "1.05s Running ready"},
		},
		{
			name: "readiness never comes", pod: newPod(never, "ready", "never", "run", "1s"),
			want: []string{"0s Pending ContainerCreating", "50ms Running", "1.05s Succeeded Completed 0"},
		},
		{
			name: "a deadline ends a run, and counts from when the pod was accepted", pod: withDeadline(newPod(always), 2),
			want: []string{"0s Pending ContainerCreating", "50ms Running ready", "2s Failed DeadlineExceeded 137"},
		},
		{
			name: "a deadline ends a pod that cannot pull", pod: withDeadline(newPod(always, "end", "ErrImagePull"), 2),
			want: []string{"0s Pending ContainerCreating", "50ms Pending ErrImagePull", "2s Failed DeadlineExceeded 137"},
		},
		{
			name: "a deleted pod fails with SIGTERM's code", pod: newPod(always), change: deleted, at: time.Second,
			want: []string{"0s Pending ContainerCreating", "50ms Running ready", "1.02s Failed Error 143", "1.02s confirm"},
		},
		{
			name: "a deleted pod ends well if it says so", pod: newPod(always, "shutdown", "1s", "exit-on-delete", "0"), change: deleted, at: time.Second,
			want: []string{"0s Pending ContainerCreating", "50ms Running ready", "2s Succeeded Completed 0", "2s confirm"},
		},
		{
			name: "a pod deleted before it ran counts as failed", pod: newPod(always, "pull", "1m"), change: deleted, at: time.Second,
			want: []string{"0s Pending ContainerCreating", "1.02s Failed ContainerStatusUnknown 137", "1.02s confirm"},
		},
		{
			name: "a pod deleted after its end is confirmed at once", pod: newPod(never, "run", "0s", "shutdown", "1m"), change: deleted, at: time.Second,
			want: []string{"0s Pending ContainerCreating", "50ms Running ready", "50ms Succeeded Completed 0", "1s confirm"},
		},
	}
}

func withDeadline(pod *corev1.Pod, seconds int64) *corev1.Pod {
	pod.Spec.ActiveDeadlineSeconds = &seconds
	return pod
}

func TestBackoffGrowsToALimit(t *testing.T) {
	script, err := ParseScript(map[string]string{Prefix + "backoff": "100ms"})
	if err != nil {
		t.Fatal(err)
	}
	var got []time.Duration
	for _, restarts := range []int32{1, 2, 3, 5, 6, 100} {
		got = append(got, script.wait(restarts))
	}
	ms := time.Millisecond
	if diff := cmp.Diff([]time.Duration{100 * ms, 200 * ms, 400 * ms, 1600 * ms, 3000 * ms, 3000 * ms}, got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

// A kubelet that starts anew knows the pod's status only.
func TestNextAfterRestart(t *testing.T) {
	running := func(pod *corev1.Pod) *corev1.Pod {
		pod.Status = *accepted(pod, begin)
		script, err := ParseScript(pod.Annotations)
		if err != nil {
			t.Fatal(err)
		}
		pod.Status = *whole(runningStatus(pod, script, begin))
		return pod
	}
	tests := []struct {
		name string
		pod  *corev1.Pod
		now  time.Time
		want string
	}{
		{"a run that is not over is waited for", running(newPod(never, "run", "10s")), begin.Add(5 * time.Second), "wait 4.1s"},
		{"a run that ended meanwhile ends now", running(newPod(never, "run", "10s")), begin.Add(time.Minute), "Succeeded Completed 0"},
		{"an endless run is left alone", running(newPod(always)), begin.Add(time.Minute), "nothing"},
		{"a new pod is accepted", newPod(always), begin, "Pending ContainerCreating"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			step := Next(test.pod, Moments{Since: entered(&test.pod.Status, test.now)}, test.now)
			got := "nothing"
			switch {
			case step.Status != nil:
				test.pod.Status = *step.Status
				got = brief(test.pod)
			case step.Wait > 0:
				got = "wait " + step.Wait.String()
			}
			if got != test.want {
				t.Errorf("next: got %q, want %q", got, test.want)
			}
		})
	}
}

func runningStatus(pod *corev1.Pod, script Script, now time.Time) *corev1.PodStatus {
	return running(pod, script, 0, now)
}

func FuzzParseScript(f *testing.F) {
	f.Add("run", "2s")
	f.Add("exit", "1,1,0")
	f.Add("end", "OOMKilled")
	f.Fuzz(func(t *testing.T, name, value string) {
		script, err := ParseScript(map[string]string{Prefix + name: value})
		if err == nil && (len(script.Exits) == 0 || script.Run < 0 || script.Pull < 0) {
			t.Errorf("script of %s=%q: got %+v, want exit codes and no negative time", name, value, script)
		}
	})
}
