package watch

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// A play is what happens to one Job and its pods, as the Job controller and
// the kubelet write it: each event with its time. Which stream shows what when
// is not its concern.
type play struct {
	began time.Time
	skew  time.Duration // that the cluster's clock is wrong by
	job   *batchv1.Job
	pods  map[string]*corev1.Pod
	beats []beat
	shown []string // to the agent, and when it was down
	stays bool     // the agent is never down
	from  int      // the time at which it is started: what was before is in its first lists
}

type beat struct {
	at     time.Duration
	typ    kwatch.EventType
	object runtime.Object
}

// time is a time of the play, in whole seconds as Kubernetes writes it.
func (p *play) time(at int) metav1.Time {
	return metav1.NewTime(p.began.Add(p.skew + time.Duration(at)*time.Millisecond)).Rfc3339Copy()
}

func (p *play) beat(at int, typ kwatch.EventType, obj runtime.Object) {
	p.beats = append(p.beats, beat{time.Duration(at) * time.Millisecond, typ, obj.DeepCopyObject()})
}

// jobIs writes the Job, with what edit changes.
func (p *play) jobIs(at int, edit func(*batchv1.Job)) {
	typ := kwatch.Modified
	if p.job == nil {
		typ, p.job = kwatch.Added, job("j", "J", 0)
		p.job.CreationTimestamp = p.time(at)
	}
	before := p.job.DeepCopy()
	if edit != nil {
		edit(p.job)
	}
	if typ == kwatch.Added || !equality.Semantic.DeepEqual(before.Spec, p.job.Spec) {
		p.job.Generation++
	}
	p.beat(at, typ, p.job)
}

func (p *play) jobGoes(at int) {
	p.beat(at, kwatch.Deleted, p.job)
}

// starts is what the controller writes when it takes the Job up, or again.
func (p *play) starts(at int) {
	p.jobIs(at, func(j *batchv1.Job) {
		now := p.time(at)
		j.Status.StartTime, j.Status.Active = &now, 1
	})
}

func (p *play) counts(at int, active, ready, failed, succeeded int32) {
	p.jobIs(at, func(j *batchv1.Job) {
		j.Status.Active, j.Status.Ready, j.Status.Failed, j.Status.Succeeded = active, &ready, failed, succeeded
	})
}

func (p *play) condition(at int, typ batchv1.JobConditionType, reason string, status corev1.ConditionStatus) {
	p.jobIs(at, func(j *batchv1.Job) {
		c := batchv1.JobCondition{Type: typ, Status: status, Reason: reason, LastTransitionTime: p.time(at)}
		i := slices.IndexFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == typ })
		if i < 0 {
			j.Status.Conditions = append(j.Status.Conditions, c)
		} else {
			j.Status.Conditions[i] = c
		}
	})
}

func (p *play) podIs(name string, at int, edit func(*corev1.Pod)) {
	typ := kwatch.Modified
	if p.pods[name] == nil {
		typ = kwatch.Added
		p.pods[name] = pod(name, name, 0, corev1.PodPending, ownedBy("j", "J"))
		p.pods[name].CreationTimestamp = p.time(at)
	}
	if edit != nil {
		edit(p.pods[name])
	}
	p.beat(at, typ, p.pods[name])
}

func (p *play) podRuns(name string, at int) {
	p.podIs(name, at, func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodRunning
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Running: &corev1.ContainerStateRunning{StartedAt: p.time(at)},
		}}}
	})
}

func (p *play) podEnds(name string, at int, exit int32) {
	p.podIs(name, at, func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodSucceeded
		if exit != 0 {
			pod.Status.Phase = corev1.PodFailed
		}
		started := pod.CreationTimestamp
		if s := pod.Status.ContainerStatuses; len(s) > 0 && s[0].State.Running != nil {
			started = s[0].State.Running.StartedAt
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{StartedAt: started, FinishedAt: p.time(at), ExitCode: exit},
		}}}
	})
}

// podIsToGo is a deletion that the kubelet has not confirmed.
func (p *play) podIsToGo(name string, at int) {
	p.podIs(name, at, func(pod *corev1.Pod) { now := p.time(at); pod.DeletionTimestamp = &now })
}

func (p *play) podGoes(name string, at int) {
	p.beat(at, kwatch.Deleted, p.pods[name])
}

