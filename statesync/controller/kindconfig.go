package controller

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync/workload"
	"github.com/outrider-agent/outrider/statesync/workload/custom"
)

// Rules of the kinds of a configuration:
//   - Each kind once: no two share a name, or a group and resource.
//   - What a kind controls folds into it, unless fold is false.
//   - A kind with a selector takes nothing in beside another tracked kind that
//     it may control, or a tracked Pod: the owner might be left out, and a story
//     must not hang on another's labels. Without one nothing else would tell of
//     what it controls, so it does.
//   - A selector on Pod has no place beside a kind that pods fold into: its
//     story would hang on the labels of its pods.

// KindConfig is a kind of workload to track, and which of its objects: in the
// file, the name of a built-in kind alone, or a mapping.
type KindConfig struct {
	Kind     KindName     `yaml:"kind" required:"true"`
	Selector string       `yaml:"selector"` // of labels: app=x,tier!=dev; empty: all
	Fold     *bool        `yaml:"fold"`     // what it controls tells its story; nil: true
	CEL      custom.Rules `yaml:"cel"`      // of a kind that is not built in
}

// KindName is the name of a built-in kind, or a mapping that says which kind
// of the cluster it is.
type KindName struct {
	Group    string `yaml:"group"`   // empty: the core group
	Version  string `yaml:"version"` // required, as the resource: custom.Compile says so
	Resource string `yaml:"resource"`
	Name     string `yaml:"name"` // what changes call it; empty: resource.group
}

// UnmarshalText reads the name of a built-in kind.
func (k *KindConfig) UnmarshalText(text []byte) error { return k.Kind.UnmarshalText(text) }

// UnmarshalText reads the name of a built-in kind.
func (k *KindName) UnmarshalText(text []byte) error {
	*k = KindName{Name: string(text)}
	return nil
}

// String is what changes call the kind.
func (k KindName) String() string {
	switch {
	case k.Name != "":
		return k.Name
	case k.Group != "":
		return k.Resource + "." + k.Group
	}
	return k.Resource
}

// builtIn reports whether the configuration gave a name alone.
func (k KindName) builtIn() bool { return k.Group == "" && k.Version == "" && k.Resource == "" }

// Workload returns the kind. Whether it folds beside the other kinds, Validate
// has said in Fold.
func (k KindConfig) Workload() (workload.Kind, error) {
	if !k.Kind.builtIn() {
		return custom.Compile(custom.Definition{
			Group: k.Kind.Group, Version: k.Kind.Version, Resource: k.Kind.Resource, Name: k.Kind.Name, Fold: k.folds(), Rules: k.CEL,
		})
	}
	kind, ok := workload.Kinds[k.Kind.Name]
	if !ok {
		return kind, fmt.Errorf("got %s, want a built-in kind", strconv.Quote(k.Kind.Name))
	}
	if kind.Folds && !k.folds() {
		kind = workload.Alone(kind)
	}
	return kind, nil
}

// folds reports whether what the kind controls tells its story.
func (k KindConfig) folds() bool {
	able := !k.Kind.builtIn() || workload.Kinds[k.Kind.Name].Folds
	return able && (k.Fold == nil || *k.Fold)
}

// mayControl lists the other kinds of the configuration whose objects may fold
// into those of kind i; a Pod may through others.
func (c *Config) mayControl(i int) (below []string) {
	of := workload.Kind{Name: c.Kinds[i].Kind.String()}
	for j, k := range c.Kinds {
		if name := k.Kind.String(); j != i && (name == "Pod" || of.MayControl(name)) {
			below = append(below, name)
		}
	}
	return below
}

// validateKinds checks the kinds, and writes their selectors in one way: a
// selector that is only written otherwise selects nothing else.
func (c *Config) validateKinds() (errs []error) {
	taken := map[string]int{}
	for i := range c.Kinds {
		k := &c.Kinds[i]
		key := fmt.Sprintf("kinds[%d]", i)
		bad := func(below, got, want string) {
			errs = append(errs, &config.FieldError{Key: key + below, Got: got, Want: want})
		}
		found := k.validate(bad)
		errs = append(errs, within(key, found)...)
		if found == nil {
			errs = append(errs, c.collision(i, taken)...)
		}
		if k.Selector == "" {
			continue
		}
		text, err := workload.ParseSelector(k.Selector)
		if err != nil {
			bad(".selector", strconv.Quote(k.Selector), "labels such as app=web,tier!=dev")
			continue
		}
		k.Selector = text
	}
	return append(errs, c.validateFolding()...)
}

