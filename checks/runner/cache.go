package runner

import (
	"sync"
	"time"
)

// maxPageAge bounds how late a page may show that a result got old: everything
// else that changes a digest is counted, and makes it be rendered anew.
const maxPageAge = 100 * time.Millisecond

// A view is what one request asks to see. Without the name of a check there are
// at most 156.
type view struct {
	category, group, check string
	form                   form
	full                   bool
}

// A cache holds the page that was rendered last for each view, so that a burst
// of requests costs one rendering.
type cache struct {
	mu    sync.Mutex
	pages map[view]cached
}

type cached struct {
	page    *page
	at      time.Time
	changes uint64
}

func (r *Runner) page(v view) *page {
	// Read before the digest is made: what changes meanwhile then counts as
	// a change after it.
	changes, now := r.changes.Load(), r.now()
	q := Query{Category: v.category, Group: v.group, Check: v.check, Now: now}
	if v.check != "" {
		return render(r.Digest(q), v.form, v.full) // one check is rendered soon, and has any name
	}
	r.cache.mu.Lock()
	defer r.cache.mu.Unlock()
	if c, ok := r.cache.pages[v]; ok && c.changes == changes {
		if age := now.Sub(c.at); age >= 0 && age < maxPageAge {
			return c.page
		}
	}
	if r.cache.pages == nil {
		r.cache.pages = map[view]cached{}
	}
	p := render(r.Digest(q), v.form, v.full)
	r.cache.pages[v] = cached{page: p, at: now, changes: changes}
	return p
}
