package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/outrider-agent/outrider/examples/receiver/story"
)

// tailEvery is how often the file is read: what is written waits half of it to
// be noticed.
const tailEvery = 5 * time.Millisecond

// follow takes what is appended to the file of a sink, until ctx ends. The
// file may not be there yet.
func (r *receiver) follow(ctx context.Context, path string) error {
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	var lines *bufio.Reader
	var begun []byte // a line whose end is not written yet
	for {
		if lines == nil {
			f, err := os.Open(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("receiver: %w", err)
			}
			if err == nil {
				defer f.Close()
				lines = bufio.NewReaderSize(f, 1<<16)
			}
		}
		if lines != nil {
			var err error
			if begun, err = r.takeLines(lines, begun); err != nil {
				return fmt.Errorf("receiver: %s: %w", path, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// takeLines takes the whole lines that are there, and returns the beginning of
// the next one.
func (r *receiver) takeLines(lines *bufio.Reader, begun []byte) ([]byte, error) {
	const atOnce = 1000
	var events []story.Event
	defer func() { r.take(events) }()
	for {
		part, err := lines.ReadSlice('\n')
		begun = append(begun, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return begun, nil
		case err != nil:
			return nil, err
		}
		e, err := story.Decode(begun)
		if err != nil {
			return nil, err
		}
		if events, begun = append(events, e), begun[:0]; len(events) == atOnce {
			r.take(events)
			events = nil
		}
	}
}
