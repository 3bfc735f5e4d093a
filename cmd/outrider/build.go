package main

import (
	"runtime"
	"strings"
)

// build says what the binary was built from; empty when it does not know.
func build() string {
	var parts []string
	if commit != "" {
		parts = append(parts, "commit "+commit[:min(12, len(commit))])
	}
	if date != "" {
		parts = append(parts, date)
	}
	if builder != "" {
		parts = append(parts, "on "+builder)
	}
	return strings.Join(parts, ", ")
}

func platform() string { return runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH }
