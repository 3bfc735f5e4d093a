//go:build !linux

package collectors

import "errors"

func statfs(string) (usage, error) { return usage{}, errors.ErrUnsupported }
