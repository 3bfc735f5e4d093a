package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A Rememberer is a component with something small to remember over a restart, as
// JSON: what is shown, not what must not be lost. Restore is called once, before
// Run. With an error it has taken nothing.
type Rememberer interface {
	Remember() (json.RawMessage, error)
	Restore(json.RawMessage) error
}

const (
	memoryFile  = "memory.json"
	memoryEvery = 10 * time.Second
	mostMemory  = 16 << 20 // bytes of the file
	memoryForm  = 1
)

// A memory keeps what the parts of an agent remember in a file of the data
// directory: for each part by name. It is written when it has changed, as a whole
// or not at all. A file that cannot be read is set aside, and nobody remembers
// anything.
type memory struct {
	path  string
	parts map[string]Rememberer

	saved  []byte
	failed string // what was logged last
}

type remembered struct {
	Version int                        `json:"version"`
	Parts   map[string]json.RawMessage `json:"parts"`
}

// newMemory is of the runner and of components; nil when there is no directory.
func (a *Agent) newMemory() *memory {
	if a.opts.DataDir == "" {
		return nil
	}
	m := &memory{path: filepath.Join(a.opts.DataDir, memoryFile), parts: map[string]Rememberer{"checks of the agent": a.runner}}
	for _, c := range a.opts.Components {
		if r, ok := c.(Rememberer); ok {
			m.parts[c.Name()] = r
		}
	}
	return m
}

// restore gives the parts what they had.
func (a *Agent) restore(m *memory) {
	b, err := m.read()
	if err != nil {
		aside := m.path + ".bad"
		a.log.Warn("memory of the last run cannot be read: set aside, begun anew", "file", m.path, "aside", aside, "err", errors.Join(err, os.Rename(m.path, aside)))
		return
	}
	for name, part := range m.parts {
		if own, ok := b.Parts[name]; ok {
			if err := part.Restore(own); err != nil {
				a.log.Warn("a part of the agent does not take what it remembered; it begins anew", "part", name, "file", m.path, "err", err)
			}
		}
	}
}

func (m *memory) read() (r remembered, err error) {
	f, err := os.OpenFile(m.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read memory: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostMemory+1))
	switch {
	case err != nil:
		return r, fmt.Errorf("read memory: %w", err)
	case len(b) > mostMemory:
		return r, fmt.Errorf("read memory: got more than %d bytes, want fewer", mostMemory)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read memory: %w", err)
	}
	if r.Version != memoryForm {
		return r, fmt.Errorf("read memory: version: got %d, want %d", r.Version, memoryForm)
	}
	return r, nil
}

// keepMemory saves what has changed every ten seconds. A disk that is full stops
// nothing. The last time is when everything has stopped.
func (a *Agent) keepMemory(ctx context.Context, m *memory) error {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		a.save(m)
	}
}

func (a *Agent) save(m *memory) {
	err := m.save()
	said := ""
	if err != nil {
		said = err.Error()
	}
	switch {
	case said == m.failed:
	case err != nil:
		a.log.Warn("what is to be remembered over a restart cannot be saved", "err", err)
	default:
		a.log.Info("what is to be remembered over a restart is saved again")
	}
	m.failed = said
}

// saveAtEnd saves for the last time. A disk that does not answer keeps nobody.
func (a *Agent) saveAtEnd(m *memory) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.save(m)
	}()
	select {
	case <-done:
	case <-time.After(closeTimeout):
		a.log.Warn("what is to be remembered over a restart was not saved in time", "file", m.path)
	}
}

func (m *memory) save() error {
	r := remembered{Version: memoryForm, Parts: map[string]json.RawMessage{}}
	for name, part := range m.parts {
		b, err := part.Remember()
		if err != nil {
			return fmt.Errorf("remember %s: %w", name, err)
		}
		r.Parts[name] = b
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	if bytes.Equal(b, m.saved) {
		return nil
	}
	next := m.path + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("save memory: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(next, m.path)
	}
	if err != nil {
		return fmt.Errorf("save memory: %w", err)
	}
	m.saved = b
	return nil
}
