package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// atomicWrite is what POSIX promises to write to a pipe as a whole on every
// system that matters here (PIPE_BUF on Linux): other programs write to Nagios's
// command file at the same time. Nagios itself would read lines of 8 KiB.
const atomicWrite = 4096

// With these and mostText, a line is shorter than that.
const (
	mostName        = 255 // bytes of the name of an object
	mostPassivePerf = 2048
)

// A fanOut writes one passive result a check to the command file of Nagios.
type fanOut struct {
	file   string
	host   string // as Nagios calls it
	prefix string // of the services' names
}

func (f *fanOut) validate() error {
	switch {
	case f.file == "" && (f.host != "" || f.prefix != ""):
		return errors.New("--fan-out-host and --fan-out-prefix: got no --fan-out, want the command file of Nagios")
	case f.file != "" && f.host == "":
		return errors.New("--fan-out-host: got nothing, want the host_name that Nagios knows")
	case nagiosName(f.host) != f.host || nagiosName(f.prefix) != f.prefix:
		return fmt.Errorf("--fan-out-host, --fan-out-prefix: got a character that Nagios allows in no name, or more than %d", mostName)
	}
	return nil
}

// send writes the results until ctx ends. It needs a Nagios that reads, and waits
// for none.
func (f *fanOut) send(ctx context.Context, now time.Time, rows []digestCheck) error {
	// Nothing is made or cut: what is there must be the pipe that Nagios made.
	pipe, err := os.OpenFile(f.file, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("%s: no Nagios reads it", f.file)
	}
	if err != nil {
		return err
	}
	defer pipe.Close()
	info, err := pipe.Stat()
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeNamedPipe == 0 {
		return fmt.Errorf("%s: got a file that is no pipe, want the command file of Nagios", f.file)
	}
	if end, ok := ctx.Deadline(); ok {
		if err := pipe.SetWriteDeadline(end); err != nil {
			return fmt.Errorf("%s: set a deadline: %w", f.file, err)
		}
	}
	var batch []byte
	written, held := 0, 0
	flush := func() error {
		if _, err := pipe.Write(batch); err != nil {
			return fmt.Errorf("%s: %d of %d results written: %w", f.file, written, len(rows), errors.Unwrap(err))
		}
		written, held, batch = written+held, 0, batch[:0]
		return nil
	}
	for _, c := range rows {
		line := f.line(c, now)
		if len(batch)+len(line) > atomicWrite {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, held = append(batch, line...), held+1
	}
	if len(batch) == 0 {
		return nil
	}
	return flush()
}

// line is one command. Nagios cuts it at semicolons, of which those in the text
// come too late to matter.
func (f *fanOut) line(c digestCheck, now time.Time) string {
	result := nagiosLine(c.line(2), c.measures(), mostPassivePerf)
	return fmt.Sprintf("[%d] PROCESS_SERVICE_CHECK_RESULT;%s;%s%s;%d;%s", now.Unix(), f.host, f.prefix, nagiosName(c.name), *c.Status, result)
}

// nagiosName replaces what no name of an object may have, and cuts one that is
// long.
func nagiosName(name string) string {
	name = strings.ToValidUTF8(name[:min(len(name), mostName)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || strings.ContainsRune("`~!$%^&*|'\"<>?,()=;\\", r) {
			return '_'
		}
		return r
	}, name)
}
