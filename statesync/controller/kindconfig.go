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
//   - A kind with a selector takes nothing in beside a tracked Pod: the owner
//     might be left out, and a pod's story must not hang on another's labels.
//     Without a tracked Pod nothing else would tell of the pods, so it does.
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
	Group    string `yaml:"group"` // empty: the core group
	Version  string `yaml:"version" required:"true"`
	Resource string `yaml:"resource" required:"true"`
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

func (c *Config) hasPods() bool {
	return slices.ContainsFunc(c.Kinds, func(k KindConfig) bool { return k.Kind == KindName{Name: "Pod"} })
}

// validateKinds checks the kinds, and writes their selectors in one way: a
// selector that is only written otherwise selects nothing else.
func (c *Config) validateKinds() (errs []error) {
	taken := map[string]bool{}
	for i := range c.Kinds {
		k := &c.Kinds[i]
		key := fmt.Sprintf("kinds[%d]", i)
		bad := func(below, got, want string) {
			errs = append(errs, &config.FieldError{Key: key + below, Got: got, Want: want})
		}
		found := k.validate(bad)
		errs = append(errs, within(key, found)...)
		if found == nil {
			for _, name := range k.names() {
				if taken[name] {
					bad("", name+" a second time", "each kind once")
					break
				}
				taken[name] = true
			}
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

// validate checks a kind by itself. It tells bad of what the configuration
// has too much, and returns what is wrong with the kind as such.
func (k *KindConfig) validate(bad func(below, got, want string)) error {
	if !k.Kind.builtIn() {
		_, err := k.Workload()
		return err
	}
	kind, ok := workload.Kinds[k.Kind.Name]
	if !ok {
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

// names are what no other kind may be called: its name, and that of its
// collection.
func (k *KindConfig) names() []string {
	if b, ok := workload.Kinds[k.Kind.Name]; ok && k.Kind.builtIn() {
		return []string{b.Name, KindName{Group: b.Group, Resource: b.Resource}.String()}
	}
	own := KindName{Group: k.Kind.Group, Resource: k.Kind.Resource}.String()
	if k.Kind.String() == own {
		return []string{own}
	}
	return []string{k.Kind.String(), own}
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

// validateFolding turns folding off where a selector forbids it, and refuses a
// selector on Pod beside kinds that pods fold into.
func (c *Config) validateFolding() (errs []error) {
	var into []string
	for i := range c.Kinds {
		k := &c.Kinds[i]
		if k.folds() && k.Selector != "" && c.hasPods() {
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
