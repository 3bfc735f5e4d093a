package neighbours

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A celery is a broker, an application's workers, and the exporter beside them.
type celery struct {
	dir, redis string
	exporter   string // port
	sent       map[string]float64
}

// startCelery starts the broker and the exporter; the worker comes later.
func startCelery(t *testing.T) *celery {
	t.Helper()
	c := &celery{dir: t.TempDir(), redis: freePort(t), exporter: freePort(t), sent: map[string]float64{}}
	server := debian("redis-server", "--port", c.redis, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	server.Dir = c.dir
	start(t, server)
	eventually(t, 10*time.Second, func() bool {
		out, err := debian("redis-cli", "-p", c.redis, "ping").Output()
		return err == nil && strings.TrimSpace(string(out)) == "PONG"
	}, func() string { return "the broker does not answer" })

	exporter := exec.Command(filepath.Join(env.venv, "bin", "python"), "-c", "from src.cli import cli; cli()",
		"--broker-url", c.broker(), "--host", "127.0.0.1", "--port", c.exporter, "-Q", "celery,mail")
	exporter.Env, exporter.Dir = withoutPython(), c.dir
	start(t, exporter)
	eventually(t, 30*time.Second, func() bool {
		resp, err := http.Get("http://127.0.0.1:" + c.exporter + "/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, func() string { return "the exporter does not answer" })
	return c
}

func (c *celery) broker() string { return "redis://127.0.0.1:" + c.redis + "/0" }

func (c *celery) python(args ...string) *exec.Cmd {
	cmd := debian("python3", args...)
	cmd.Env = append(cmd.Env, "BROKER="+c.broker(), "TASK_LOG="+filepath.Join(c.dir, "tasks.log"))
	return cmd
}

func (c *celery) startWorker(t *testing.T) {
	t.Helper()
	start(t, c.python("-m", "celery", "-A", "tasks", "worker", "-E", "-c", "2", "-n", "worker@test", "-Q", "celery,mail", "--without-gossip", "--without-mingle", "--loglevel", "ERROR"))
}

func (c *celery) send(t *testing.T, queue, task string, count int, args ...string) {
	t.Helper()
	if out, err := c.python(append([]string{"testdata/send.py", queue, task, strconv.Itoa(count)}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("send: %v\n%s", err, out)
	}
	c.sent[queue] += float64(count)
}

// knows is what the tasks wrote down, by queue, as the terms of a pipeline. A task
// that is tried again is a message more.
func (c *celery) knows(t *testing.T) map[string]pipeline {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "tasks.log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	out := map[string]pipeline{}
	for queue, sent := range c.sent {
		out["tasks/"+queue] = pipeline{"in_total": sent, "out_total": 0, "queued": sent, "balance": 0}
	}
	for line := range strings.Lines(string(text)) {
		queue, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		p := out["tasks/"+queue]
		switch what {
		case "succeeded":
			p["out_total"]++
			p["queued"]--
		case "retried":
			p["out_total"]++
			p["in_total"]++
			p["retries_total/unspecified"]++
		default:
			p["drops_total/"+strings.TrimPrefix(what, "failed/")]++
			p["queued"]--
		}
	}
	return out
}

// length is how many messages the broker has, by its own account; unacked are
// those that the worker has fetched and not begun.
func (c *celery) length(t *testing.T, command, key string) float64 {
	t.Helper()
	out, err := debian("redis-cli", "-p", c.redis, command, key).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestACeleryWorker(t *testing.T) {
	needsInstalled(t)
	t.Parallel()
	c := startCelery(t)
	a := startAgent(t, `
neighbours:
  - {name: worker, metrics: "http://127.0.0.1:`+c.exporter+`/metrics", every: 3s}
pipelines:
  - {name: tasks, neighbour: worker, preset: celery}
`)
	// Before there is a worker, everything is in the broker.
	c.send(t, "celery", "works", 12)
	c.send(t, "celery", "tries", 3, "2")
	c.send(t, "celery", "fails", 2, "ValueError")
	c.send(t, "mail", "fails", 1, "KeyError")
	c.send(t, "mail", "works", 5)
	if n, m := c.length(t, "llen", "celery"), c.length(t, "llen", "mail"); n != 17 || m != 6 {
		t.Fatalf("the broker has %v and %v messages, want 17 and 6", n, m)
	}
	a.wantShown(t, "without a worker", c.knows(t))

	c.startWorker(t)
	eventually(t, 30*time.Second, func() bool {
		k := c.knows(t)
		return k["tasks/celery"]["queued"]+k["tasks/mail"]["queued"] == 0
	}, func() string { return "the worker did not do everything" })
	a.wantShown(t, "when all is done", c.knows(t))
	if got, want := fmt.Sprint(c.knows(t)["tasks/celery"]), "map[balance:0 drops_total/ValueError:2 in_total:23 out_total:21 queued:0 retries_total/unspecified:6]"; got != want {
		t.Fatalf("the tasks know %s, want %s", got, want)
	}

	// Two tasks run, some are with the worker, the others in the broker.
	held := filepath.Join(c.dir, "go")
	c.send(t, "celery", "waits", 20, held)
	c.send(t, "mail", "waits", 5, held)
	want := c.knows(t)
	a.wantShown(t, "while two run", want)
	broker := c.length(t, "llen", "celery") + c.length(t, "llen", "mail")
	if begun := 2.0; broker+c.length(t, "hlen", "unacked")+begun != want["tasks/celery"]["queued"]+want["tasks/mail"]["queued"] || broker == 0 {
		t.Errorf("the broker has %v messages and the worker %v that it has not begun, want 23 together", broker, c.length(t, "hlen", "unacked"))
	}

	if err := os.WriteFile(held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() bool {
		k := c.knows(t)
		return k["tasks/celery"]["queued"]+k["tasks/mail"]["queued"] == 0
	}, func() string { return "the worker did not do everything" })
	a.wantShown(t, "at rest", c.knows(t))
}
