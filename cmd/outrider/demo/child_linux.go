package demo

import "syscall"

// attributes has a child leave the terminal's foreground, and end when its
// parent has died.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
