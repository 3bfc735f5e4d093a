package custom

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

// TestNoCallTakesLong reads calls that are dear by themselves: each is stopped
// before it, or soon after. Without that they take seconds and gigabytes.
func TestNoCallTakesLong(t *testing.T) {
	u := object(t, "{"+meta+"}")
	list, many := []any{}, []any{}
	for i := range 10_000 {
		list = append(list, int64(i))
	}
	for range 240_000 {
		many = append(many, "")
	}
	u.Object["data"], u.Object["list"], u.Object["empty"] = strings.Repeat("a", 1_400_000), list, many
	const (
		shared = `[lists.range(300)].map(r, [r.map(i, r)].map(x, [r.map(i, x)].map(y, CALL)[0])[0])[0]`
		tree   = "[[1]]TWICE.map(x, CALL)[0]"
	)
	on := func(of, call string) string {
		return strings.NewReplacer("CALL", call, "TWICE", strings.Repeat(`.map(x, dyn([x, x]))`, 26)).Replace(of)
	}
	exceeded := "cost limit exceeded"
	tests := []struct{ rule, want string }{
		{`lists.range(1000).map(i, object.data).join("") == ""`, exceeded},
		{`object.empty.join("` + strings.Repeat("-", 64) + `") == ""`, exceeded},
		{`[[1]]` + strings.Repeat(`.map(x, x + x)`, 24) + `.map(x, x == x)[0]`, exceeded},
		{`[[1]]` + strings.Repeat(`.map(x, x + x)`, 50) + `.map(x, size(x))[0] > 0`, exceeded},
		{`object.list.map(x, object.list)[0]` + strings.Repeat(` + [1]`, 60) + ` == []`, exceeded},
		{on(tree, `x == x`), exceeded},
		{on(tree, `x != x`), exceeded},
		{on(tree, `optional.of(x) == optional.of(x)`), exceeded},
		{on(tree, `{"a": x} == {"a": x}`), exceeded},
		{on(tree, `x + x == x`), exceeded},
		{on(tree, `x in [x]`), exceeded},
		{on(tree, `x in {"a": 1}`), exceeded},
		{on(tree, `{"a": true}[x]`), exceeded},
		{on(tree, `x.flatten(20) == [x]`), exceeded},
		{on(tree, `x.sort() == [x]`), exceeded},
		{on(tree, `x.slice(0, 1) == [x]`), exceeded},
		{on(tree, `x.reverse() == [x]`), exceeded},
		{on(tree, `math.greatest(x) > 1`), exceeded},
		{on(tree, `timestamp(x) > timestamp(x)`), exceeded},
		{on(tree, `-x > 1`), "no such overload"},
		{on(tree, `x - 1 > 1`), "no such overload"},
		{on(tree, `x ? true : false`), "no such overload"},
		{on(tree, `dyn(x) && true`), "no such overload"},
		{on(tree, `x`), "got list, want bool"},
		{on(tree, `[true][dyn(x)]`), exceeded},
		{on(tree, `dyn(x).field`), "unsupported index type"},
		{on(shared, `y == y`), exceeded},
		{on(shared, `y in [y]`), exceeded},
		{on(shared, `y.flatten(3).size() > 1`), exceeded},
		{`object.data.matches("(a{1,8}){1,8}b")`, exceeded},
		{`matches(object.data, "^(a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?)*b$")`, exceeded},
		{`object.data.replace("", "` + strings.Repeat("b", 64) + `").size() > 0`, exceeded},
		{`object.data.replace("a", "` + strings.Repeat("b", 64) + `").size() > 0`, exceeded},
		{`object.data.indexOf("` + strings.Repeat("a", 63) + `b") > 0`, exceeded},
		{`object.data.split("").sort().size() > 0`, exceeded},
		{`object.empty.sort().size() > 0`, exceeded},
		{`object.empty.sortBy(x, x).size() > 0`, exceeded},
		{`object.list.exists(x, {object.data: 1}.size() > 1)`, exceeded},
		{`object.list.exists(x, object.metadata[?object.data].hasValue())`, exceeded},
		{`object.list.exists(x, object.data in object.metadata)`, exceeded},
		{`object.list.exists(x, strings.quote(object.data) == "")`, exceeded},
		{`object.list.map(x, object.list.map(y, string(y)).join(",")).size() > 0`, exceeded},
	}
	for _, tt := range tests {
		k := compile(t, Rules{Running: tt.rule})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		o, took, err := timed(k, u)
		runtime.ReadMemStats(&after)
		if o.Said.State != "" || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.100s: got %q (%.300v), want %s", tt.rule, o.Said.State, err, tt.want)
		}
		made := (after.TotalAlloc - before.TotalAlloc) >> 20
		t.Logf("%s, %d MB: %.90s", took.Round(time.Millisecond), made, tt.rule)
		if took > slow {
			t.Errorf("%.100s: took %s", tt.rule, took)
		}
		if made > 100 { // 21 at most
			t.Errorf("%.100s: took %d MB", tt.rule, made)
		}
	}
}

// TestWeighingChangesNoAnswer evaluates functions whose arguments are weighed.
func TestWeighingChangesNoAnswer(t *testing.T) {
	u := object(t, "{"+meta+`, "status": {"n": 2, "time": "2026-01-01T00:00:00Z", "texts": ["b", "a"], "empty": "",
		"conditions": [{"type": "Ready", "status": "True"}], "map": {"a": {"b": 1}}}}`)
	for _, e := range []string{
		`object.status.conditions.exists(c, c.type == "Ready" && c.status == "True")`,
		`object.status.texts.sort().join("-") == "a-b" && object.status.texts.join() == "ba"`,
		`object.status.texts.sortBy(x, x) == ["a", "b"] && object.status.texts.reverse() == object.status.texts.sort()`,
		`object.status.texts[0] + object.status.texts[1] == "ba" && (object.status.texts + ["c"]).size() == 3`,
		`timestamp(object.status.time) + duration("1h") > timestamp("2026-01-01T00:59:59Z")`,
		`timestamp(object.status.time).getHours("Europe/Berlin") == 1`,
		`math.greatest(object.status.n, 1) == 2 && math.least([object.status.n, 3]) == 2`,
		`object.status.map.all(k, object.status.map[k].b == 1 && k in object.status.map)`,
		`object.status.?none.orValue(object.status.n) == 2 && object.status.map[?object.status.texts[1]].?b.orValue(0) == 1`,
		`matches(object.status.time, "^2026-") && object.status.time.matches("Z$") && object.status.time.indexOf("-") == 4`,
		`object.status.time.replace("-", "") == "20260101T00:00:00Z" && object.status.empty.replace("", "x") == "x"`,
		`[1, [object.status.n]].flatten() == [1, 2] && {object.status.texts[0]: 1}.b == 1`,
		`object.status.time.startsWith("2026") && object.status.time.substring(0, 4) == string(2024 + object.status.n)`,
		`size(object.status.texts) == 2 && size(object.status.time) == 20 && size(object.status.map) == 1`,
	} {
		o, err := compile(t, Rules{Running: e}).Reduce(u)
		if err != nil || o.Said.State != statesync.Running {
			t.Errorf("%s: got %q (%v), want it to hold", e, o.Said.State, err)
		}
	}
}
