package simcluster

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// ask sends a request for faults, and returns the answer's code and text.
func (w *world) ask(t testing.TB, method, body string) string {
	t.Helper()
	client := must(rest.HTTPClientFor(apart(w.config)))(t)
	defer client.CloseIdleConnections()
	req := must(http.NewRequestWithContext(t.Context(), method, "https://"+w.server.Addr()+"/sim/faults", strings.NewReader(body)))(t)
	resp := must(client.Do(req))(t)
	defer resp.Body.Close()
	text := must(io.ReadAll(resp.Body))(t)
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(text)))
}

func (w *world) fault(t testing.TB, body string) {
	t.Helper()
	if got := w.ask(t, http.MethodPost, body); got != "204 " {
		t.Fatalf("got %s, want 204", got)
	}
}

// apart is a configuration whose clients share no connection with others.
func apart(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.Dial = (&net.Dialer{}).DialContext
	return c
}

// try lists pods once, without the client's own retries.
func (w *world) try(t testing.TB) error {
	t.Helper()
	return w.typed(t).CoreV1().RESTClient().Get().Resource("pods").MaxRetries(0).Do(t.Context()).Error()
}

func (w *world) watch(t testing.TB, version int64) watch.Interface {
	t.Helper()
	out := must(w.typed(t).CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: fmt.Sprint(version)}))(t)
	t.Cleanup(out.Stop)
	return out
}

func TestFaultsThatAnswer(t *testing.T) {
	tests := []struct {
		name, fault string
		want        func(error) bool
		seconds     int
	}{
		{"429 of one resource", `{"fault":"too-many","resource":"pods"}`, apierrors.IsTooManyRequests, 1},
		{"429", `{"fault":"too-many","retry_after":"1500ms"}`, apierrors.IsTooManyRequests, 2},
		{"500", `{"fault":"error"}`, apierrors.IsInternalError, 0},
		{"403", `{"fault":"forbid","resource":"pods"}`, apierrors.IsForbidden, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.fault(t, tt.fault)
			err := w.try(t)
			if !tt.want(err) {
				t.Errorf("got %v", err)
			}
			if after, _ := apierrors.SuggestsClientDelay(err); after != tt.seconds {
				t.Errorf("got a delay of %d s, want %d", after, tt.seconds)
			}
			if strings.Contains(tt.fault, "resource") {
				must(w.dynamic(t, w.trains).List(t.Context(), metav1.ListOptions{}))(t)
			}
			if got := w.ask(t, http.MethodDelete, ""); got != "204 " {
				t.Errorf("got %s, want 204", got)
			}
			if err := w.try(t); err != nil {
				t.Errorf("after it was cleared: %v", err)
			}
		})
	}
}

func TestFaultsThatCount(t *testing.T) {
	w := newWorld(t)
	w.fault(t, `{"fault":"error","count":2}`)
	for i, want := range []bool{true, true, false} {
		if err := w.try(t); (err != nil) != want {
			t.Errorf("answer %d: got %v, want an error %t", i, err, want)
		}
	}
}

func TestFaultEndWatch(t *testing.T) {
	w := newWorld(t)
	pods, trains := w.watch(t, 2), must(w.dynamic(t, w.trains).Watch(t.Context(), metav1.ListOptions{ResourceVersion: "2"}))(t)
	defer trains.Stop()
	w.fault(t, `{"fault":"end-watch","resource":"pods"}`)
	expect(t, pods, "end")
	w.train(t, "one", "Running")
	expect(t, trains, "ADDED one@3 Running") // it goes on
	again := w.watch(t, 2)
	w.pod(t, "one", nil, corev1.PodRunning)
	expect(t, again, "ADDED one@4 Running")
}

