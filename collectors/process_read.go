package collectors

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
)

// userHz is the unit of times in /proc/PID/stat, on every architecture that Go
// runs on.
const userHz = 100

// What the kernel shows to the owner of a process only.
const (
	hiddenIO = iota
	hiddenFiles
	hiddenCount
)

type hiddenThings [hiddenCount]bool

// oneProcess is what one process has now.
type oneProcess struct {
	id                         processID
	name                       string
	state                      int // place in processStateNames
	threads, files             int
	resident, virtual, swapped float64 // bytes
	limit                      float64 // of files; +Inf: none
	counts                     processCounts
	seenIO                     bool
	hidden                     hiddenThings
}

// processStateNames are the words for the kernel's letters. Read-only.
var processStateNames = [...]string{"running", "sleeping", "waiting_for_disk", "stopped", "zombie", "idle", "other"}

const zombie = 4

func processState(letter byte) int {
	switch letter {
	case 'R':
		return 0
	case 'S':
		return 1
	case 'D':
		return 2
	case 'T', 't':
		return 3
	case 'Z', 'X', 'x':
		return zombie
	case 'I':
		return 5
	}
	return len(processStateNames) - 1
}

// read reads one process. A vanished one gives an error that vanished knows.
func (p *process) read(pid int) (oneProcess, error) {
	base := p.finder.proc + "/" + strconv.Itoa(pid)
	data, err := p.finder.files.read(base + "/stat")
	if err != nil {
		return oneProcess{}, err
	}
	one, err := parseProcessStat(data)
	if err != nil {
		return oneProcess{}, fmt.Errorf("read %s/stat: %w", base, err)
	}
	one.id.pid = pid

	data, err = p.finder.files.read(base + "/status")
	if err != nil {
		return oneProcess{}, err
	}
	if err := one.addStatus(data); err != nil {
		return oneProcess{}, fmt.Errorf("read %s/status: %w", base, err)
	}

	one.limit = math.Inf(1)
	if one.state == zombie { // it has given back everything
		return one, nil
	}
	err = p.readOwned(&one, base)
	return one, err
}

// readOwned reads what the kernel shows to the owner of a process only.
func (p *process) readOwned(one *oneProcess, base string) error {
	proc, err := p.procfs.Proc(one.id.pid)
	if err != nil {
		return err
	}
	switch io, err := parsed(proc.IO); {
	case err == nil:
		one.seenIO = true
		one.counts[readBytes], one.counts[writtenBytes] = float64(io.ReadBytes), float64(io.WriteBytes)
		one.counts[readCalls], one.counts[writeCalls] = float64(io.SyscR), float64(io.SyscW)
	case forbidden(err), os.IsNotExist(err): // without CONFIG_TASK_IO_ACCOUNTING there is none
		one.hidden[hiddenIO] = true
	case vanished(err):
		return err
	default:
		return fmt.Errorf("read %s/io: %w", base, err)
	}
	switch one.files, err = proc.FileDescriptorsLen(); {
	case err == nil:
	case forbidden(err):
		one.hidden[hiddenFiles] = true
	default:
		return fmt.Errorf("read %s/fd: %w", base, err)
	}
	limits, err := parsed(proc.Limits)
	switch {
	case forbidden(err):
		one.hidden[hiddenFiles] = true
	case err != nil:
		return fmt.Errorf("read %s/limits: %w", base, err)
	}
	if limits.OpenFiles > 0 && limits.OpenFiles < math.MaxUint64 {
		one.limit = float64(limits.OpenFiles)
	}
	return nil
}

// Places of fields in /proc/PID/stat behind the name, see proc_pid_stat(5).
const (
	statMinorFaults = 7
	statMajorFaults = 9
	statUserTime    = 11
	statSystemTime  = 12
	statThreads     = 17
	statStarted     = 19
	statVirtual     = 20
	statResident    = 21
	statFields      = 22 // how many are read
)

// parseProcessStat reads /proc/PID/stat. The name may hold anything, brackets
// too. The library's parser panics where the line ends early.
func parseProcessStat(data []byte) (oneProcess, error) {
	data = bytes.TrimSpace(data)
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return oneProcess{}, malformed(1, data, "a PID and a name in brackets")
	}
	one := oneProcess{name: string(data[open+1 : end])}
	letter, rest := cutField(data[end+1:])
	if len(letter) != 1 {
		return oneProcess{}, malformed(1, data, "a letter for the state behind the name")
	}
	one.state = processState(letter[0])
	var v [statFields]float64
	for i := 1; i < statFields; i++ {
		var field []byte
		field, rest = cutField(rest)
		n, ok := number(field)
		if !ok {
			return oneProcess{}, malformed(1, data, fmt.Sprintf("a whole number as field %d behind the name", i))
		}
		v[i] = n
	}
	if v[statStarted] < 0 || v[statThreads] < 0 || v[statThreads] > math.MaxInt32 || v[statStarted] > 1<<53 {
		return oneProcess{}, malformed(1, data, "threads and a start of 0 or more")
	}
	one.counts[userTime], one.counts[systemTime] = v[statUserTime]/userHz, v[statSystemTime]/userHz
	one.counts[minorFaults], one.counts[majorFaults] = v[statMinorFaults], v[statMajorFaults]
	one.threads, one.id.started = int(v[statThreads]), uint64(v[statStarted])
	one.virtual, one.resident = v[statVirtual], v[statResident]*float64(os.Getpagesize())
	return one, nil
}

// addStatus reads what only /proc/PID/status has. Most of its lines are no
// numbers; kernel threads have no memory of their own.
func (one *oneProcess) addStatus(data []byte) error {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		name, rest := cutField(text)
		var to *float64
		scale := 1.0
		switch string(name) {
		case "VmSwap:":
			to, scale = &one.swapped, 1024 // its unit is always kB
		case "voluntary_ctxt_switches:":
			to = &one.counts[voluntary]
		case "nonvoluntary_ctxt_switches:":
			to = &one.counts[involuntary]
		default:
			continue
		}
		value, _ := cutField(rest)
		n, ok := number(value)
		if !ok {
			return malformed(line, bytes.TrimSpace(text), "a name and a whole number")
		}
		*to = n * scale
	}
	return nil
}