// plays are the lives of a Job, each with the story that is to be told.
var plays = map[string]struct {
	play func(*play)
	want string
}{
	"it succeeds": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		p.podIs("a", 110, nil)
		p.podRuns("a", 1_500)
		p.counts(2_000, 1, 1, 0, 0)
		p.podEnds("a", 4_000, 0)
		p.counts(4_500, 0, 0, 0, 1)
		p.condition(5_000, batchv1.JobComplete, "CompletionsReached", corev1.ConditionTrue)
	}, "Queued>Running>Succeeded(CompletionsReached)"},
	"it fails after three attempts, each too short to be counted as ready": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		for i, name := range []string{"a", "b", "c"} {
			at := i * 2_000
			p.podIs(name, at+200, nil)
			p.podRuns(name, at+700)
			p.podEnds(name, at+800, 3)
			p.counts(at+1_500, min(1, int32(2-i)), 0, int32(i+1), 0)
		}
		p.condition(5_600, batchv1.JobFailureTarget, "BackoffLimitExceeded", corev1.ConditionTrue)
		p.condition(5_800, batchv1.JobFailed, "BackoffLimitExceeded", corev1.ConditionTrue)
	}, "Queued>Running>Failed(BackoffLimitExceeded)"},
	"its pods are gone before it has failed": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		p.podIs("a", 200, nil)
		p.podRuns("a", 700)
		p.podEnds("a", 800, 3)
		p.podIsToGo("a", 900)
		p.podGoes("a", 1_000)
		p.counts(1_500, 0, 0, 1, 0)
		p.condition(1_900, batchv1.JobFailed, "BackoffLimitExceeded", corev1.ConditionTrue)
	}, "Queued>Running>Failed(BackoffLimitExceeded)"},
	"its deadline passes and no pod ever ran": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		p.podIs("a", 200, nil)
		p.condition(5_000, batchv1.JobFailureTarget, "DeadlineExceeded", corev1.ConditionTrue)
		p.podIsToGo("a", 5_050)
		p.podGoes("a", 5_100)
		p.counts(5_200, 0, 0, 1, 0)
		p.condition(5_300, batchv1.JobFailed, "DeadlineExceeded", corev1.ConditionTrue)
	}, "Queued>Failed(DeadlineExceeded)"},
	"it is deleted and no pod ever ran": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		p.podIs("a", 200, nil)
		p.jobGoes(3_000)
		p.podIsToGo("a", 3_050)
		p.podGoes("a", 3_200)
	}, "Queued>Cancelled(Deleted)"},
	"it is deleted at once": {func(p *play) {
		p.jobIs(0, nil)
		p.jobGoes(100)
	}, "Queued>Cancelled(Deleted)"},
	"it is deleted in the background while it runs, and was not counted as ready": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		p.podIs("a", 200, nil)
		p.podRuns("a", 900)
		p.jobGoes(1_000)
		p.podIsToGo("a", 1_100)
		p.podEnds("a", 1_900, 143)
		p.podGoes("a", 2_000)
	}, "Queued>Running>Cancelled(Deleted)"},
	"it is deleted in the background while it runs": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		p.podIs("a", 200, nil)
		p.podRuns("a", 900)
		p.counts(1_500, 1, 1, 0, 0)
		p.jobGoes(4_000)
		p.podIsToGo("a", 4_100)
		p.podEnds("a", 4_900, 143)
		p.podGoes("a", 5_000)
	}, "Queued>Running>Cancelled(Deleted)"},
	"it is deleted in the foreground while it runs": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		p.podIs("a", 200, nil)
		p.podRuns("a", 900)
		p.counts(1_500, 1, 1, 0, 0)
		p.jobIs(4_000, func(j *batchv1.Job) { now := p.time(4_000); j.DeletionTimestamp = &now })
		p.podIsToGo("a", 4_100)
		p.podEnds("a", 4_900, 143)
		p.podGoes("a", 5_000)
		p.jobGoes(5_100)
	}, "Queued>Running>Cancelled(Deleted)"},
	"its pods end after it": {func(p *play) {
		p.jobIs(0, nil)
		p.starts(100)
		for _, name := range []string{"a", "b"} {
			p.podIs(name, 200, nil)
			p.podRuns(name, 900)
		}
		p.counts(1_500, 2, 2, 0, 0)
		p.podEnds("a", 3_000, 0)
		p.condition(3_500, batchv1.JobSuccessCriteriaMet, "SuccessPolicy", corev1.ConditionTrue)
		p.condition(4_000, batchv1.JobComplete, "SuccessPolicy", corev1.ConditionTrue)
		p.podIsToGo("b", 4_500)
		p.podEnds("b", 6_000, 143)
		p.podGoes("b", 6_100)
		p.podGoes("a", 9_000)
		p.jobGoes(9_100)
	}, "Queued>Running>Succeeded(SuccessPolicy)"},
	"it is suspended and goes on": {func(p *play) {
		p.twice()
		p.podEnds("b", 15_000, 0)
		p.counts(15_500, 0, 0, 0, 1)
		p.condition(15_600, batchv1.JobComplete, "CompletionsReached", corev1.ConditionTrue)
	}, "Queued>Running>Queued(Suspended)>Running>Succeeded(CompletionsReached)"},
	"it is suspended, goes on and fails soon": {func(p *play) {
		p.twice()
		p.podEnds("b", 13_500, 1)
		p.counts(13_600, 0, 0, 1, 0)
		p.condition(13_700, batchv1.JobFailureTarget, "BackoffLimitExceeded", corev1.ConditionTrue)
		p.condition(13_700, batchv1.JobFailed, "BackoffLimitExceeded", corev1.ConditionTrue)
	}, "Queued>Running>Queued(Suspended)>Running>Failed(BackoffLimitExceeded)"},
	"it is suspended twice": {func(p *play) {
		p.twice()
		p.jobIs(14_000, func(j *batchv1.Job) { yes := true; j.Spec.Suspend = &yes })
		p.podIsToGo("b", 14_050)
		p.isSuspended(14_100)
		p.podEnds("b", 14_900, 143)
		p.podGoes("b", 15_000)
	}, "Queued>Running>Queued(Suspended)>Running>Queued(Suspended)"},
	"it is made suspended, goes on at once and succeeds": {func(p *play) {
		p.madeSuspended(50)
		p.podEnds("a", 300, 0)
		p.counts(310, 0, 0, 0, 1)
		p.condition(320, batchv1.JobComplete, "CompletionsReached", corev1.ConditionTrue)
	}, "Queued>Running>Succeeded(CompletionsReached)"},
	"it is made suspended, goes on later and fails": {func(p *play) {
		p.madeSuspended(2_000)
		p.podEnds("a", 2_300, 1)
		p.counts(2_310, 0, 0, 1, 0)
		p.condition(2_320, batchv1.JobFailed, "BackoffLimitExceeded", corev1.ConditionTrue)
	}, "Queued>Running>Failed(BackoffLimitExceeded)"},
	"it is made suspended, goes on at once and fails, and its pod is gone": {func(p *play) {
		p.stays = true
		p.madeSuspended(50)
		p.podEnds("a", 300, 1)
		p.podGoes("a", 305)
		p.counts(310, 0, 0, 1, 0)
		p.condition(320, batchv1.JobFailed, "BackoffLimitExceeded", corev1.ConditionTrue)
	}, "Queued>Running>Failed(BackoffLimitExceeded)"},
	"it goes on within the second, and is deleted before a pod runs": {func(p *play) {
		p.stays = true // which pods are of the run before, only memory says
		p.jobIs(0, nil)
		p.starts(10)
		p.podIs("a", 20, nil)
		p.podIs("b", 25, nil)
		p.podRuns("a", 100)
		p.podRuns("b", 105)
		p.counts(110, 2, 2, 0, 0)
		p.jobIs(300, func(j *batchv1.Job) { yes := true; j.Spec.Suspend = &yes })
		p.podIsToGo("b", 310) // before the one that has set it running
		p.podIsToGo("a", 315)
		p.isSuspended(320)
		p.podEnds("a", 400, 143)
		p.podEnds("b", 400, 143)
		p.jobIs(500, func(j *batchv1.Job) { no := false; j.Spec.Suspend = &no })
		p.podIs("c", 520, nil)
		p.condition(530, batchv1.JobSuspended, "JobResumed", corev1.ConditionFalse)
		p.starts(540)
		p.jobGoes(700)
		p.podIsToGo("c", 710)
		p.podGoes("c", 720)
	}, "Queued>Running>Queued(Suspended)>Cancelled(Deleted)"},
	"it goes on within the second, and fails": {func(p *play) {
		p.stays = true // which pods are of the run before, only memory says
		p.brief()
		p.goesOn(500, "b")
		p.podEnds("b", 700, 1)
		p.counts(710, 0, 0, 1, 0)
		p.condition(720, batchv1.JobFailed, "BackoffLimitExceeded", corev1.ConditionTrue)
	}, "Queued>Running>Queued(Suspended)>Running>Failed(BackoffLimitExceeded)"},
	"it goes on within the second and fails, and all is gone": {func(p *play) {
		p.stays = true
		p.brief()
		p.goesOn(500, "b")
		p.podEnds("b", 700, 1)
		p.counts(710, 0, 0, 1, 0)
		p.condition(720, batchv1.JobFailed, "BackoffLimitExceeded", corev1.ConditionTrue)
		p.podIsToGo("b", 800)
		p.podGoes("b", 810)
		p.jobGoes(820)
	}, "Queued>Running>Queued(Suspended)>Running>Failed(BackoffLimitExceeded)"},
	"the clock is put back an hour while it is suspended, and it goes on and is deleted": {func(p *play) {
		p.stays = true
		p.stops()
		p.skew = -time.Hour
		p.goesOn(12_000, "b")
		p.podIsToGo("b", 15_000)
		p.jobGoes(15_100)
		p.podEnds("b", 15_900, 143)
		p.podGoes("b", 16_000)
	}, "Queued>Running>Queued(Suspended)>Running>Cancelled(Deleted)"},
	"the clock is put back an hour while it runs, and it is suspended, goes on and is deleted before a pod runs": {func(p *play) {
		p.stays = true
		p.jobIs(0, nil)
		p.starts(100)
		p.podIs("a", 200, nil)
		p.podRuns("a", 900)
		p.counts(1_500, 1, 1, 0, 0)
		p.skew = -time.Hour
		p.jobIs(4_000, func(j *batchv1.Job) { yes := true; j.Spec.Suspend = &yes })
		p.podIsToGo("a", 4_050)
		p.isSuspended(4_100)
		p.podEnds("a", 4_900, 143)
		p.podGoes("a", 5_000)
		p.goesOnInVain(12_000)
	}, "Queued>Running>Queued(Suspended)>Cancelled(Deleted)"},
	"it runs when the agent starts, the clock is put back while it is suspended, and it goes on and is deleted before a pod runs": {func(p *play) {
		p.stays = true
		p.from = 2_000
		p.stops()
		p.skew = -time.Hour
		p.goesOnInVain(12_000)
	}, "Queued>Running>Queued(Suspended)>Cancelled(Deleted)"},
}

