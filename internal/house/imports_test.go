package house

import (
	"fmt"
	"slices"
	"strings"
)

// An importRule says what some packages of this project may import of it.
type importRule struct {
	pkgs []string // patterns; the first rule that matches a package decides
	may  []string // patterns
	only bool     // true: nothing but may and the standard library; false: also other modules, and what is below itself
	why  string
}

// The vocabulary that a family may use. With it goes what a kind declares its
// configuration in.
var words = []string{"./agent/config", "./metrics", "./metrics/catalogue", "./statesync", "./checks/verdict", "./checks/nagios", "./checks/runner", "./alerts/rule"}

var importRules = []importRule{
	{[]string{"./metrics"}, nil, true, "metrics is the lowest word of the vocabulary"},
	{[]string{"./metrics/catalogue"}, []string{"./metrics"}, true, "catalogue is the vocabulary's own list"},
	{[]string{"./metrics/metricstest"}, []string{"./metrics"}, true, "tests of every package use metricstest"},
	{[]string{"./statesync"}, []string{"./metrics"}, true, "statesync says what a change is, for receivers that link nothing else"},
	{[]string{"./checks/verdict"}, []string{"./metrics"}, true, "verdict is vocabulary"},
	{[]string{"./checks/nagios"}, []string{"./metrics", "./checks/verdict"}, true, "nagios is vocabulary"},
	{[]string{"./alerts/rule"}, []string{"./metrics", "./checks/verdict", "./checks/nagios"}, true, "rule is vocabulary"},
	{[]string{"./checks/runner"}, []string{"./metrics", "./checks/verdict", "./checks/nagios"}, false, "runner runs checks and knows no kind"},
	{[]string{"./agent/config"}, nil, false, "every kind declares its configuration in these types, so they lean on none of ours"},
	{
		[]string{"./agent/..."},
		[]string{"./agent/...", "./metrics", "./checks/verdict", "./checks/nagios", "./checks/runner", "./alerts/rule"},
		false, "agent knows no kind, no family and no state sync: cmd hands it the tables",
	},
	{[]string{"./internal/failpoint"}, nil, true, "failpoint is called from every stage and leans on none"},
	{[]string{"./statesync/workload", "./statesync/ledger/...", "./statesync/delivery"}, []string{"./metrics", "./statesync", "./internal/failpoint"}, false, "the stages of state sync do not know each other"},
	{[]string{"./statesync/workload/custom"}, []string{"./statesync", "./statesync/workload"}, false, "the rules of configured kinds are rules as all others"},
	{[]string{"./statesync/sinks/..."}, []string{"./agent/config", "./metrics", "./statesync", "./statesync/sinks", "./internal/failpoint"}, false, "a sink knows what a change is, and not who sends it"},
	{[]string{"./statesync/simcluster/..."}, []string{"./metrics", "./statesync/simcluster"}, false, "simcluster plays the API server: it shares nothing with what it tests"},
	{[]string{"./statesync/kube/..."}, []string{"./metrics", "./statesync"}, false, "kube offers Kubernetes to the others and knows none of them"},
	{[]string{"./statesync/watch/..."}, []string{"./metrics", "./statesync", "./statesync/workload", "./internal/failpoint"}, false, "watch asks workload, the pure rules, and reaches clients and ledger through interfaces"},
	{[]string{"./statesync/controller/..."}, append([]string{"./statesync/..."}, words...), false, "controller wires state sync, and only that"},
	{[]string{"./collectors/..."}, append([]string{"./collectors/..."}, words...), false, "families do not import sideways"},
	{[]string{"./exporters/..."}, append([]string{"./exporters/..."}, words...), false, "families do not import sideways"},
	{[]string{"./checks/..."}, append([]string{"./checks/..."}, words...), false, "families do not import sideways"},
	{[]string{"./remedies/..."}, append([]string{"./remedies/..."}, words...), false, "families do not import sideways"},
	{[]string{"./history/..."}, append([]string{"./history/..."}, words...), false, "history is fed through interfaces"},
	{[]string{"./incidents/..."}, append([]string{"./incidents/..."}, words...), false, "incidents are fed through interfaces"},
	{[]string{"./alerts/..."}, append([]string{"./alerts/..."}, words...), false, "alerts render and mine rules, and know no family"},
	{[]string{"./dashboards/..."}, append([]string{"./dashboards/..."}, words...), false, "dashboards are drawn from the catalogue"},
	{[]string{"./deploy/..."}, append([]string{"./deploy/..."}, words...), false, "deploy holds files and what checks them"},
	{[]string{"./internal/house"}, nil, true, "the house test judges others and leans on none"},
	{[]string{"./docs/model"}, nil, true, "the model is built from the rules alone, and shares nothing with what it is held against"},
	{[]string{"./cmd/...", "./e2e/...", "./examples/..."}, []string{"./..."}, false, "commands import everything"},
}

const interfaceHint = "declare a one- or two-method interface where it is used and let cmd pass the value in"

