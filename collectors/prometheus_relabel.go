package collectors

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
)

// A RelabelConfig is one rule of Prometheus' metric_relabel_configs, with the
// same words. Rules are applied to each sample in turn: name, le and quantile
// are labels here (__name__ is the name of the sample, with _bucket, _sum or
// _count). They differ in this: labelkeep and labeldrop never take away the
// name, and labels that begin with __ are gone after the last rule. A dollar with
// braces is written with two in a configuration, which else reads it as a variable
// of the environment: $${1}.
type RelabelConfig struct {
	Action       string   `yaml:"action" default:"replace"` // keep, drop, replace, labeldrop, labelkeep or labelmap
	SourceLabels []string `yaml:"source_labels"`
	Separator    string   `yaml:"separator" default:";"`
	Regex        string   `yaml:"regex" default:"(.*)"` // RE2, of the whole text
	TargetLabel  string   `yaml:"target_label"`
	Replacement  string   `yaml:"replacement" default:"$1"`
}

const promNameLabel = "__name__"

// promPlainLabel is a name of a label, and one with references to groups.
var (
	promPlainLabel    = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	promTemplateLabel = regexp.MustCompile(`^(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))(?:[a-zA-Z0-9_]|\$(?:\{\w+\}|\w+))*$`)
)

// Validate implements the configuration's check.
func (c *RelabelConfig) Validate() error {
	_, err := c.compile()
	return err
}

// compile returns the rule, or a [config.FieldError].
func (c *RelabelConfig) compile() (promRule, error) {
	wrong := func(key, got, want string) (promRule, error) {
		return promRule{}, &config.FieldError{Key: key, Got: got, Want: want}
	}
	r := promRule{RelabelConfig: *c}
	r.Action = strings.ToLower(cmp.Or(c.Action, "replace"))
	labelAction := slices.Contains([]string{"labeldrop", "labelkeep", "labelmap"}, r.Action)
	switch {
	case !labelAction && !slices.Contains([]string{"keep", "drop", "replace"}, r.Action):
		return wrong("action", promShow(c.Action), "keep, drop, replace, labeldrop, labelkeep or labelmap")
	case labelAction && len(c.SourceLabels) > 0:
		return wrong("source_labels", "them with action "+r.Action, "none: the regex is held to the names of all labels")
	case !labelAction && r.Action != "replace" && len(c.SourceLabels) == 0:
		return wrong("source_labels", "none with action "+r.Action, "at least one")
	case r.Action == "replace" && c.TargetLabel == "":
		return wrong("target_label", "nothing with action replace", "the name of a label")
	case r.Action == "replace" && !promTemplateLabel.MatchString(c.TargetLabel):
		return wrong("target_label", promShow(c.TargetLabel), "the name of a label")
	case r.Action != "replace" && c.TargetLabel != "":
		return wrong("target_label", promShow(c.TargetLabel)+" with action "+r.Action, "none")
	case r.Action == "labelmap" && !promTemplateLabel.MatchString(c.Replacement):
		return wrong("replacement", promShow(c.Replacement), "the name of a label, such as $1")
	}
	for i, l := range c.SourceLabels {
		if !promPlainLabel.MatchString(l) {
			return wrong(fmt.Sprintf("source_labels[%d]", i), promShow(l), "the name of a label")
		}
	}
	var err error
	if r.re, err = regexp.Compile(`^(?s:` + c.Regex + `)$`); err != nil {
		return wrong("regex", promShow(c.Regex)+": "+strings.TrimPrefix(err.Error(), "error parsing regexp: "), "a regular expression (RE2)")
	}
	return r, nil
}

// A promRule is a rule that is ready.
type promRule struct {
	RelabelConfig
	re *regexp.Regexp
}

type promRelabeler []promRule

func newPromRelabeler(configs []RelabelConfig) (promRelabeler, error) {
	var out promRelabeler
	for i := range configs {
		r, err := configs[i].compile()
		if err != nil {
			return nil, fmt.Errorf("relabel[%d].%w", i, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// apply returns what the rules make of a sample; kept is false when they drop
// it, or leave it without a name.
func (rs promRelabeler) apply(name string, labels []promLabel) (_ string, _ []promLabel, kept bool) {
	ls := promLabelSet(append([]promLabel{{promNameLabel, name}}, labels...))
	for _, r := range rs {
		if ls, kept = r.apply(ls); !kept {
			return "", nil, false
		}
	}
	name = ls.value(promNameLabel)
	ls = slices.DeleteFunc(ls, func(l promLabel) bool { return strings.HasPrefix(l.name, "__") })
	return name, ls, name != ""
}

func (r promRule) apply(ls promLabelSet) (promLabelSet, bool) {
	switch r.Action {
	case "labeldrop", "labelkeep":
		return slices.DeleteFunc(ls, func(l promLabel) bool {
			return l.name != promNameLabel && r.re.MatchString(l.name) == (r.Action == "labeldrop")
		}), true
	case "labelmap":
		for _, l := range slices.Clone(ls) {
			if m := r.re.FindStringSubmatchIndex(l.name); m != nil {
				ls = ls.set(string(r.re.ExpandString(nil, r.Replacement, l.name, m)), l.value)
			}
		}
		return ls, true
	}
	values := make([]string, len(r.SourceLabels))
	for i, l := range r.SourceLabels {
		values[i] = ls.value(l)
	}
	text := strings.Join(values, r.Separator)
	m := r.re.FindStringSubmatchIndex(text)
	switch {
	case r.Action == "keep":
		return ls, m != nil
	case r.Action == "drop":
		return ls, m == nil
	case m == nil:
		return ls, true
	}
	target := string(r.re.ExpandString(nil, r.TargetLabel, text, m))
	return ls.set(target, string(r.re.ExpandString(nil, r.Replacement, text, m))), true
}

// promLabelSet are the labels of a sample, its name among them.
type promLabelSet []promLabel

func (ls promLabelSet) value(name string) string {
	for _, l := range ls {
		if l.name == name {
			return l.value
		}
	}
	return ""
}

// set gives a label a value; an empty one takes the label away. A name that is
// none changes nothing, as in Prometheus.
func (ls promLabelSet) set(name, value string) promLabelSet {
	if !promPlainLabel.MatchString(name) {
		return ls
	}
	i := slices.IndexFunc(ls, func(l promLabel) bool { return l.name == name })
	switch {
	case i >= 0 && value == "":
		return slices.Delete(ls, i, i+1)
	case i >= 0:
		ls[i].value = value
		return ls
	case value == "":
		return ls
	}
	return append(ls, promLabel{name, value})
}