func TestFaultEndWatchEverySecond(t *testing.T) {
	w := newWorld(t)
	w.fault(t, `{"fault":"end-watch","every":"20ms","for":"10s"}`)
	for range 5 {
		expect(t, w.watch(t, 2), "end")
	}
	if got, want := w.ask(t, http.MethodGet, ""), `200 [{"fault":"end-watch","for":"10s","every":"20ms"}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFaultCut(t *testing.T) {
	w := newWorld(t)
	pods := w.watch(t, 2)
	w.fault(t, `{"fault":"cut"}`)
	expect(t, pods, "end")
	if err := w.try(t); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

func TestFaultSwallow(t *testing.T) {
	w := newWorld(t)
	first, second := w.watch(t, 2), w.watch(t, 2)
	w.fault(t, `{"fault":"swallow","resource":"pods","count":2}`)
	wait(t, "the fault", func() bool { return w.server.Faults().struck("swallow") })
	w.train(t, "one", "Running") // 3, not of pods
	for i := range 4 {
		w.pod(t, fmt.Sprint("p", i), nil, corev1.PodRunning)
	}
	expect(t, first, "ADDED p2@6 Running", "ADDED p3@7 Running")
	expect(t, second, "ADDED p2@6 Running", "ADDED p3@7 Running")
	expect(t, w.watch(t, 2), "ADDED p2@6 Running", "ADDED p3@7 Running") // nor are they told later
	if list := must(w.typed(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}))(t); len(list.Items) != 4 {
		t.Errorf("a list has %d pods, want all 4", len(list.Items))
	}
}

// struck reports whether a fault has begun.
func (f *Faults) struck(kind string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.active {
		if a.Kind == kind && !a.next.IsZero() {
			return false
		}
	}
	return true
}

func TestFaultLoseDelete(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodRunning) // 3
	w.pod(t, "two", nil, corev1.PodRunning) // 4
	pods := w.watch(t, 4)
	w.fault(t, `{"fault":"lose-delete"}`)
	wait(t, "the fault", func() bool { return w.server.Faults().struck("lose-delete") })
	w.pod(t, "one", nil, corev1.PodFailed)
	must(w.cluster.Delete(w.pods, "a", "one", nil))(t)
	must(w.cluster.Delete(w.pods, "a", "two", nil))(t)
	expect(t, pods, "MODIFIED one@5 Failed", "DELETED two@7 Running")
}

func TestFaultGone(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.pod(t, fmt.Sprint("p", i), nil, corev1.PodRunning)
	}
	k := w.typed(t).CoreV1().Pods("")
	first := must(k.List(t.Context(), metav1.ListOptions{Limit: 2}))(t)
	open := w.watch(t, 5)
	w.fault(t, `{"fault":"gone","resource":"pods"}`)
	expect(t, open, "ERROR 410 Expired", "end")
	expect(t, w.watch(t, 5), "ERROR 410 Expired", "end")
	if _, err := k.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: first.Continue}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a continue token: got %v, want expired", err)
	}
	if err := w.try(t); err != nil {
		t.Errorf("a list: %v", err)
	}
	expect(t, must(k.Watch(t.Context(), metav1.ListOptions{}))(t), "ADDED p0@3 Running") // from now on
}

func TestFaultForbid(t *testing.T) {
	w := newWorld(t)
	pods := w.watch(t, 2)
	w.fault(t, `{"fault":"forbid","resource":"pods","for":"10s"}`)
	expect(t, pods, "end")
	if _, err := w.typed(t).CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a watch: got %v, want forbidden", err)
	}
	if _, err := w.dynamic(t, w.trains).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("another resource: %v", err)
	}
}

// A half-open connection carries nothing, and does not end; a new one works.
// Only a client's own pings notice.
func TestFaultHalfOpen(t *testing.T) {
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "1")
	t.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "1")
	w := newWorld(t)
	pods := w.watch(t, 2)
	w.fault(t, `{"fault":"half-open"}`)
	wait(t, "the fault", func() bool { return w.server.Faults().struck("half-open") })
	w.pod(t, "one", nil, corev1.PodRunning)
	w.config = apart(w.config)
	expect(t, w.watch(t, 2), "ADDED one@3 Running")
	select {
	case e, ok := <-pods.ResultChan():
		t.Errorf("got %v, %t, want nothing", e, ok)
	case <-time.After(50 * time.Millisecond):
	}
	expect(t, pods, "ERROR 500 InternalError", "end") // that is client-go's
}

func TestFaultSetBack(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.pod(t, fmt.Sprint("p", i), nil, corev1.PodRunning)
	}
	pods := w.watch(t, 12)
	w.fault(t, `{"fault":"set-back","count":5}`)
	expect(t, pods, "end")
	if got := w.cluster.Now(); got != 7 {
		t.Errorf("the cluster is at %d, want 7", got)
	}
	later := w.watch(t, 12) // nothing, until versions have passed it
	w.pod(t, "p0", nil, corev1.PodFailed)
	expect(t, w.watch(t, 7), "MODIFIED p0@8 Failed")
	expect(t, w.watch(t, 6), "ERROR 410 Expired", "end")
	for i := range 5 {
		w.pod(t, "p1", nil, corev1.PodPhase(fmt.Sprint(i)))
	}
	expect(t, later, "MODIFIED p1@13 4")
}

func TestFaultSlow(t *testing.T) {
	w := newWorld(t)
	begin := time.Now()
	w.fault(t, `{"fault":"slow","delay":"300ms"}`)
	if err := w.try(t); err != nil || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("got %v after %s, want nothing before 300ms", err, time.Since(begin))
	}
}

func TestFaultCompact(t *testing.T) {
	w := newWorld(t)
	w.pod(t, "one", nil, corev1.PodRunning)
	w.fault(t, `{"fault":"compact"}`)
	wait(t, "the fault", func() bool { return w.server.Faults().struck("compact") })
	expect(t, w.watch(t, 2), "ERROR 410 Expired", "end")
}

// What is stamped before a jump stays so.
func TestFaultClock(t *testing.T) {
	start := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	w := newWorld(t, func(_ *ServerOptions, o *Options) { o.Now = func() time.Time { return start } })
	create := func(name string) string {
		t.Helper()
		pod := must(w.typed(t).CoreV1().Pods("kube-system").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "i"}}},
		}, metav1.CreateOptions{}))(t)
		return pod.CreationTimestamp.UTC().Format(time.TimeOnly)
	}
	jump := func(body string, to time.Duration) {
		t.Helper()
		w.fault(t, body)
		wait(t, "the clock's jump", func() bool { return w.cluster.Clock().Equal(start.Add(to)) })
	}
	got := []string{create("one")}
	jump(`{"fault":"clock","by":"1h"}`, time.Hour)
	got = append(got, create("two"))
	jump(`{"fault":"clock","by":"-2h"}`, -time.Hour)
	got = append(got, create("three"), must(w.typed(t).CoreV1().Pods("kube-system").Get(t.Context(), "two", metav1.GetOptions{}))(t).CreationTimestamp.UTC().Format(time.TimeOnly))
	if text := fmt.Sprint(got); text != "[03:02:01 04:02:01 02:02:01 04:02:01]" {
		t.Errorf("created at %s, want the hours 3, 4, 2 and again 4", text)
	}
}

func TestFaultRemove(t *testing.T) {
	w := newWorld(t)
	w.train(t, "one", "Running")
	trains := must(w.dynamic(t, w.trains).Watch(t.Context(), metav1.ListOptions{ResourceVersion: "3"}))(t)
	w.fault(t, `{"fault":"remove","resource":"trainings.sim.outrider.dev","for":"200ms"}`)
	expect(t, trains, "DELETED one@4 Running", "end")
	wait(t, "its return", func() bool {
		_, err := w.dynamic(t, w.trains).List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
}

// Faults of what is away are in order, and it stays away as long as one of
// them says so.
func TestFaultsOfWhatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{}, Pods())
		f := newFaults(c, newListener(nil))
		ctx := t.Context()
		go f.strike(ctx)
		begin, ran := time.Now(), make(chan error, 1)
		script := must(Parse("1s..3s remove pods\n2s..5s remove pods\n2s..4s too-many pods"))(t)
		go func() { ran <- f.Run(ctx, script) }()
		var away []time.Duration
		for range 12 {
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			if len(c.Resources()) == 0 {
				away = append(away, time.Since(begin))
			}
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if got, want := fmt.Sprint(away), "[1s 1.5s 2s 2.5s 3s 3.5s 4s 4.5s]"; got != want {
			t.Errorf("pods were away at %s, want %s", got, want)
		}
	})
}

// What strikes often leaves nothing behind.
func TestAFaultThatStrikesOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(New(Options{}, Pods()), newListener(nil))
		ctx := t.Context()
		go f.strike(ctx)
		if err := f.Add(Fault{Kind: "compact", Every: time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		heap := func() int64 {
			time.Sleep(100 * time.Second)
			synctest.Wait()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		if more := heap() - before; more > 4<<20 {
			t.Errorf("the heap has grown by %d bytes in 100,000 strikes, want none", more)
		}
	})
}

func TestRequestsCannotAddFaultsWithoutEnd(t *testing.T) {
	w := newWorld(t)
	for range maxActive {
		if err := w.server.Faults().Add(Fault{Kind: "gone", Resource: "jobs"}); err != nil {
			t.Fatal(err)
		}
	}
	const want = "409 got 1000 faults that last, want fewer: DELETE ends them"
	if got := w.ask(t, http.MethodPost, `{"fault":"gone"}`); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.ask(t, http.MethodDelete, "")
	w.fault(t, `{"fault":"gone"}`)
}

func TestFaultErrors(t *testing.T) {
	w := newWorld(t)
	for body, want := range map[string]string{
		`{"fault":"end-watch","resource":"pod"}`: `end-watch: got resource "pod", want one of pods, jobs.batch, deployments.apps, trainings.sim.outrider.dev, namespaces`,
		`{"fault":"set-back","resource":"pods"}`: `set-back: got resource "pods", want none: it strikes all`,
		`{"fault":"gone","every":"1s"}`:          `gone: got every, want for: it lasts`,
		`{"fault":"remove"}`:                     `remove: got no resource, want one`,
		`{"fault":"slow","delay":"x"}`:           `got delay=x, want a time such as 5s`,
		`{"fault":"swallow","count":-1}`:         `swallow: got count=-1, want more than 0, and every at least 1ms`,
		`{"fault":"cut","for":"1s"}`:             `cut: got an end, want every too: it strikes once`,
		`{"fault":"slow","delay":"0s"}`:          `got delay=0s, want a time such as 5s`,
		`{"fault":"cut","delay":"1s"}`:           `cut: got delay, want none: it has no such thing`,
		`{"fault":"cut","delays":"1s"}`:          `read fault: json: unknown field "delays"`,
		`{"fault":"cut"} {}`:                     `read fault: got more than one, want one JSON object`,
	} {
		if got := w.ask(t, http.MethodPost, body); got != "400 "+want {
			t.Errorf("%s: got %s, want 400 %s", body, got, want)
		}
	}
	if got := w.ask(t, http.MethodPut, ""); !strings.HasPrefix(got, "405 ") {
		t.Errorf("got %s, want 405", got)
	}
	if got := w.ask(t, http.MethodGet, ""); got != "200 []" {
		t.Errorf("got %s, want none active", got)
	}
}

func TestParse(t *testing.T) {
	s, err := Parse("# a script\n\n5s..15s too-many retry-after=2s # all\n2s lose-delete pods count=3\n5s..6s end-watch jobs.batch every=100ms\n8s clock by=-1h30m")
	got := fmt.Sprint(err, s)
	want := "<nil> &{[{2s {lose-delete pods 0s 0s 0s 0s 0s 3 <nil>} 4} {5s {too-many  10s 0s 2s 0s 0s 0 <nil>} 3} {5s {end-watch jobs.batch 1s 100ms 0s 0s 0s 0 <nil>} 5} {8s {clock  0s 0s 0s 0s -1h30m0s 0 <nil>} 6}]}"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	const kinds = "want one of end-watch, cut, half-open, swallow, lose-delete, compact, set-back, clock, gone, too-many, error, slow, forbid, remove"
	for text, want := range map[string]string{
		"\nsoon gone":             `line 2: got time "soon", want one such as 5s or 5s..15s`,
		"5s..x gone":              `line 1: got time "5s..x", want one such as 5s or 5s..15s`,
		"15s..5s gone":            `line 1: got time "15s..5s", want an end after the beginning`,
		"5s":                      "line 1: got no fault, " + kinds,
		"5s explode":              `line 1: got fault "explode", ` + kinds,
		"5s gone pods jobs":       `line 1: got "jobs", want key=value`,
		"5s gone pods often=2":    `line 1: got key "often", want one of by, count, delay, every, for, retry-after`,
		"5s swallow pods count=x": `line 1: got count=x, want a number from 1 on`,
		"5s too-many count=0":     `line 1: got count=0, want a number from 1 on`,
		"5s slow delay=0s":        `line 1: got delay=0s, want a time such as 5s`,
		"5s slow delay=-1s":       `line 1: slow: got delay=-1s, want more than 0, and every at least 1ms`,
		"5s gone count=1 count=2": `line 1: got "count=2", want one count: it was said before`,
		"5s..6s gone for=3s":      `line 1: got "for=3s", want one for: it was said before`,
		"5s..6s cut":              `line 1: cut: got an end, want every too: it strikes once`,
		"5s clock by=1":           `line 1: got by=1, want a time such as 5s`,
		"5s clock":                `line 1: clock: got no by, want one such as by=1h or by=-1h`,
		"5s gone by=1h":           `line 1: gone: got by, want none: it has no such thing`,
		"5s cut pods":             `line 1: cut: got resource "pods", want none: it strikes all`,
	} {
		if _, err := Parse(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestCheckNamesTheLine(t *testing.T) {
	c := New(Options{}, Pods(), Jobs())
	if err := must(Parse("2s gone jobs.batch\n1s cut"))(t).Check(c); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	const want = `line 3: gone: got resource "pod", want one of pods, jobs.batch`
	if err := must(Parse("2s cut\n\n1s gone pod"))(t).Check(c); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("5s..15s too-many retry-after=1s\n2s lose-delete pods count=3")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		for i := 1; err == nil && i < len(s.Steps); i++ {
			if s.Steps[i].At < s.Steps[i-1].At {
				t.Errorf("step %d is before the one before it", i)
			}
		}
	})
}

// In virtual time: faults begin, strike again and end when the script says.
func TestAScriptKeepsItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pods := Pods()
		f := newFaults(New(Options{}, pods), newListener(nil))
		done := make(chan struct{})
		ctx := t.Context()
		go func() { f.strike(ctx); close(done) }()
		script := must(Parse("1s..4s end-watch pods every=1s\n2500ms..5s forbid pods\n3s error count=1"))(t)
		begin := time.Now()
		ran := make(chan error, 1)
		go func() { ran <- f.Run(ctx, script) }()
		var ends, forbidden []time.Duration
		for time.Since(begin) < 7*time.Second {
			b := f.listen(pods)
			select {
			case <-b.rung:
				ends = append(ends, time.Since(begin))
			case <-time.After(99 * time.Millisecond):
			}
			f.leave(b)
			if f.forbidden(pods, false) != nil {
				forbidden = append(forbidden, time.Since(begin))
			}
		}
		if got, want := fmt.Sprint(ends), "[1s 2s 2.5s 3s]"; got != want {
			t.Errorf("watches ended at %s, want %s", got, want)
		}
		if first, last := forbidden[0], forbidden[len(forbidden)-1]; first < 2500*time.Millisecond || first > 2600*time.Millisecond || last < 4800*time.Millisecond || last >= 5*time.Second {
			t.Errorf("forbidden from %s to %s, want from 2.5s up to 5s", first, last)
		}
		if f.refused(pods) == nil || f.refused(pods) != nil {
			t.Error("got no error, or two, want one")
		}
		if got := f.Active(); len(got) > 1 {
			t.Errorf("active at the end: %v, want at most what waits to be noticed as used up", got)
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

func TestFaultTooManySaysWhenToComeBack(t *testing.T) {
	w := newWorld(t)
	w.fault(t, `{"fault":"too-many","retry_after":"1500ms"}`)
	client := must(rest.HTTPClientFor(w.config))(t)
	resp := must(client.Get("https://" + w.server.Addr() + "/api/v1/pods"))(t)
	resp.Body.Close()
	if got := fmt.Sprint(resp.StatusCode, " after ", resp.Header.Get("Retry-After")); got != "429 after 2" {
		t.Errorf("got %s, want 429 after 2", got)
	}
}
