package controller

import (
	"testing"
	"time"

	"github.com/outrider-agent/outrider/statesync"
)

func TestLiving(t *testing.T) {
	t.Parallel()
	look := func(c *Controller) (got []statesync.Living) {
		err := c.Living(t.Context(), time.Now(), func(l statesync.Living) error { got = append(got, l); return nil })
		if err != nil {
			t.Error(err)
		}
		return got
	}
	if got := look(&Controller{}); len(got) != 0 {
		t.Errorf("%v before there is a ledger", got)
	}
	api := &apiServer{}
	api.uid.Store("cluster")
	c, stop := start(t, t.TempDir(), api)
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(look(c)) == 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("no workload after a minute")
		}
	}
	if got := look(c)[0]; got.UID != "u" || got.State != statesync.Running || got.Since.IsZero() {
		t.Errorf("got %+v, want u, which runs", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := look(c); len(got) != 0 {
		t.Errorf("%v after the end", got)
	}
}
