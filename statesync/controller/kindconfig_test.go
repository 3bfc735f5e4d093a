package controller

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// parseKinds reads a configuration with kinds, as the command does.
func parseKinds(t *testing.T, kinds string) (*Config, error) {
	t.Helper()
	c := &Config{}
	_, err := config.Parse("o.yaml", []byte("statesync:\n  sinks: [{name: a, none: {}}]\n  kinds:"+kinds), ".", config.Options{
		Sections: map[string]any{"statesync": c},
		Kinds:    map[string]config.Kinds{SinksKey: {"none": func() any { return new(struct{}) }}},
	})
	return c, err
}

const workflow = "{kind: {group: argoproj.io, version: v1alpha1, resource: workflows}, cel: {running: \"object.status.phase == 'Running'\"}"

func TestKindsOfAConfiguration(t *testing.T) {
	type kind struct {
		Name           string
		Folds, PodsRun bool
		Selector       string
	}
	tests := []struct {
		name, kinds string
		want        []kind
	}{
		{"names", " [Pod, Job]", []kind{{Name: "Pod"}, {Name: "Job", Folds: true, PodsRun: true}}},
		{"a name in a mapping", " [{kind: Job, fold: true}]", []kind{{Name: "Job", Folds: true, PodsRun: true}}},
		{"a Job that its pods do not fold into", " [Pod, {kind: Job, fold: false}]", []kind{{Name: "Pod"}, {Name: "Job"}}},
		{"a selector with spaces", " [{kind: Pod, selector: \"a = b,c\"}]", []kind{{Name: "Pod", Selector: "a=b,c"}}},
		{
			"a selector beside pods turns folding off there",
			" [{kind: Job, selector: a=b}, Pod, {kind: Deployment}]",
			[]kind{{Name: "Job", Selector: "a=b"}, {Name: "Pod"}, {Name: "Deployment", Folds: true}},
		},
		{
			"so does one beside a kind that it may control",
			" [{kind: Deployment, selector: a=b}, ReplicaSet, Job]",
			[]kind{{Name: "Deployment", Selector: "a=b"}, {Name: "ReplicaSet", Folds: true}, {Name: "Job", Folds: true, PodsRun: true}},
		},
		{
			"and of a kind of one's own, which may control any",
			" [" + workflow + ", selector: a=b}, Job]",
			[]kind{{Name: "workflows.argoproj.io", Selector: "a=b"}, {Name: "Job", Folds: true, PodsRun: true}},
		},
		{
			"one beside kinds that it does not control turns nothing off",
			" [{kind: Deployment, selector: a=b, fold: true}, Job]",
			[]kind{{Name: "Deployment", Folds: true, Selector: "a=b"}, {Name: "Job", Folds: true, PodsRun: true}},
		},
		{"a selector without pods does not", " [{kind: Job, selector: a=b}]", []kind{{Name: "Job", Folds: true, PodsRun: true, Selector: "a=b"}}},
		{
			"selected pods beside kinds that take none in",
			" [{kind: Pod, selector: a}, {kind: Job, fold: false}, {kind: Deployment, selector: a}]",
			[]kind{{Name: "Pod", Selector: "a"}, {Name: "Job"}, {Name: "Deployment", Selector: "a"}},
		},
		{"a kind of one's own", " [" + workflow + "}]", []kind{{Name: "workflows.argoproj.io", Folds: true}}},
		{"one that takes no pods in", " [" + workflow + ", fold: false}]", []kind{{Name: "workflows.argoproj.io"}}},
		{
			"one of the core group, with a name",
			` [{kind: {version: v1, resource: replicationcontrollers, name: RC}, cel: {queued: "true"}}]`,
			[]kind{{Name: "RC", Folds: true, PodsRun: true}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := parseKinds(t, tt.kinds)
			if err != nil {
				t.Fatal(err)
			}
			var got []kind
			for _, k := range c.Kinds {
				w, err := k.Workload()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, kind{w.Name, w.Folds, w.PodsRun, k.Selector})
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryWrongKindOfAConfiguration(t *testing.T) {
	tests := []struct {
		name, kinds string
		want        []string
	}{
		{"an unknown name", " [Jobs]", []string{"o.yaml:3: statesync.kinds[0].kind: got Jobs, want one of BUILTIN, or a mapping of group, version and resource"}},
		{"an empty name", ` [""]`, []string{`o.yaml:3: statesync.kinds[0].kind: got "", want one of BUILTIN, or a mapping of group, version and resource`}},
		{"nothing but a selector", " [{selector: a}]", []string{"o.yaml:3: statesync.kinds[0].kind: got nothing, want text or a mapping"}},
		{"a kind twice", " [Pod, Job, {kind: Pod}]", []string{"o.yaml:3: statesync.kinds[2]: got Pod a second time, want each kind once"}},
		{"a selector that cannot be read", ` [{kind: Pod, selector: a=b=c}]`, []string{`o.yaml:3: statesync.kinds[0].selector: got "a=b=c", want labels such as app=web,tier!=dev`}},
		{
			"selected pods beside kinds that they fold into",
			" [Job, {kind: Pod, selector: a=b}, " + workflow + "}]",
			[]string{"o.yaml:3: statesync.kinds[1].selector: got a selector beside Job, workflows.argoproj.io, want fold: false there: pods that are left out would not tell their story"},
		},
		{
			"folding that a selector forbids",
			" [{kind: Deployment, selector: a, fold: true}, Pod, ReplicaSet]",
			[]string{"o.yaml:3: statesync.kinds[0].fold: got true with a selector, beside Pod, ReplicaSet, want false, or no selector: what one controls that is left out would not tell its story"},
		},
		{"CronJobs", " [CronJob]", []string{"o.yaml:3: statesync.kinds[0].kind: got CronJob, want Job: each Job of a CronJob is told by itself"}},
		{"no kind", " [{kind: }]", []string{"o.yaml:3: statesync.kinds[0].kind: got nothing, want text or a mapping"}},
		{"a kind of which nothing is known", " [{kind: {}}]", []string{`o.yaml:3: statesync.kinds[0].kind: got "", want one of BUILTIN, or a mapping of group, version and resource`}},
		{
			"the name of the core group", " [" + strings.Replace(workflow, "argoproj.io", "core", 1) + "}]",
			[]string{"o.yaml:3: statesync.kinds[0].kind.group: got core, want nothing: for the core group leave group out"},
		},
		{
			"a name that is another's resource", " [" + strings.Replace(workflow, "workflows", "as, name: workflows.argoproj.io", 1) + "}, " + workflow + "}]",
			[]string{"o.yaml:3: statesync.kinds[0].kind.name: got workflows.argoproj.io, what kinds[1], workflows.argoproj.io, is called too, want a name of its own"},
		},
		{
			"a name that is a built-in kind's resource", " [Job, " + strings.Replace(workflow, "workflows", "workflows, name: jobs.batch", 1) + "}]",
			[]string{"o.yaml:3: statesync.kinds[1].kind.name: got jobs.batch, what kinds[0], jobs.batch, is called too, want a name of its own"},
		},
		{"folding into a pod", " [{kind: Pod, fold: false}]", []string{"o.yaml:3: statesync.kinds[0].fold: got false, want nothing: nothing folds into a Pod"}},
		{"expressions for a kind that is built in", ` [{kind: Job, cel: {queued: "true"}}]`, []string{"o.yaml:3: statesync.kinds[0].cel: got expressions, want none: the rules of Job are built in"}},
		{
			"a kind that is built in, given in full",
			` [{kind: {group: batch, version: v1, resource: jobs}, cel: {queued: "true"}}]`,
			[]string{"o.yaml:3: statesync.kinds[0].kind.resource: got jobs.batch, want its name alone, Job: the kind is built in"},
		},
		{
			"half a kind", " [{kind: {group: argoproj.io}}]",
			[]string{
				"o.yaml:3: statesync.kinds[0].cel: got no expression of a state, want one or more of queued, running, succeeded, failed, cancelled",
				`o.yaml:3: statesync.kinds[0].kind.resource: got "", want the plural of a kind, in lower case, such as workflows`,
				`o.yaml:3: statesync.kinds[0].kind.version: got "", want the version of an API such as v1alpha1`,
			},
		},
		{
			"a kind without expressions", "\n  - kind: {group: argoproj.io, version: v1alpha1, resource: workflows}",
			[]string{"o.yaml:4: statesync.kinds[0].cel: got no expression of a state, want one or more of queued, running, succeeded, failed, cancelled"},
		},
		{
			"one resource twice", " [" + workflow + "}, " + strings.Replace(workflow, "resource: workflows", "resource: workflows, name: Other", 1) + "}]",
			[]string{"o.yaml:3: statesync.kinds[1]: got workflows.argoproj.io a second time, want each kind once"},
		},
		{
			"one name twice", " [" + strings.Replace(workflow, "workflows", "as, name: W", 1) + "}, " + strings.Replace(workflow, "workflows", "bs, name: W", 1) + "}]",
			[]string{"o.yaml:3: statesync.kinds[1].kind.name: got W, what kinds[0], as.argoproj.io, is called too, want a name of its own"},
		},
		{
			"expressions of the wrong type, and ones that cannot be read", `
  - Pod
  - kind: {group: Argo, version: v1, resource: workflows}
    cel:
      running: object.status.phase + 1 == [
      queued: "size(object)"
      failed: 'object.phase.upper() == "A"'
      succeeded: |
        // a comment
        object.phase
          == true && 'yes'
      cancelled: >
        object.a ==
        nope
      reason: "\"a\" == \"b\""
      occurred: 5 # a number
`, []string{
				`o.yaml:5: statesync.kinds[1].kind.group: got "Argo", want the group of an API such as argoproj.io; empty for the core group`,
				"o.yaml:7:44: statesync.kinds[1].cel.running: got the end of the text, want an expression of bool",
				"o.yaml:8:16: statesync.kinds[1].cel.queued: got int, want bool",
				"o.yaml:9:34: statesync.kinds[1].cel.failed: got undeclared reference to 'upper' (did you mean 'upperAscii'?), want an expression of bool",
				"o.yaml:13:22: statesync.kinds[1].cel.succeeded: got expected type 'bool' but found 'string', want an expression of bool",
				"o.yaml:14: statesync.kinds[1].cel.cancelled: got undeclared reference to 'nope' (line 1, column 13 of the text), want an expression of bool",
				"o.yaml:17: statesync.kinds[1].cel.reason: got bool (line 1, column 1 of the text), want string",
				"o.yaml:18:17: statesync.kinds[1].cel.occurred: got int, want timestamp, or string in RFC 3339",
			},
		},
	}
	builtIn := strings.Join(slices.Sorted(maps.Keys(workload.Kinds)), ", ")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseKinds(t, tt.kinds)
			if err == nil {
				t.Fatal("got no error")
			}
			want := strings.ReplaceAll(strings.Join(tt.want, "\n"), "BUILTIN", builtIn)
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTheKindsThatTheDocumentationShows reads them word for word.
func TestTheKindsThatTheDocumentationShows(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	kinds := ""
	for _, name := range []string{"../../docs/config.md", "../../docs/kinds.md"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range block.FindAllSubmatch(b, -1) {
			text := string(m[1])
			if list, ok := strings.CutPrefix(text, "statesync:\n  kinds:\n"); ok {
				kinds += "\n" + list
			} else if strings.Contains("\n"+text, "\n- kind:") {
				kinds += "\n    " + strings.ReplaceAll(text, "\n", "\n    ")
			}
		}
	}
	c, err := parseKinds(t, kinds)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range c.Kinds {
		got = append(got, k.Kind.String())
	}
	if diff := cmp.Diff([]string{"Pod", "Job", "Build", "Workflow", "InferenceService", "VolcanoJob", "RayJob", "RayCluster", "Notebook"}, got); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
}