// goesOnInVain resumes the Job, and deletes it before its new pod runs.
func (p *play) goesOnInVain(at int) {
	p.jobIs(at, func(j *batchv1.Job) { no := false; j.Spec.Suspend = &no })
	p.condition(at+20, batchv1.JobSuspended, "JobResumed", corev1.ConditionFalse)
	p.podIs("b", at+30, nil)
	p.starts(at + 40)
	p.jobGoes(at + 13_000)
	p.podIsToGo("b", at+13_100)
	p.podGoes("b", at+13_200)
}

// brief runs the Job and suspends it, within a second.
func (p *play) brief() {
	p.jobIs(0, nil)
	p.starts(10)
	p.podIs("a", 20, nil)
	p.podRuns("a", 100)
	p.counts(110, 1, 1, 0, 0)
	p.jobIs(300, func(j *batchv1.Job) { yes := true; j.Spec.Suspend = &yes })
	p.podIsToGo("a", 310)
	p.isSuspended(320)
	p.podEnds("a", 400, 143)
	p.podGoes("a", 410)
}

// stops runs the Job, and suspends it.
func (p *play) stops() {
	p.jobIs(0, nil)
	p.starts(100)
	p.podIs("a", 200, nil)
	p.podRuns("a", 900)
	p.counts(1_500, 1, 1, 0, 0)
	p.jobIs(4_000, func(j *batchv1.Job) { yes := true; j.Spec.Suspend = &yes })
	p.podIsToGo("a", 4_050)
	p.isSuspended(4_100)
	p.podEnds("a", 4_900, 143)
	p.podGoes("a", 5_000)
}

