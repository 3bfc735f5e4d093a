package watch

import (
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// A tap passes a watch's events on and can be closed by the stream, without
// the reflector taking it for a failure. Stopping client-go's own watch is not
// enough: over HTTP/2 the broken read comes out as an ERROR event, and a watch
// that ends within a second without an event counts as broken too; after
// either the reflector lists again, and what came and went meanwhile is lost.
// So a tap that is shut ends with a bookmark at the last version that it
// passed on, and the watch behind it is stopped out of sight.
type tap struct {
	inner    kwatch.Interface
	out      chan kwatch.Event
	bookmark func(version string) kwatch.Event

	once    sync.Once
	closing chan struct{} // closed when the tap is to end
	how     ending        // why; written before closing is closed

	stop    sync.Once
	stopped chan struct{} // closed when the reflector listens no more
}

// An ending says how a tap tells the reflector that it ends.
type ending int

const (
	shut   ending = iota // for now: to be opened again where it ended
	broken               // an event could not be read: list again
)

// newTap passes on a watch that begins at a version; "" when it begins with a
// list.
func newTap(inner kwatch.Interface, version string, bookmark func(version string) kwatch.Event) *tap {
	t := &tap{inner: inner, out: make(chan kwatch.Event), bookmark: bookmark, closing: make(chan struct{}), stopped: make(chan struct{})}
	go t.run(version)
	return t
}

// Stop implements [kwatch.Interface].
func (t *tap) Stop() { t.stop.Do(func() { close(t.stopped) }) }

// ResultChan implements [kwatch.Interface].
func (t *tap) ResultChan() <-chan kwatch.Event { return t.out }

// end makes the tap end; it does not wait.
func (t *tap) end(how ending) {
	t.once.Do(func() {
		t.how = how
		close(t.closing)
	})
}

// run passes events on until the watch ends, the tap is ended, or the
// reflector stops it.
func (t *tap) run(version string) {
	defer func() {
		t.inner.Stop()
		for range t.inner.ResultChan() { // until the watch has noticed
		}
	}()
	defer close(t.out)
	for {
		select {
		case e, ok := <-t.inner.ResultChan():
			if !ok {
				return
			}
			if !t.send(e) {
				return
			}
			if o, err := meta.Accessor(e.Object); err == nil && o.GetResourceVersion() != "" {
				version = o.GetResourceVersion()
			}
		case <-t.closing:
			t.sayWhy(version)
			return
		case <-t.stopped:
			return
		}
	}
}

// send returns false when the reflector listens no more.
func (t *tap) send(e kwatch.Event) bool {
	select {
	case t.out <- e:
		return true
	case <-t.stopped:
		return false
	}
}

func (t *tap) sayWhy(version string) {
	switch {
	case t.how == broken:
		t.send(kwatch.Event{Type: kwatch.Error, Object: &apierrors.NewInternalError(errUnreadable).ErrStatus})
	case version != "":
		t.send(t.bookmark(version))
	}
}
