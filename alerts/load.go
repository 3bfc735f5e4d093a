package alerts

import (
	"cmp"
	_ "embed" // the rules that ship
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
)

// ShippedFile is what errors call the rules that ship.
const ShippedFile = "alerts/rules.yaml"

//go:embed rules.yaml
var shipped []byte

// Shipped are the rules that ship.
func Shipped() (*Set, error) {
	set, err := Parse(ShippedFile, shipped)
	if err != nil {
		return nil, err
	}
	return merge([]*Set{set})
}

// Load reads rules from files of the form of rules.yaml; the owners of one file serve
// the rules of all, and so do those of the rules that ship. A rule of the name of one
// that is given takes its place.
func Load(given *Set, paths ...string) (*Set, error) {
	sets := []*Set{given}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		if len(data) > config.MaxFileBytes {
			return nil, fmt.Errorf("read rules: %s: got %d bytes, want %d at most", path, len(data), config.MaxFileBytes)
		}
		set, err := Parse(path, data)
		if err != nil {
			return nil, err
		}
		sets = append(sets, set)
	}
	return merge(sets)
}

// Parse reads the text of one file, which errors call by its path. Its owners may be in
// another one.
func Parse(path string, data []byte) (*Set, error) {
	set := &Set{}
	var runbooks string
	file, err := config.Parse(path, data, filepath.Dir(path), config.Options{Sections: map[string]any{
		"owners": &set.Owners, "rules": &set.Rules, "runbooks": &runbooks,
	}})
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"service", "data_dir", "listen", "log"} {
		if file.Has(key) {
			return nil, fmt.Errorf("%s: got the key %s, which is of an agent's configuration, want owners, rules and runbooks alone", path, key)
		}
	}
	if runbooks != "" && !isURL(runbooks) {
		return nil, fmt.Errorf("%s: runbooks: got %s, want a URL, http:// or https://", path, runbooks)
	}
	var errs []error
	for i := range set.Rules {
		r := &set.Rules[i]
		if r.Runbook == "" && runbooks != "" {
			r.Runbook = strings.TrimSuffix(runbooks, "/") + "/" + r.Name + ".md"
		}
		if r.Runbook == "" && r.Category == "page" {
			errs = append(errs, fmt.Errorf("%s: rules[%d] %s: got a page without runbook, want a URL: nobody is to be woken without being told what to do", path, i, r.Name))
		}
		for _, other := range set.Rules[:i] {
			if other.Name == r.Name {
				errs = append(errs, fmt.Errorf("%s: rules[%d]: got the name %s twice, want one rule of a name", path, i, r.Name))
			}
		}
	}
	return set, errors.Join(errs...)
}

// merge makes one set; what comes later takes the place of what came before.
func merge(sets []*Set) (*Set, error) {
	all := &Set{}
	for _, set := range sets {
		for _, r := range set.Rules {
			all.Rules = slices.DeleteFunc(all.Rules, func(before Rule) bool { return before.Name == r.Name })
			all.Rules = append(all.Rules, r)
		}
		for _, o := range set.Owners {
			all.Owners = slices.DeleteFunc(all.Owners, func(before Owner) bool { return before.Name == o.Name })
			all.Owners = append(all.Owners, o)
		}
	}
	slices.SortFunc(all.Rules, func(a, b Rule) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(all.Owners, func(a, b Owner) int { return cmp.Compare(a.Name, b.Name) })
	var errs []error
	for _, r := range all.Rules {
		if !slices.ContainsFunc(all.Owners, func(o Owner) bool { return o.Name == r.Owner }) {
			errs = append(errs, fmt.Errorf("rule %s: owner: got %s, want one of the owners: %s", r.Name, r.Owner, ownerNames(all.Owners)))
		}
	}
	return all, errors.Join(errs...)
}

func ownerNames(owners []Owner) string {
	out := make([]string, len(owners))
	for i, o := range owners {
		out[i] = o.Name
	}
	return cmp.Or(strings.Join(out, ", "), "there are none")
}