// madeSuspended makes the Job suspended, and runs it some milliseconds after.
func (p *play) madeSuspended(after int) {
	p.jobIs(0, func(j *batchv1.Job) { yes := true; j.Spec.Suspend = &yes })
	p.isSuspended(10)
	p.goesOn(after, "a")
}

// goesOn resumes the Job, and runs it with a new pod.
func (p *play) goesOn(at int, pod string) {
	p.jobIs(at, func(j *batchv1.Job) { no := false; j.Spec.Suspend = &no })
	p.condition(at+20, batchv1.JobSuspended, "JobResumed", corev1.ConditionFalse)
	p.podIs(pod, at+30, nil)
	p.starts(at + 40)
	p.podRuns(pod, at+100)
}

// twice runs the Job, suspends it, and runs it again.
func (p *play) twice() {
	p.stops()
	p.jobIs(12_000, func(j *batchv1.Job) { no := false; j.Spec.Suspend = &no })
	p.condition(12_100, batchv1.JobSuspended, "JobResumed", corev1.ConditionFalse)
	p.starts(12_150)
	p.podIs("b", 12_200, nil)
	p.podRuns("b", 13_000)
}

// isSuspended is what the controller writes when it has let the pods go.
func (p *play) isSuspended(at int) {
	p.jobIs(at, func(j *batchv1.Job) {
		ready := int32(0)
		j.Status.Active, j.Status.Ready, j.Status.StartTime = 0, &ready, nil
	})
	p.condition(at, batchv1.JobSuspended, "JobSuspended", corev1.ConditionTrue)
}

