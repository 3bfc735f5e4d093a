package main

import (
	"bufio"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetStart gives back the pages of the program's file that only its start has
// touched: packages of all kinds initialise themselves, used or not, and their 30
// MB would count as this process's memory for as long as nobody else wants it.
// What is needed again comes back from the page cache, in small pieces.
func forgetStart() error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program's file: %w", err)
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read the program's file: %w", err)
	}
	// In a program that can be anywhere in memory, addresses have been written
	// into read-only data too: of that the file has no copy.
	fixed := f.Type == elf.ET_EXEC
	if err := f.Close(); err != nil {
		return fmt.Errorf("close the program's file: %w", err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("read the memory map: %w", err)
	}
	defer smaps.Close()
	parts, err := untouched(smaps, path, fixed)
	if err != nil {
		return fmt.Errorf("read the memory map: %w", err)
	}
	for _, p := range parts {
		if !p.code {
			if err := cut(p); err != nil {
				return err
			}
		}
		if _, _, failed := unix.Syscall(unix.SYS_MADVISE, p.start, p.end-p.start, unix.MADV_DONTNEED); failed != 0 {
			return fmt.Errorf("give back %x-%x: %w", p.start, p.end, failed)
		}
	}
	return nil
}

// pieceSize is how much of the constants comes back at once. Each piece takes about
// 200 bytes of the kernel's own memory.
const pieceSize = 32 << 10

// cut makes pieces of a part. What is touched brings its neighbourhood with it: 64
// KiB, and in newer kernels all that the page cache holds as one, which may be
// megabytes. But it ends where a mapping does, so every second piece becomes another
// mapping: one that would be left out of a core dump, in which no constants are
// anyway. Code is left whole: little of it is needed, and profiles tell of each
// mapping of it.
func cut(p span) error {
	for at := (p.start + 2*pieceSize - 1) &^ (2*pieceSize - 1); at < p.end; at += 2 * pieceSize {
		if _, _, failed := unix.Syscall(unix.SYS_MADVISE, at, min(pieceSize, p.end-at), unix.MADV_DONTDUMP); failed != 0 {
			return fmt.Errorf("cut %x-%x at %x: %w", p.start, p.end, at, failed)
		}
	}
	return nil
}

// A span is a part of the address space.
type span struct {
	start, end uintptr
	code       bool
}

// untouched returns the parts of a file in a memory map (proc_pid_smaps(5)) that
// have code, or, if the file is fixed, constants, and in which nothing was written:
// a debugger and uprobes write their breakpoints there, of which the file has none.
func untouched(smaps io.Reader, path string, fixed bool) (parts []span, err error) {
	var at span
	var ours bool
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &at.start, &at.end); err != nil {
				return nil, fmt.Errorf("got %s, want start-end: %w", fields[0], err)
			}
			at.code = fields[1] == "r-xp"
			ours = len(fields) == 6 && fields[5] == path && (at.code || fields[1] == "r--p" && fixed)
		case ours && len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0":
			parts = append(parts, at)
		}
	}
	return parts, lines.Err()
}