// collision says whether a kind is called as one before it, and notes what it
// is called. The mistake is at the name that the configuration gives.
func (c *Config) collision(i int, taken map[string]int) []error {
	for _, name := range c.Kinds[i].names() {
		first, ok := taken[name]
		if !ok {
			taken[name] = i
			continue
		}
		for _, at := range []int{i, first} {
			other := c.Kinds[i+first-at]
			if k := c.Kinds[at].Kind; !k.builtIn() && k.Name == name {
				return []error{&config.FieldError{
					Key:  fmt.Sprintf("kinds[%d].kind.name", at),
					Got:  fmt.Sprintf("%s, what kinds[%d], %s, is called too", name, i+first-at, other.Kind.collection()),
					Want: "a name of its own",
				}}
			}
		}
		if c.Kinds[i].Kind.builtIn() {
			name = c.Kinds[i].Kind.Name
		}
		return []error{&config.FieldError{Key: fmt.Sprintf("kinds[%d]", i), Got: name + " a second time", Want: "each kind once"}}
	}
	return nil
}

// validate checks a kind by itself. It tells bad of what the configuration
// has too much, and returns what is wrong with the kind as such.
func (k *KindConfig) validate(bad func(below, got, want string)) error {
	if !k.Kind.builtIn() {
		_, err := k.Workload()
		return err
	}
	kind, ok := workload.Kinds[k.Kind.Name]
	if !ok {
		if k.Kind.Name == "CronJob" {
			return &custom.Error{Rule: "kind", Got: "CronJob", Want: "Job: each Job of a CronJob is told by itself"}
		}
		names := strings.Join(slices.Sorted(maps.Keys(workload.Kinds)), ", ")
		return &custom.Error{Rule: "kind", Got: show(k.Kind.Name), Want: "one of " + names + ", or a mapping of group, version and resource"}
	}
	if k.Fold != nil && !kind.Folds {
		bad(".fold", strconv.FormatBool(*k.Fold), "nothing: nothing folds into a "+k.Kind.Name)
	}
	if k.CEL != (custom.Rules{}) {
		bad(".cel", "expressions", "none: the rules of "+k.Kind.Name+" are built in")
	}
	return nil
}

// names are what no other kind may be called: its collection, and its name.
func (k *KindConfig) names() []string {
	name, own := k.Kind.String(), k.Kind.collection()
	if name == own {
		return []string{own}
	}
	return []string{own, name}
}

// collection is what a kind is called that has no name of its own.
func (k KindName) collection() string {
	if b, ok := workload.Kinds[k.Name]; ok && k.builtIn() {
		return KindName{Group: b.Group, Resource: b.Resource}.String()
	}
	return KindName{Group: k.Group, Resource: k.Resource}.String()
}

// within puts the mistakes of a kind at their keys.
func within(key string, err error) (errs []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			errs = append(errs, within(key, e)...)
		}
		return errs
	}
	var e *custom.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Rule {
	case "kind":
		key += ".kind"
	case "group", "version", "resource", "name":
		key += ".kind." + e.Rule
	case "":
		key += ".cel"
	default:
		key += ".cel." + e.Rule
	}
	return []error{&config.FieldError{Key: key, Got: e.Got, Want: e.Want, Line: e.Line, Column: e.Column}}
}

// validateFolding turns folding off where a selector forbids it, refuses it
// where the configuration asks for it there, and refuses a selector on Pod
// beside kinds that pods fold into.
func (c *Config) validateFolding() (errs []error) {
	var into []string
	for i := range c.Kinds {
		k := &c.Kinds[i]
		if beside := c.mayControl(i); k.folds() && k.Selector != "" && len(beside) > 0 {
			if k.Fold != nil {
				errs = append(errs, &config.FieldError{
					Key:  fmt.Sprintf("kinds[%d].fold", i),
					Got:  "true with a selector, beside " + strings.Join(beside, ", "),
					Want: "false, or no selector: what one controls that is left out would not tell its story",
				})
			}
			k.Fold = new(false)
		}
		if k.folds() {
			into = append(into, k.Kind.String())
		}
	}
	for i, k := range c.Kinds {
		if k.Kind == (KindName{Name: "Pod"}) && k.Selector != "" && len(into) > 0 {
			errs = append(errs, &config.FieldError{
				Key:  fmt.Sprintf("kinds[%d].selector", i),
				Got:  "a selector beside " + strings.Join(into, ", "),
				Want: "fold: false there: pods that are left out would not tell their story",
			})
		}
	}
	return errs
}

// show makes a name fit in an error: an empty one is quoted.
func show(name string) string {
	if name == "" || len(name) > 80 {
		return fmt.Sprintf("%.80q", name)
	}
	return name
}
