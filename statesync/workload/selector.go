package workload

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"
)

// Selects returns a function that reports whether labels are what a selector
// asks for.
func Selects(selector string) (func(map[string]string) bool, error) {
	s, err := labels.Parse(selector)
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	return func(of map[string]string) bool { return s.Matches(labels.Set(of)) }, nil
}
