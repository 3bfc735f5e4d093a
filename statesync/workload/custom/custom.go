// Package custom makes kinds of workload from expressions of the configuration.
//
// The expressions are CEL, as Kubernetes itself has them, over one variable,
// object: the whole object as JSON. There is no clock: what an object says
// does not depend on when it is read.
//
// The rules of an object:
//   - The first that holds of failed, succeeded, cancelled, running and queued
//     is the state. None: the object does not say, and the workload stands
//     where it stood.
//   - A field or an item of a list that the object has not is no failure: a
//     state does not hold, a text is empty. Null counts as not there.
//   - Any other error is a failure: a wrong type, a bad time, the cost limit.
//     One before the first that holds leaves the state open: it might have
//     held. One in reason, message or occurred leaves that alone empty: a
//     state that is known is told even so. Both are returned with the object.
package custom

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// Rules are the expressions of a kind; an empty one is none.
type Rules struct {
	Queued    string `yaml:"queued"` // of states: true when the workload stands there
	Running   string `yaml:"running"`
	Succeeded string `yaml:"succeeded"`
	Failed    string `yaml:"failed"`
	Cancelled string `yaml:"cancelled"`
	Reason    string `yaml:"reason"`   // why, in a word
	Message   string `yaml:"message"`  // why, in a sentence
	Occurred  string `yaml:"occurred"` // since when, by the cluster's clocks: a timestamp, or text in RFC 3339
}

// Definition is a kind as the configuration gives it.
type Definition struct {
	Group    string // argoproj.io; empty for the core group
	Version  string // v1alpha1
	Resource string // workflows
	Name     string // what changes call it; empty: resource.group
	Fold     bool   // the pods it owns tell its story
	Rules    Rules
}

// An Error is one mistake in a definition.
type Error struct {
	Rule   string // the expression, or the field: running, version; empty: the definition as a whole
	Line   int    // within the expression, from 1; 0: the mistake is not in one
	Column int    // in characters, from 1
	Got    string // one line
	Want   string
}

// Error gives the mistake as it reads outside a file.
func (e *Error) Error() string {
	var at string
	if e.Rule != "" {
		at = e.Rule + ": "
	}
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d: ", e.Rule, e.Line, e.Column)
	}
	return at + "got " + e.Got + ", want " + e.Want
}

const (
	maxExpression = 4 << 10 // bytes
	maxReason     = 256     // bytes, as of a condition's reason in the cluster, rounded down
	maxMessage    = 4 << 10
)

// stateRule is one expression that names a state.
type stateRule struct {
	name  string
	state statesync.State
	text  func(Rules) string
}

// stateRules are the expressions of states, the first that holds first: what
// has ended stays so, whatever else is true of it. Read-only.
var stateRules = []stateRule{
	{"failed", statesync.Failed, func(r Rules) string { return r.Failed }},
	{"succeeded", statesync.Succeeded, func(r Rules) string { return r.Succeeded }},
	{"cancelled", statesync.Cancelled, func(r Rules) string { return r.Cancelled }},
	{"running", statesync.Running, func(r Rules) string { return r.Running }},
	{"queued", statesync.Queued, func(r Rules) string { return r.Queued }},
}

// What names of Kubernetes look like: labels and subdomains of RFC 1123, the
// name of a kind with capital letters too. Read-only.
var (
	label     = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,8}$`)
	kindName  = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9.-]{0,126}[A-Za-z0-9])?$`)
)

// Compile makes a kind of a definition. It returns all mistakes, joined; each
// is an [*Error].
func Compile(d Definition) (workload.Kind, error) {
	r, errs := compileRules(d.Rules)
	errs = append(d.check(), errs...)
	if len(errs) > 0 {
		return workload.Kind{}, errors.Join(errs...)
	}
	r.kind = d.name()
	return workload.Kind{
		Name: d.name(), Group: d.Group, Version: d.Version, Resource: d.Resource, Collection: d.collection(),
		Folds: d.Fold, PodsRun: d.Fold && d.Rules.Running == "",
		Ends:    d.Rules.Succeeded+d.Rules.Failed+d.Rules.Cancelled != "",
		Rules:   d.Rules.hash(),
		Object:  func() runtime.Object { return &unstructured.Unstructured{} },
		List:    func() runtime.Object { return &unstructured.UnstructuredList{} },
		Reducer: r.reduce, Trimmer: r.trim, Assessor: assess,
	}, nil
}

// check looks at all but the expressions.
func (d Definition) check() (errs []error) {
	bad := func(rule, got, want string) { errs = append(errs, &Error{Rule: rule, Got: got, Want: want}) }
	if d.Group == "core" {
		bad("group", "core", "nothing: for the core group leave group out")
	} else if d.Group != "" && (len(d.Group) > 253 || !subdomain.MatchString(d.Group)) {
		bad("group", quote(d.Group), "the group of an API such as argoproj.io; empty for the core group")
	}
	if !label.MatchString(d.Version) {
		bad("version", quote(d.Version), "the version of an API such as v1alpha1")
	}
	if !label.MatchString(d.Resource) {
		bad("resource", quote(d.Resource), "the plural of a kind, in lower case, such as workflows")
	}
	if d.Name != "" && !kindName.MatchString(d.Name) {
		bad("name", quote(d.Name), "letters, digits, . and -, 128 at most, such as Workflow")
	}
	for _, name := range slices.Sorted(maps.Keys(workload.Kinds)) {
		k := workload.Kinds[name]
		if k.Group == d.Group && k.Resource == d.Resource {
			bad("resource", d.collection(), "its name alone, "+name+": the kind is built in")
		} else if name == d.Name {
			bad("name", name, "another name, such as VolcanoJob for Volcano's Job: the kind "+name+" is built in")
		}
	}
	return errs
}

// name is what changes call the kind: that of its definition in the cluster,
// unless the configuration has another.
func (d Definition) name() string {
	if d.Name != "" {
		return d.Name
	}
	return d.collection()
}

func (d Definition) collection() string {
	if d.Group == "" {
		return d.Resource
	}
	return d.Resource + "." + d.Group
}

// hash names the rules: an object reduced by other expressions is read again.
func (r Rules) hash() string {
	h := sha256.New()
	for _, text := range []string{r.Queued, r.Running, r.Succeeded, r.Failed, r.Cancelled, r.Reason, r.Message, r.Occurred} {
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// assess says where the workload stands by itself.
func assess(o *workload.Object) workload.Status {
	return workload.Status{
		State: o.Said.State, Reason: o.Said.Reason, Message: o.Said.Message, Occurred: o.Said.Occurred,
		Back: o.Said.State == statesync.Queued,
	}
}

// quote makes text of the configuration fit in an error's one line.
func quote(s string) string { return fmt.Sprintf("%q", cut(s, 80)) }

// cut returns at most n bytes of s, whole characters of valid UTF-8.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s[:min(len(s), n+4)], "\uFFFD")
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
