package house

import "testing"

func importSamples() []sample {
	one := func(path, importPath string) map[string]string {
		return map[string]string{path: "package x\n\nimport _ \"" + importPath + "\"\n"}
	}
	const way, reserve, pure = "imports point one way", "modules have their importers", "pure packages do no I/O"
	const embed = "what is embedded links nothing heavy"
	return []sample{
		{rule: way, name: "vocabulary imports a family", files: one("metrics/a.go", module+"/exporters"), want: "metrics/a.go:3: imports ./exporters"},
		{rule: way, name: "vocabulary imports upwards", files: one("metrics/a.go", module+"/statesync"), want: "imports ./statesync"},
		{rule: way, name: "vocabulary imports a library", files: one("statesync/a.go", "golang.org/x/sync/errgroup"), want: "use the standard library"},
		{rule: way, name: "vocabulary imports downwards", files: one("statesync/a.go", module+"/metrics")},
		{rule: way, name: "vocabulary imports what is below it", files: one("statesync/a.go", module+"/statesync/ledger"), want: "imports ./statesync/ledger"},
		{rule: way, name: "agent imports a family", files: one("agent/a.go", module+"/collectors"), want: "agent knows no kind"},
		{rule: way, name: "agent imports the kinds of checks", files: one("agent/a.go", module+"/checks"), want: "agent knows no kind"},
		{rule: way, name: "agent imports state sync", files: one("agent/listen/a.go", module+"/statesync"), want: "agent knows no kind"},
		{rule: way, name: "agent imports the runner", files: one("agent/a.go", module+"/checks/runner")},
		{rule: way, name: "a family imports sideways", files: one("collectors/a.go", module+"/exporters"), want: "do not import sideways"},
		{rule: way, name: "a family imports the agent", files: one("checks/a.go", module+"/agent"), want: "imports ./agent"},
		{rule: way, name: "a family imports its subpackage", files: one("exporters/kinds.go", module+"/exporters/otlp")},
		{rule: way, name: "a sink declares its configuration", files: one("statesync/sinks/a.go", module+"/agent/config")},
		{rule: way, name: "config imports a family", files: one("agent/config/a.go", module+"/checks/runner"), want: "lean on none of ours"},
		{rule: way, name: "watch imports the ledger", files: one("statesync/watch/a.go", module+"/statesync/ledger"), want: "through interfaces"},
		{rule: way, name: "delivery imports the ledger", files: one("statesync/delivery/a.go", module+"/statesync/ledger"), want: "do not know each other"},
		{rule: way, name: "a library imports cmd", files: one("history/a.go", module+"/cmd/outrider"), want: "imports ./cmd/outrider"},
		{rule: way, name: "the command imports everything", files: one("cmd/outrider/a.go", module+"/statesync/controller")},
		{rule: way, name: "a test imports sideways", files: one("collectors/a_test.go", module+"/exporters")},
		{rule: way, name: "a package without a rule", files: one("novelty/a.go", "os"), want: "package ./novelty has no rule"},

		{rule: reserve, name: "a check imports client-go", files: one("checks/a.go", "k8s.io/client-go/rest"), want: "statesync/kube offers"},
		{rule: reserve, name: "watch imports client-go", files: one("statesync/watch/a.go", "k8s.io/client-go/tools/cache")},
		{rule: reserve, name: "watch imports the API server", files: one("statesync/watch/a.go", "k8s.io/kubernetes/cmd"), want: "is a test's"},
		{rule: reserve, name: "history imports sqlite", files: one("history/a.go", "zombiezen.com/go/sqlite/sqlitex"), want: "the ledger alone"},
		{rule: reserve, name: "a sink imports Kafka", files: one("statesync/sinks/a.go", "github.com/twmb/franz-go/pkg/kgo"), want: "is a subpackage"},
		{rule: reserve, name: "a library hears signals", files: one("agent/a.go", "os/signal"), want: "take a context"},
		{rule: reserve, name: "a test uses testify", files: one("agent/a_test.go", "github.com/stretchr/testify/require"), want: "is for nobody"},
		{rule: reserve, name: "a test has a flag", files: one("agent/a_test.go", "flag")},

		{rule: pure, name: "workload reads a file", files: one("statesync/workload/a.go", "os"), want: "is pure"},
		{rule: pure, name: "verdict imports net/http", files: one("checks/verdict/a.go", "net/http"), want: "is pure"},
		{rule: pure, name: "workload imports the API's types", files: one("statesync/workload/a.go", "k8s.io/api/core/v1")},

		{rule: embed, name: "agent links k8s.io", deps: map[string][]string{"./agent": {"fmt", "k8s.io/klog/v2"}}, want: "./agent: links k8s.io/klog/v2"},
		{rule: embed, name: "an example links sqlite", deps: map[string][]string{"./agent": {"fmt"}, "./examples/embedded": {"modernc.org/libc"}}, want: "links modernc.org/libc"},
		{rule: embed, name: "agent is gone", want: "no such package"},
		{rule: embed, name: "the command links k8s.io", deps: map[string][]string{"./agent": {"fmt"}, "./cmd/outrider": {"k8s.io/klog/v2"}}},
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		path, pattern string
		want          bool
	}{
		{"./agent", "./agent/...", true},
		{"./agent/config", "./agent/...", true},
		{"./agents", "./agent/...", false},
		{"./agent/config", "./agent", false},
		{"net/http", "std", true},
		{"./metrics", "std", false},
		{"k8s.io/api", "std", false},
	} {
		if got := matches(tt.path, tt.pattern); got != tt.want {
			t.Errorf("matches(%q, %q) = %t, want %t", tt.path, tt.pattern, got, tt.want)
		}
	}
}
