package collectors

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"syscall"
)

// maxKernelFile bounds a file of the kernel's: the largest, /proc/stat of a
// machine with thousands of interrupts, has a few hundred kilobytes.
const maxKernelFile = 4 << 20

// files reads small files into one buffer.
type files struct{ buf []byte }

// read returns what a file holds. It is valid until the next read.
func (r *files) read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if r.buf == nil {
		r.buf = make([]byte, 16<<10)
	}
	n := 0
	for {
		if n == len(r.buf) {
			if n >= maxKernelFile {
				return nil, fmt.Errorf("read %s: more than %d bytes", path, maxKernelFile)
			}
			r.buf = append(r.buf, make([]byte, n)...)
		}
		m, err := f.Read(r.buf[n:])
		n += m
		switch {
		case errors.Is(err, io.EOF):
			return r.buf[:n], nil
		case err != nil:
			return nil, err
		}
	}
}

// absent reports whether an error says that the kernel, or this container, does
// not have the thing at all.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENODEV)
}

// vanished reports whether an error says that a process has ended meanwhile.
func vanished(err error) bool { return absent(err) || errors.Is(err, syscall.ESRCH) }

// unreadable names the file in an error. Of a file that is absent it is nil.
func unreadable(path string, err error) error {
	var named *fs.PathError
	switch {
	case err == nil || absent(err):
		return nil
	case errors.As(err, &named) && named.Path == path:
		return fmt.Errorf("read %w", err)
	}
	return fmt.Errorf("read %s: %w", path, err)
}

// parsed calls a parser of the library, which panics on some lines that the
// kernel would not write.
func parsed[T any](read func() (T, error)) (value T, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("got what cannot be parsed (%v), want the kernel's format", reason)
		}
	}()
	return read()
}

// malformed says what a line is and what it should be.
func malformed(line int, got []byte, want string) error {
	const most = 80
	text := string(got[:min(len(got), most)])
	if len(got) > most {
		text += "..."
	}
	return fmt.Errorf("line %d: got %q, want %s", line, text, want)
}

// number reads a whole decimal number.
func number(text []byte) (float64, bool) {
	digits, negative := bytes.CutPrefix(text, []byte("-"))
	if len(digits) == 0 || len(digits) > 20 {
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = 10*n + d
	}
	if negative {
		return -float64(n), true
	}
	return float64(n), true
}

// parsePairs reads lines of a name and a whole number, as in /proc/vmstat, with
// a colon after the name or without. What comes after the number, such as a
// unit, is left alone.
func parsePairs(data []byte, found func(name []byte, value float64)) error {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		name, rest := cutField(text)
		value, _ := cutField(rest)
		n, ok := number(value)
		if !ok {
			return malformed(line, bytes.TrimSpace(text), "a name and a whole number")
		}
		found(bytes.TrimSuffix(name, []byte(":")), n)
	}
	return nil
}

// parseTable reads pairs of lines, as in /proc/net/snmp: the names of a
// protocol's counters, and below them their values.
func parseTable(data []byte, found func(protocol, name []byte, value float64)) error {
	line := 0
	var protocol, names []byte
	for text := range bytes.Lines(data) {
		line++
		head, rest := cutField(text)
		if line%2 == 1 {
			protocol, names = head, rest
			continue
		}
		if !bytes.Equal(head, protocol) {
			return malformed(line, bytes.TrimSpace(text), fmt.Sprintf("the values of %q", protocol))
		}
		short := bytes.TrimSuffix(protocol, []byte(":"))
		for {
			var name, value []byte
			name, names = cutField(names)
			value, rest = cutField(rest)
			if len(name) == 0 && len(value) == 0 {
				break
			}
			n, ok := number(value)
			if len(name) == 0 || !ok {
				return malformed(line, bytes.TrimSpace(text), fmt.Sprintf("one whole number for each name, such as %q", name))
			}
			found(short, name, n)
		}
	}
	if line%2 == 1 {
		return fmt.Errorf("line %d: got the end of the file, want the values of %q", line+1, protocol)
	}
	return nil
}

// cutField returns the first field of a line, and what follows it.
func cutField(text []byte) (field, rest []byte) {
	text = bytes.TrimLeft(text, " \t\r\n")
	end := bytes.IndexAny(text, " \t\r\n")
	if end < 0 {
		return text, nil
	}
	return text[:end], text[end:]
}

// pressure is for how long some, or all, tasks waited for a resource. A share
// that the kernel does not tell is negative.
type pressure struct{ some, full float64 } // seconds

// parsePressure reads a file of pressure stall information, such as
// /proc/pressure/io: some avg10=0.00 avg60=0.00 avg300=0.00 total=12.
func parsePressure(data []byte) (pressure, error) {
	p := pressure{some: -1, full: -1}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		share, rest := cutField(text)
		_, total, found := bytes.Cut(rest, []byte("total="))
		total, _ = cutField(total)
		micros, ok := number(total)
		if !found || !ok || micros < 0 {
			return p, malformed(line, bytes.TrimSpace(text), "some or full, and total= with microseconds")
		}
		switch string(share) {
		case "some":
			p.some = micros / 1e6
		case "full":
			p.full = micros / 1e6
		}
	}
	return p, nil
}

// add adds what the kernel tells to a metric of resource and share.
func (p pressure) add(f *findings, resource string) {
	if p.some >= 0 {
		f.add("pressure_waiting_seconds_total", p.some, resource, "some")
	}
	if p.full >= 0 {
		f.add("pressure_waiting_seconds_total", p.full, resource, "full")
	}
}

// A pick says which metric a line of a file becomes.
type pick struct {
	metric string
	tags   []string
	scale  float64 // 0: 1
}

// addPicks adds the lines of a file that picks names.
func addPicks(f *findings, path string, data []byte, picks map[string]pick) error {
	return unreadable(path, parsePairs(data, func(name []byte, value float64) {
		if p, ok := picks[string(name)]; ok {
			f.add(p.metric, p.of(value), p.tags...)
		}
	}))
}

func (p pick) of(value float64) float64 {
	if p.scale == 0 {
		return value
	}
	return value * p.scale
}
