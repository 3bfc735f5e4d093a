package custom

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// large is an object of about a megabyte: 8,000 nodes, a list of texts, a text.
func large(t testing.TB) *unstructured.Unstructured {
	t.Helper()
	u := object(t, "{"+meta+"}")
	nodes, names := map[string]any{}, []any{}
	for i := range 8_000 {
		nodes[fmt.Sprintf("wf-%06d", i)] = map[string]any{"phase": "Succeeded", "displayName": fmt.Sprintf("step-%d", i), "id": int64(i)}
		names = append(names, fmt.Sprintf("n-%06d", i))
	}
	u.Object["status"] = map[string]any{"phase": "Running", "nodes": nodes, "names": names, "text": strings.Repeat("a", 1<<18)}
	return u
}

func TestALargeObjectPasses(t *testing.T) {
	u := large(t)
	for _, e := range []string{
		`object.status.phase == "Running"`,
		`object.status.nodes.all(k, object.status.nodes[k].phase == "Succeeded")`,
		`object.status.names.filter(n, n.startsWith("n-00")).size() > 1`,
		`"n-007999" in object.status.names && object.status.names.size() == 8000`,
		`object.status.text.contains("a") && object.status.text.matches("^a+$")`,
		`object.status.names.sort().size() == 8000`,
	} {
		o, err := compile(t, Rules{Running: e}).Reduce(u)
		if err != nil || o.Said.State != statesync.Running {
			t.Errorf("%s: got %q (%v), want it to hold", e, o.Said.State, err)
		}
	}
}

// TestNoExpressionTakesLong reads what an expression can cost the stream. Each
// of these takes seconds to days when it is not cut.
func TestNoExpressionTakesLong(t *testing.T) {
	u := large(t)
	for _, e := range []string{
		`object.status.names.all(x, object.status.names.all(y, x != "" && y != ""))`,
		`object.status.names.all(x, object.status.names.map(y, x + y).size() > 0)`,
		`object.status.names.all(x, x in object.status.names)`,
		`object.status.names.all(x, object.status.nodes == object.status.nodes)`,
		`object.status.names.all(x, object.status.names.sort().size() > 0)`,
		`object.status.names.all(x, object.status.text.size() > 0)`,
		`object.status.names.all(x, object.status.text.reverse() != "")`,
		`object.status.names.all(x, strings.quote(object.status.text) != "")`,
		`lists.range(1000).all(x, lists.range(1000).all(y, lists.range(1000).all(z, true)))`,
		`[object.status.text].map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x)` +
			`.map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).size() == 1`,
	} {
		o, took, err := timed(compile(t, Rules{Running: e}), u)
		if o.Said.State != "" || err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
			t.Errorf("%s: got %q (%v), want the cost limit exceeded", e, o.Said.State, err)
		}
		t.Logf("%s took %.60s", took.Round(10*time.Microsecond), e)
		if took > slow {
			t.Errorf("%s: took %s", e, took)
		}
	}
}

// slow is ten times what the dearest expression takes: 60 to 100 ms.
const slow = time.Second

// timed reduces an object, again if that was slow: a busy machine may be slow
// at anything, once.
func timed(k workload.Kind, u *unstructured.Unstructured) (o *workload.Object, took time.Duration, err error) {
	for range 3 {
		begin := time.Now()
		o, err = k.Reduce(u)
		if took = time.Since(begin); took <= slow {
			break
		}
	}
	return o, took, err
}

// BenchmarkReduce is what one event of an Argo Workflow costs the stream.
func BenchmarkReduce(b *testing.B) {
	k := examples(b)["Workflow"]
	for name, u := range map[string]*unstructured.Unstructured{"small": object(b, "{"+meta+`,"status": {"phase": "Running", "startedAt": "2026-05-04T03:02:01Z"}}`), "8000 nodes": large(b)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Reduce(u); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCost is how long an expression runs until it is cut.
func BenchmarkCost(b *testing.B) {
	u := large(b)
	for _, e := range []string{`object.status.names.all(x, object.status.names.all(y, x != y || true))`, `object.status.names.all(x, x in object.status.names)`} {
		k := compile(b, Rules{Running: e})
		b.Run(e, func(b *testing.B) {
			for b.Loop() {
				if _, err := k.Reduce(u); err == nil {
					b.Fatal("it was not cut")
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		compile(b, Rules{Running: `object.status.phase == "Running"`})
	}
}
