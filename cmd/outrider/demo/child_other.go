//go:build !linux

package demo

import "syscall"

// attributes has a child leave the terminal's foreground.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
