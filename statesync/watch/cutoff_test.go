package watch

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// TestAnEndWaitsWhilePodsAreForbidden: the permission to read pods is withdrawn
// and given back half a minute later, with the history still there: that the
// Job ran, its pod alone says.
func TestAnEndWaitsWhilePodsAreForbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.write(kwatch.Added, pod("other", "u0", 0, corev1.PodPending))
		x := onto(t, newRecord(), c, withJobs)
		passing(time.Second)
		c.refusing("pods", errors.New("no role"))
		c.cutOff("pods")
		passing(time.Second)
		c.write(kwatch.Added, job("j", "J", 0))
		c.write(kwatch.Added, pod("p", "P", 0, corev1.PodRunning, ownedBy("j", "J")))
		passing(time.Second)
		c.write(kwatch.Modified, pod("p", "P", 0, corev1.PodFailed, ownedBy("j", "J"), func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{StartedAt: p.CreationTimestamp, FinishedAt: p.CreationTimestamp, ExitCode: 3},
			}}}
		}))
		c.write(kwatch.Modified, job("j", "J", 0, func(j *batchv1.Job) { j.Status.Active = 1 }))
		c.write(kwatch.Modified, job("j", "J", 0, failed))
		passing(30 * time.Second)
		c.refusing("pods", nil)
		passing(20 * time.Second)
		wantTold(t, x.log, "J", "J 1 >Queued", "J 2 Queued>Running", "J 3 Running>Failed Failed")
	})
}
