package collectors

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// commLength is how much of a name the kernel keeps (TASK_COMM_LEN, without the
// zero at the end).
const commLength = 15

// processFinder finds the processes that are meant. One of pid, pidfile, name
// and unit is set.
type processFinder struct {
	proc                string
	pid                 int
	pidfile, name, unit string

	files  files
	round  int
	others map[int]int // how often one was looked at that is not meant
}

// Who was not meant in the first looks, in which a process may still become
// another program, is looked at seldom, but again and again: it may yet become
// one that is meant, or end and leave its PID to one.
const (
	firstLooks = 3
	seldom     = 8
)

// find returns the PIDs, sorted; they may have ended meanwhile. Beside some an
// error says that there may be others.
func (f *processFinder) find(ctx context.Context) ([]int, error) {
	switch {
	case f.pid != 0:
		return []int{f.pid}, nil
	case f.pidfile != "":
		return f.readPIDFile()
	}
	return f.walk(ctx)
}

// readPIDFile returns the process that a daemon wrote down. Without the file it
// does not run.
func (f *processFinder) readPIDFile() ([]int, error) {
	file, err := os.Open(f.pidfile)
	switch {
	case os.IsNotExist(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %w", err)
	}
	defer file.Close()
	const most = 64
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %w", err)
	}
	pid, err := parsePIDFile(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.pidfile, err)
	}
	if pid == 0 {
		return nil, nil
	}
	return []int{pid}, nil
}

// parsePIDFile reads a number on the first line. An empty file, as there is for
// a moment when a daemon begins, is 0.
func parsePIDFile(data []byte) (int, error) {
	first, _, _ := bytes.Cut(data, []byte("\n"))
	first = bytes.TrimSpace(first)
	if len(bytes.TrimSpace(data)) == 0 {
		return 0, nil
	}
	pid, err := strconv.ParseUint(string(first), 10, 31)
	if err != nil || pid == 0 {
		return 0, malformed(1, first, "a PID")
	}
	return int(pid), nil
}

// walk looks at every process.
func (f *processFinder) walk(ctx context.Context) ([]int, error) {
	dir, err := os.Open(f.proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	entries, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	var failed error // the first one
	others := make(map[int]int, len(f.others))
	f.round++
	for i, entry := range entries {
		pid, err := strconv.Atoi(entry)
		if err != nil || pid <= 0 {
			continue // not a process
		}
		if looks := f.others[pid]; looks >= firstLooks && (pid+f.round)%seldom != 0 {
			others[pid] = looks
			continue
		}
		if i%64 == 0 && ctx.Err() != nil {
			return nil, fmt.Errorf("look at processes: %w", context.Cause(ctx))
		}
		matches, err := f.matches(f.proc + "/" + entry)
		switch {
		case vanished(err) || forbidden(err): // gone, or hidden by the mount option hidepid
		case err != nil:
			failed = cmp.Or(failed, err)
		case matches:
			pids = append(pids, pid)
		default:
			others[pid] = f.others[pid] + 1
		}
	}
	f.others = others
	slices.Sort(pids)
	return pids, failed
}

// matches reports whether the process in a folder of proc is meant.
func (f *processFinder) matches(dir string) (bool, error) {
	if f.unit != "" {
		data, err := f.files.read(dir + "/cgroup")
		return err == nil && inUnit(data, f.unit), err
	}
	comm, err := f.files.read(dir + "/comm")
	if err != nil {
		return false, err
	}
	comm = bytes.TrimSuffix(comm, []byte("\n"))
	if len(f.name) <= commLength || string(comm) != f.name[:commLength] {
		return string(comm) == f.name, nil
	}
	args, err := f.files.read(dir + "/cmdline")
	program, _, _ := bytes.Cut(args, []byte{0})
	return err == nil && filepath.Base(string(program)) == f.name, err
}

// inUnit reports whether /proc/PID/cgroup says that the process belongs to a
// systemd unit: one part of the path is its name.
func inUnit(data []byte, unit string) bool {
	for line := range bytes.Lines(data) {
		parts := bytes.SplitN(bytes.TrimSpace(line), []byte(":"), 3)
		if len(parts) < 3 {
			continue
		}
		for part := range bytes.SplitSeq(parts[2], []byte("/")) {
			if string(part) == unit {
				return true
			}
		}
	}
	return false
}
