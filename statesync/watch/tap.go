package watch

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kwatch "k8s.io/apimachinery/pkg/watch"
)

// A tap passes a watch's events on, and makes sure that the reflector goes on
// from where it is, and does not list again, for a watch that merely ended:
// what comes and goes between two lists is lost. The reflector lists again
// after an ERROR event other than 429, and client-go makes one of a broken
// connection, over HTTP/2 even of a watch that it was told to stop; and after
// a watch that ended within a second without an event. For these the tap ends
// with a bookmark at the last version that it passed on, and the watch behind
// it is stopped out of sight.
//
// An event whose version cannot be read is not passed on: the reflector would
// ask for that version ever after. In its place it gets 410 Gone, and lists.
type tap struct {
	inner    kwatch.Interface
	out      chan kwatch.Event
	bookmark func(version string) kwatch.Event
	trouble  func(error, bool) // told of a broken watch, or (true) of an event that cannot be read
	own      func(n int)       // told of each bookmark of the tap's own, 1 before it is sent, -1 when nobody took it

	shut, stop     sync.Once
	shutting       chan struct{} // closed when the tap is to end, for now
	stopped        chan struct{} // closed when the reflector listens no more
	over           chan struct{} // closed when no event comes any more
	version        string        // of the last event that was passed on
	listing, heard bool          // a list is being streamed; an event was passed on
}

// end makes the tap end for now; the reflector opens a watch anew from where
// it is. It does not wait.
func (t *tap) end() { t.shut.Do(func() { close(t.shutting) }) }

// Stop implements [kwatch.Interface].
func (t *tap) Stop() { t.stop.Do(func() { close(t.stopped) }) }

// ResultChan implements [kwatch.Interface].
func (t *tap) ResultChan() <-chan kwatch.Event { return t.out }

// isOpen reports whether events may come.
func (t *tap) isOpen() bool {
	select {
	case <-t.over:
		return false
	default:
		return true
	}
}

// run passes events on until the watch ends, the tap is ended or stopped, or
// ctx ends.
func (t *tap) run(ctx context.Context) {
	defer func() {
		t.inner.Stop()
		for range t.inner.ResultChan() { // until the watch has noticed
		}
	}()
	defer close(t.out)
	defer close(t.over)
	for {
		select {
		case e, ok := <-t.inner.ResultChan():
			if !ok {
				if !t.heard {
					t.sayHowFar(ctx)
				}
				return
			}
			if !t.pass(ctx, e) {
				return
			}
		case <-t.shutting:
			t.sayHowFar(ctx)
			return
		case <-t.stopped:
			return
		case <-ctx.Done():
			return
		}
	}
}

// pass passes one event on; false when it is the last.
func (t *tap) pass(ctx context.Context, e kwatch.Event) bool {
	if e.Type == kwatch.Error {
		if err := apierrors.FromObject(e.Object); apierrors.IsInternalError(err) && !t.listing {
			t.trouble(err, false)
			t.sayHowFar(ctx)
			return false
		}
		return t.send(ctx, e)
	}
	o, err := meta.Accessor(e.Object)
	if err == nil {
		_, err = parseVersion(o.GetResourceVersion())
	}
	if err != nil {
		t.trouble(fmt.Errorf("%s event: %w", e.Type, err), true)
		gone := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: err.Error()}
		t.send(ctx, kwatch.Event{Type: kwatch.Error, Object: &gone})
		return false
	}
	// Who is sent the object trims it: it is not to be read afterwards.
	version, listed := o.GetResourceVersion(), e.Type == kwatch.Bookmark && o.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
	if !t.send(ctx, e) {
		return false
	}
	t.heard, t.version = true, version
	if listed {
		t.listing, t.heard = false, false // the reflector counts anew from here
	}
	return true
}

// sayHowFar sends the bookmark with which a tap ends. A list that is not
// complete has no version to go on from.
func (t *tap) sayHowFar(ctx context.Context) {
	if t.version == "" || t.listing {
		return
	}
	if t.own(1); !t.send(ctx, t.bookmark(t.version)) {
		t.own(-1)
	}
}

// send returns false when nobody listens any more.
func (t *tap) send(ctx context.Context, e kwatch.Event) bool {
	select {
	case t.out <- e:
		return true
	case <-t.stopped:
		return false
	case <-ctx.Done():
		return false
	}
}
