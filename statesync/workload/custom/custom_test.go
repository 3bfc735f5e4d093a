package custom

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/statesync/workload"
)

func workflows(r Rules) Definition {
	return Definition{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows", Rules: r}
}

func TestTheKindOfADefinition(t *testing.T) {
	run, end := Rules{Running: "true"}, Rules{Queued: "true", Cancelled: "object.a"}
	tests := []struct {
		name string
		d    Definition
		want workload.Kind
	}{
		{
			"a kind is called as its definition in the cluster", workflows(run),
			workload.Kind{Name: "workflows.argoproj.io", Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows", Collection: "workflows.argoproj.io"},
		},
		{
			"one of the core group, with a name and an end",
			Definition{Version: "v1", Resource: "replicationcontrollers", Name: "RC", Rules: end},
			workload.Kind{Name: "RC", Version: "v1", Resource: "replicationcontrollers", Collection: "replicationcontrollers", Ends: true},
		},
		{
			"pods move one that folds, unless it says itself that it runs",
			Definition{Group: "a.b", Version: "v1", Resource: "cs", Fold: true, Rules: end},
			workload.Kind{Name: "cs.a.b", Group: "a.b", Version: "v1", Resource: "cs", Collection: "cs.a.b", Ends: true, Folds: true, PodsRun: true},
		},
		{
			"it does",
			Definition{Group: "a.b", Version: "v1", Resource: "cs", Fold: true, Rules: run},
			workload.Kind{Name: "cs.a.b", Group: "a.b", Version: "v1", Resource: "cs", Collection: "cs.a.b", Folds: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Compile(tt.d)
			if err != nil {
				t.Fatal(err)
			}
			ignore := cmpopts.IgnoreFields(workload.Kind{}, "Object", "List", "Reducer", "Trimmer", "Assessor", "Rules")
			if diff := cmp.Diff(tt.want, got, ignore); diff != "" {
				t.Errorf("kind (-want +got):\n%s", diff)
			}
			if len(got.Rules) != 16 {
				t.Errorf("got rules %q, want 8 bytes in hex", got.Rules)
			}
		})
	}
}

func TestOtherExpressionsAreOtherRules(t *testing.T) {
	seen := map[string]string{}
	for name, r := range map[string]Rules{
		"one": {Running: "true"}, "another": {Running: "false"}, "another state": {Queued: "true"},
		"two": {Running: "true", Reason: "'a'"}, "two, one of them another": {Running: "true", Message: "'a'"},
	} {
		k, err := Compile(workflows(r))
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := seen[k.Rules]; taken {
			t.Errorf("%s and %s: got %s for both", name, other, k.Rules)
		}
		seen[k.Rules] = name
		again, err := Compile(workflows(r))
		if err != nil || again.Rules != k.Rules {
			t.Errorf("%s again: got %s (%v), want %s", name, again.Rules, err, k.Rules)
		}
	}
}

func TestEveryMistakeOfADefinition(t *testing.T) {
	tests := []struct {
		name string
		d    Definition
		want string
	}{
		{"nothing", Definition{}, `version: got "", want the version of an API such as v1alpha1
resource: got "", want the plural of a kind, in lower case, such as workflows
got no expression of a state, want one or more of queued, running, succeeded, failed, cancelled`},
		{
			"names that Kubernetes has not",
			Definition{Group: "a_b", Version: "1", Resource: "Workflows", Name: "a b", Rules: Rules{Running: "true"}},
			`group: got "a_b", want the group of an API such as argoproj.io; empty for the core group
version: got "1", want the version of an API such as v1alpha1
resource: got "Workflows", want the plural of a kind, in lower case, such as workflows
name: got "a b", want letters, digits, . and -, 128 at most, such as Workflow`,
		},
		{
			"a kind that is built in",
			Definition{Group: "batch", Version: "v1", Resource: "jobs", Rules: Rules{Running: "true"}},
			"resource: got jobs.batch, want its name alone, Job: the kind is built in",
		},
		{
			"one of the core group",
			Definition{Version: "v1", Resource: "pods", Rules: Rules{Running: "true"}},
			"resource: got pods, want its name alone, Pod: the kind is built in",
		},
		{
			"the name of one",
			Definition{Group: "a.b", Version: "v1", Resource: "jobs", Name: "Job", Rules: Rules{Running: "true"}},
			"name: got Job, want another name, such as VolcanoJob for Volcano's Job: the kind Job is built in",
		},
		{
			"no state", workflows(Rules{Reason: "'a'", Occurred: "''"}),
			"got no expression of a state, want one or more of queued, running, succeeded, failed, cancelled",
		},
		{
			"a mistake in each of two expressions", workflows(Rules{Running: "object.a ==", Message: "1"}),
			"running:1:12: got the end of the text, want an expression of bool\nmessage:1:1: got int, want string",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, err := Compile(tt.d)
			if err == nil || k.Name != "" {
				t.Fatalf("got %v with kind %q, want an error and no kind", err, k.Name)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryMistakeOfAnExpression(t *testing.T) {
	const state = ", want an expression of bool"
	for e, want := range map[string]string{
		"object.status.phase == ":               "running:1:24: got the end of the text" + state,
		"object.status.phase = 'x'":             "running:1:21: got token recognition error at: '= '" + state + "\nrunning:1:23: got extraneous input ''x''" + state,
		"object.a &&\n  foo == 1":               "running:2:3: got undeclared reference to 'foo'" + state,
		"Object.status":                         "running:1:1: got undeclared reference to 'Object' (did you mean 'object'?)" + state,
		"now() > timestamp(0)":                  "running:1:4: got undeclared reference to 'now'" + state,
		"size(object) > 'a'":                    "running:1:14: got found no matching overload for '_>_' applied to '(int, string)'" + state,
		"'é' + 1 == 'a'":                        "running:1:5: got found no matching overload for '_+_' applied to '(string, int)'" + state,
		"timestamp('a') == object.a":            "running:1:11: got invalid timestamp argument" + state,
		"object.a.matches('(')":                 "running:1:18: got invalid matches argument" + state,
		"object.?status.?phase":                 "running:1:1: got optional_type(dyn), want bool",
		"\n\t 'a'":                              "running:2:3: got string, want bool",
		"null":                                  "running:1:1: got null, want bool",
		"object.a.map(x, x)":                    "running:1:1: got list(dyn), want bool",
		"object.a && \xff":                      "running:1:1: got bytes that are not UTF-8, want text",
		"object.a" + strings.Repeat(" ", 4<<10): "running:1:1: got 4104 bytes, want 4096 at most",
		strings.Repeat("(", 100):                "running:1:1: got expression recursion limit exceeded: 64" + state,
		"object.a.distinct().size() > 0":        "running:1:18: got distinct(), which may take minutes, want no distinct()",
		"object.a.replace('b', object.c) == ''": "running:1:29: got a value of the object, want literals of 64 bytes at most as arguments of replace",
		"object.a.indexOf('" + strings.Repeat("a", 65) + "') > 0": "running:1:18: got 65 bytes, want literals of 64 bytes at most as arguments of indexOf",
		"matches('a', object.b)":                                  "running:1:20: got a value of the object, want literals of 256 bytes at most as arguments of matches",
		"object.a.join(object.b) == ''":                           "running:1:21: got a value of the object, want literals of 64 bytes at most as arguments of join",
		"google.protobuf.Struct{fields: {}} == object.a":          "running:1:23: got a message google.protobuf.Struct, want a map: {...}",
		"object.a.matches('(a{20}){20}')":                         "running:1:18: got regex program size 442 exceeds limit of 250" + state,
	} {
		_, err := Compile(workflows(Rules{Running: e}))
		if err == nil || err.Error() != want {
			t.Errorf("%.60q:\ngot  %v\nwant %s", e, err, want)
		}
		for _, one := range unwrap(err) {
			var mistake *Error
			if !errors.As(one, &mistake) || mistake.Rule != "running" || mistake.Line < 1 || mistake.Column < 1 {
				t.Errorf("%.60q: got %#v, want a rule, a line and a column", e, one)
			}
		}
	}
}

func TestWhatAnExpressionMayBe(t *testing.T) {
	for _, e := range []string{
		"object", "object.a", "object.a.b && true", "object.a in ['b']", "object.?a.orValue(true)", "object.a.exists(x, x > 1)",
		"size(object.a) > 0.5", "math.greatest(object.a, 1) > 1", "object.a.split(',').join('') == object.b.lowerAscii()",
		"object.a.replace('b', '') == 'c'", "matches(object.a, '^b$')", "object.a.matches('^(b|c)+$')", "object.a.sort()[0] == object.a.last().orValue(1)",
		"timestamp(object.a) - timestamp('2026-01-01T00:00:00Z') > duration('1h')", "[][0]",
	} {
		if _, err := Compile(workflows(Rules{Running: e})); err != nil {
			t.Errorf("%s: got %v", e, err)
		}
	}
}

func unwrap(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// FuzzCompile holds that no expression makes the compiler panic, and that every
// mistake is one of the expression, in one line.
func FuzzCompile(f *testing.F) {
	for _, e := range []string{
		"true", "object.status.phase == 'a'", "object.?a[?\"b\"].orValue(1)", "object.a.all(x, x.b in [1, 2u, 3.0])", "\"abc",
		"((((", "has(object.a.b) ? timestamp('2026-01-01T00:00:00Z') : object.c", "{'a': object}[\"a\"].b", "object.a.matches('(')",
		"a.b.c.d(e)", "[1, 2].exists_one(object, object > 1)", ".object.a", "b'\\xff' == bytes(object.s)", "object.a.optMap(x, x + 1)", "\n\r\t`a`", "a.all(.,b \"c\")",
	} {
		f.Add(e)
	}
	f.Fuzz(func(t *testing.T, e string) {
		_, err := Compile(workflows(Rules{Running: e, Reason: e}))
		if err == nil {
			return
		}
		for _, one := range unwrap(err) {
			var mistake *Error
			if !errors.As(one, &mistake) {
				t.Fatalf("got %T, want an *Error", one)
			}
			lines := strings.Count(e, "\n") + 1
			if mistake.Got == "" || mistake.Want == "" || strings.ContainsAny(mistake.Error(), "\r\n") || mistake.Line > lines || e != "" && mistake.Line > 0 && mistake.Column < 1 {
				t.Errorf("got %q at %d:%d of %d lines", mistake.Error(), mistake.Line, mistake.Column, lines)
			}
		}
	})
}
