//go:build !linux

package checks

import "errors"

func statfs(string) (space, error) { return space{}, errors.ErrUnsupported }
