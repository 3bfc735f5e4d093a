package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrider-agent/outrider/examples/receiver/story"
)

const (
	maxGroup    = 64 // requests that are synced to disk together
	forgetEvery = 5 * time.Minute
)

// A notebook takes events: it writes them to the store, syncs it, and then
// enters them in the book. What it has taken survives a crash, so it may be
// acknowledged.
type notebook struct {
	store *os.File // nil: nothing is written
	now   func() time.Time
	notes chan note

	mu   sync.Mutex // of book
	book *story.Book
}

// A note is what one request holds.
type note struct {
	events []story.Event
	texts  [][]byte // of the events, JSON
	done   chan error
}

// openNotebook opens the store, if path names one, and reads back what is in
// it. A last line without its end was never acknowledged: it is cut off, unless
// it is all there is and does not look like one.
func openNotebook(path string, forget time.Duration, now func() time.Time) (*notebook, error) {
	n := &notebook{now: now, notes: make(chan note), book: story.New(forget)}
	if path == "" {
		return n, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("open store %s: another receiver has it: %w", path, err)
	}
	n.store = f
	if err := errors.Join(n.readBack(), syncFolder(path)); err != nil {
		n.close()
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return n, nil
}

// eventStart is how each line of a store begins, as outrider sends it.
const eventStart = `{"specversion":`

// readBack enters all lines of the store in the book.
func (n *notebook) readBack() error {
	at := int64(0)
	for lines, number := bufio.NewReaderSize(n.store, 1<<16), 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if at == 0 && string(line[:min(len(line), len(eventStart))]) != eventStart[:min(len(line), len(eventStart))] {
				return fmt.Errorf("line %d: no event, and it has no end", number)
			}
			return n.store.Truncate(at)
		}
		if err != nil {
			return err
		}
		e, err := story.Decode(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		taken := n.now()
		if !e.Time.IsZero() && e.Time.Before(taken) {
			taken = e.Time // or each start would remember all that has ended for longer
		}
		n.book.Take(e, taken)
		at += int64(len(line))
	}
}

// syncFolder makes the store's name durable.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// run takes notes until ctx ends; requests that come at once share a sync.
// After an error of the store it is not known what is in it: then nothing more
// is taken, and run returns the error.
func (n *notebook) run(ctx context.Context) error {
	forget := time.NewTicker(forgetEvery)
	defer forget.Stop()
	for {
		var group []note
		select {
		case <-ctx.Done():
			return nil
		case <-forget.C:
			n.with(func(b *story.Book) { b.Forget(n.now()) })
			continue
		case first := <-n.notes:
			group = append(group, first)
		}
		for more := true; more && len(group) < maxGroup; {
			select {
			case next := <-n.notes:
				group = append(group, next)
			default:
				more = false
			}
		}
		err := n.write(group)
		if err == nil {
			n.enter(group)
		}
		for _, g := range group {
			g.done <- err
		}
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
}

// write makes what the store needs of the notes durable.
func (n *notebook) write(group []note) error {
	if n.store == nil {
		return nil
	}
	var lines bytes.Buffer
	for _, g := range group {
		for i, e := range g.events {
			if !n.needs(e) {
				continue
			}
			lines.Write(g.texts[i])
			lines.WriteByte('\n')
		}
	}
	if lines.Len() == 0 {
		return nil
	}
	if _, err := n.store.Write(lines.Bytes()); err != nil {
		return err
	}
	return n.store.Sync()
}

func (n *notebook) enter(group []note) {
	now := n.now()
	n.with(func(b *story.Book) {
		for _, g := range group {
			for _, e := range g.events {
				b.Take(e, now)
			}
		}
	})
}

func (n *notebook) needs(e story.Event) (needed bool) {
	n.with(func(b *story.Book) { needed = b.Needs(e) })
	return needed
}

func (n *notebook) with(f func(*story.Book)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.book)
}

// take hands over a request's events, and returns when they are noted.
func (n *notebook) take(ctx context.Context, events []story.Event, texts [][]byte) error {
	done := make(chan error, 1)
	select {
	case n.notes <- note{events: events, texts: texts, done: done}:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *notebook) report(limit int) (r story.Report) {
	n.with(func(b *story.Book) { r = b.Report(limit) })
	return r
}

func (n *notebook) close() {
	if n.store != nil {
		_ = unix.Flock(int(n.store.Fd()), unix.LOCK_UN) // a process that is just being forked would keep it
		n.store.Close()
	}
}