// lags makes each stream's events come late, by 0 to 5 s, in their order.
func lags(r *rand.Rand, beats []beat) []beat {
	most := map[bool]time.Duration{} // by whether it is the pods' stream
	for _, pods := range []bool{true, false} {
		most[pods] = time.Duration(r.IntN(5_001)) * time.Millisecond
	}
	late, last := slices.Clone(beats), map[bool]time.Duration{}
	for i, b := range late {
		_, pods := b.object.(*corev1.Pod)
		late[i].at = max(b.at+time.Duration(r.Int64N(int64(most[pods])+1)), last[pods])
		if r.IntN(3) == 0 { // all of a stream late by the same
			late[i].at = max(b.at+most[pods], last[pods])
		}
		last[pods] = late[i].at
	}
	slices.SortStableFunc(late, earlier)
	return late
}

// TestTheStoryIsTheSameHoweverTheStreamsLag: a Job and its pods come by two
// streams, and the agent may be down while things happen.
func TestTheStoryIsTheSameHoweverTheStreamsLag(t *testing.T) {
	for name, of := range plays {
		t.Run(name, func(t *testing.T) {
			seeds(t, 40, func(t *testing.T, seed uint64) {
				r := rand.New(rand.NewPCG(seed, 2))
				p := &play{began: time.Now().Add(2 * time.Second), pods: map[string]*corev1.Pod{}}
				of.play(p)
				slices.SortStableFunc(p.beats, earlier)
				if got := p.perform(t, r); got != of.want {
					t.Errorf("told %s, want %s; what was shown when:\n%s", got, of.want, strings.Join(p.shown, "\n"))
				}
			})
		})
	}
}

// perform plays it to a watcher, and returns the story that is told.
func (p *play) perform(t *testing.T, r *rand.Rand) string {
	n := &nemesis{t: t, rand: r, c: newCluster(), log: newRecord(), most: 1000}
	n.c.write(kwatch.Added, pod("other", "u0", 0, "Pending"))
	n.c.write(kwatch.Added, job("other", "J0", 0))
	later := p.beats
	for len(later) > 0 && later[0].at < time.Duration(p.from)*time.Millisecond {
		n.c.write(later[0].typ, later[0].object)
		later = later[1:]
	}
	n.start()
	passing(2 * time.Second) // the first lists are read, and durable
	downs, down := r.IntN(3), false
	if p.stays {
		downs = 0
	}
	n.c.delay("pods", "jobs")
	for _, b := range later {
		n.c.write(b.typ, b.object)
	}
	for _, b := range lags(r, later) {
		passing(time.Until(p.began.Add(b.at)))
		n.c.show(resourceOf(b.object))
		p.shows(b)
		switch {
		case down && r.IntN(3) == 0:
			n.start()
			down = false
			p.shown = append(p.shown, "up")
		case !down && n.killed < downs && r.IntN(6) == 0:
			n.kill()
			down = true
			p.shown = append(p.shown, "down")
		}
	}
	if down {
		n.start()
	}
	passing(time.Minute)
	n.stop()
	var story []string
	for _, e := range n.log.durable() {
		for _, c := range e.Changes {
			step := string(c.To)
			if c.Reason != "" && c.From != "" { // with which reason it is first seen depends on when
				step += "(" + c.Reason + ")"
			}
			if c.Workload.UID == "J" {
				story = append(story, step)
			} else if c.Workload.Name != "other" {
				t.Errorf("told of %s: %s", c.Workload.UID, step)
			}
		}
	}
	return strings.Join(story, ">")
}

func (p *play) shows(b beat) {
	what := ""
	switch o := b.object.(type) {
	case *corev1.Pod:
		what = fmt.Sprint("pod ", o.Name, " ", o.Status.Phase, " asked to go ", o.DeletionTimestamp != nil)
	case *batchv1.Job:
		what = fmt.Sprintf("Job active %d failed %d suspend %v", o.Status.Active, o.Status.Failed, o.Spec.Suspend != nil && *o.Spec.Suspend)
		for _, c := range o.Status.Conditions {
			what += fmt.Sprint(" ", c.Type, "=", c.Status)
		}
	}
	p.shown = append(p.shown, fmt.Sprint(time.Since(p.began), " ", b.typ, " ", what))
}

func earlier(a, b beat) int { return cmp.Compare(a.at, b.at) }
