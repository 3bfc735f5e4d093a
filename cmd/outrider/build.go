package main

import (
	"fmt"
	"runtime"
	"strings"
)

// build says what the binary was built from.
func build() string {
	parts := []string{}
	if commit != "" {
		parts = append(parts, "commit "+commit[:min(12, len(commit))])
	}
	if date != "" {
		parts = append(parts, date)
	}
	return strings.Join(append(parts, fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)), ", ")
}
