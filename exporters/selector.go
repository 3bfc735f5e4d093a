package exporters

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/outrider-agent/outrider/agent/config"
)

// A Selector chooses metrics by their Prometheus names: globs such as
// outrider_host_*, of which one must match, and such as !*_bytes, of which none
// may. Without one of the first sort everything matches that no other excludes.
type Selector []string

// Match reports whether the selector chooses a metric.
func (s Selector) Match(name string) bool {
	included, chosen := false, true
	for _, glob := range s {
		pattern, excludes := strings.CutPrefix(glob, "!")
		matched, _ := path.Match(pattern, name) // check has seen the pattern
		switch {
		case excludes && matched:
			return false
		case !excludes && !included:
			included, chosen = true, matched
		case !excludes:
			chosen = chosen || matched
		}
	}
	return chosen
}

// check names what is no glob.
func (s Selector) check(key string) error {
	var errs []error
	for i, glob := range s {
		pattern := strings.TrimPrefix(glob, "!")
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			errs = append(errs, &config.FieldError{Key: fmt.Sprintf("%s[%d]", key, i), Got: fmt.Sprintf("%q", glob), Want: "a glob of metrics' names, such as outrider_host_* or !*_bytes"})
		}
	}
	return errors.Join(errs...)
}