// wrongImports holds packages to importRules. Tests are free: what they
// import is not linked.
func wrongImports(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		if f.test {
			continue
		}
		i := slices.IndexFunc(importRules, func(r importRule) bool { return matches(f.pkg, r.pkgs...) })
		if i < 0 {
			out = append(out, fmt.Sprintf("%s: package %s has no rule: say in importRules (internal/house) what it may import, and why", f.path, f.pkg))
			continue
		}
		r := importRules[i]
		may := r.may
		if !r.only {
			may = slices.Concat(may, []string{f.pkg + "/..."})
		}
		for _, spec := range f.Imports {
			imp := own(strings.Trim(spec.Path.Value, `"`))
			ours := strings.HasPrefix(imp, ".")
			switch {
			case ours && !matches(imp, may...):
				out = append(out, fmt.Sprintf("%s: imports %s: %s; %s", tr.at(spec), imp, r.why, interfaceHint))
			case !ours && r.only && !matches(imp, "std"):
				out = append(out, fmt.Sprintf("%s: imports %s: %s; use the standard library or move the code to a package that may", tr.at(spec), imp, r.why))
			}
		}
	}
	return out
}

// reserved lists what only some packages may import; the first match decides.
var reserved = []struct {
	imports, may []string
	why          string
}{
	{[]string{"k8s.io/kubernetes/...", "go.etcd.io/..."}, []string{"./e2e/..."}, "the real API server is a test's"},
	{
		[]string{"k8s.io/...", "sigs.k8s.io/..."},
		[]string{"./statesync/kube/...", "./statesync/watch/...", "./statesync/workload/...", "./statesync/simcluster/...", "./statesync/delivery/...", "./e2e/..."},
		"what others need of Kubernetes, statesync/kube offers behind an interface",
	},
	{[]string{"zombiezen.com/go/sqlite/...", "modernc.org/sqlite/...", "github.com/mattn/go-sqlite3/..."}, []string{"./statesync/ledger/..."}, "the ledger alone knows that it is SQLite"},
	{[]string{"github.com/twmb/franz-go/..."}, []string{"./statesync/sinks/kafka/...", "./e2e/..."}, "a kind with a heavy dependency is a subpackage"},
	{[]string{"github.com/jackc/pgx/v5/..."}, []string{"./statesync/sinks/postgres/...", "./e2e/..."}, "a kind with a heavy dependency is a subpackage"},
	{[]string{"github.com/spf13/cobra/...", "github.com/spf13/pflag/..."}, []string{"./cmd/...", "./e2e/..."}, "flags are the command's: take a configuration struct"},
	{[]string{"os/signal"}, []string{"./cmd/...", "./e2e/...", "./examples/..."}, "signals belong to the program that embeds us: take a context"},
	{[]string{"flag"}, []string{"./cmd/...", "./docs/model", "./e2e/...", "./examples/..."}, "flags are the command's: take a configuration struct"},
	{[]string{"github.com/stretchr/testify/...", "github.com/onsi/..."}, nil, "tests use testing and go-cmp"},
}

// reservedImports holds packages to reserved. Tests may import anything that
// some package may.
func reservedImports(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		for _, spec := range f.Imports {
			imp := strings.Trim(spec.Path.Value, `"`)
			for _, r := range reserved {
				if !matches(imp, r.imports...) {
					continue
				}
				if !matches(f.pkg, r.may...) && (!f.test || r.may == nil) {
					out = append(out, fmt.Sprintf("%s: imports %s, which is for %s: %s", tr.at(spec), imp, or(r.may, "nobody"), r.why))
				}
				break
			}
		}
	}
	return out
}

// impureImports finds I/O in the packages that promise to have none.
func impureImports(tr *tree) []string {
	var out []string
	for _, f := range tr.code {
		if f.test || !matches(f.pkg, "./statesync/workload/...", "./checks/verdict", "./alerts/rule") {
			continue
		}
		for _, spec := range f.Imports {
			if imp := strings.Trim(spec.Path.Value, `"`); matches(imp, "os/...", "net/...", "database/...", "syscall", "k8s.io/client-go/...") && imp != "net/netip" {
				out = append(out, fmt.Sprintf("%s: imports %s: %s is pure, values in and values out; do the I/O in its caller", tr.at(spec), imp, f.pkg))
			}
		}
	}
	return out
}

// heavyDeps looks at everything that an embedding program links.
func heavyDeps(tr *tree) []string {
	var out []string
	if tr.deps["./agent"] == nil {
		out = append(out, "./agent: go list knows no such package; it is what programs embed, so name the new one here")
	}
	for pkg, deps := range tr.deps {
		if !matches(pkg, "./agent/...", "./examples/embedded", "./metrics", "./checks/runner") {
			continue
		}
		for _, d := range deps {
			if matches(d, "k8s.io/...", "sigs.k8s.io/...", "zombiezen.com/go/sqlite/...", "modernc.org/...", "github.com/twmb/franz-go/...", "github.com/jackc/pgx/v5/...", "github.com/spf13/cobra") {
				out = append(out, fmt.Sprintf("%s: links %s, and so would every program that embeds the agent; `go list -deps %s` and `go mod why %s` show the way", pkg, d, pkg, d))
			}
		}
	}
	slices.Sort(out)
	return out
}

func or(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}
