package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/outrider-agent/outrider/e2e/cluster/kubelet"
)

// TestRate measures how fast pods go from creation through Running and Succeeded to deletion. DEVCLUSTER_RATE asks for it, as pods per second, DEVCLUSTER_PODS says how many, and DEVCLUSTER_FLAGS gives up further flags.
func TestRate(t *testing.T) {
	rate, err := strconv.Atoi(os.Getenv("DEVCLUSTER_RATE"))
	if err != nil {
		t.Skip("set DEVCLUSTER_RATE to pods per second to measure")
	}
	count, err := strconv.Atoi(os.Getenv("DEVCLUSTER_PODS"))
	if err != nil {
		count = 10 * rate
	}
	c := start(t, binary(t), t.TempDir(), strings.Fields(os.Getenv("DEVCLUSTER_FLAGS"))...)
	var created sync.Map
	go createAtRate(c, rate, count, &created)
	deleted := 0
	var group sync.WaitGroup
	limit := make(chan struct{}, 32)
	var toRunning []time.Duration
	begin := time.Now()
	follow(t, filepath.Join(c.dir, "kubelet.ndjson"), func(line kubelet.Line) bool {
		switch {
		case line.Op != "status":
		case line.Phase == corev1.PodRunning:
			if at, ok := created.Load(line.Name); ok {
				toRunning = append(toRunning, line.Time.Sub(at.(time.Time)))
			}
		case line.Phase == corev1.PodSucceeded:
			deleted++
			limit <- struct{}{}
			group.Go(func() {
				defer func() { <-limit }()
				err := c.client.CoreV1().Pods("default").Delete(context.Background(), line.Name, metav1.DeleteOptions{})
				if err != nil {
					t.Errorf("delete: %v", err)
				}
			})
		}
		return deleted < count
	})
	group.Wait()
	took := time.Since(begin)
	slices.Sort(toRunning)
	at := func(q float64) time.Duration {
		return toRunning[int(q*float64(len(toRunning)-1))].Round(time.Millisecond)
	}
	t.Logf("%d pods in %s: %.1f/s; create answer to Running answer: p50 %s p99 %s max %s", count, took.Round(time.Millisecond),
		float64(count)/took.Seconds(), at(0.5), at(0.99), at(1))
	usage(t, c)
}

// createAtRate creates pods, each at its time, and notes when the API server answered.
func createAtRate(c *cluster, rate, count int, created *sync.Map) {
	var group sync.WaitGroup
	limit := make(chan struct{}, 32)
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for i := range count {
		<-ticker.C
		limit <- struct{}{}
		group.Go(func() {
			defer func() { <-limit }()
			name := fmt.Sprintf("rate-%d", i)
			pod := newPod(name, corev1.RestartPolicyNever, "run", "500ms")
			if _, err := c.client.CoreV1().Pods("default").Create(context.Background(), pod, metav1.CreateOptions{}); err != nil {
				c.t.Errorf("create: %v", err)
				return
			}
			created.Store(name, time.Now())
		})
	}
	group.Wait()
}

// follow reads the truth log as it grows, until each wants no more.
func follow(t *testing.T, path string, each func(kubelet.Line) bool) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, part := bufio.NewReader(file), []byte(nil)
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		data, err := reader.ReadBytes('\n')
		part = append(part, data...)
		if err == io.EOF {
			<-time.After(5 * time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var line kubelet.Line
		if err := json.Unmarshal(part, &line); err != nil {
			t.Fatal(err)
		}
		part = nil
		if !each(line) {
			return
		}
	}
	t.Fatal("follow: got no end in 5 minutes")
}

// usage logs memory and processor time of each component's process.
func usage(t *testing.T, c *cluster) {
	t.Helper()
	for _, name := range []string{"etcd", "apiserver", "controller-manager", "scheduler", "kubelet"} {
		pid := c.status(name).PID
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(stat))
		user, _ := strconv.Atoi(fields[13])
		system, _ := strconv.Atoi(fields[14])
		t.Logf("%s: %s resident, %.1f s of processor", name, resident(string(data)), float64(user+system)/100)
	}
}

func resident(status string) string {
	_, after, _ := strings.Cut(status, "VmRSS:")
	value, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(value)
}
