package controller

import (
	"context"
	"errors"
	"time"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/ledger"
)

// Living yields where each workload stands whose object exists, and then those
// that have gone since a time: see [ledger.Ledger.Living]. While the ledger is not
// open there are none.
func (c *Controller) Living(ctx context.Context, since time.Time, yield func(statesync.Living) error) error {
	if c.ledger == nil {
		return nil
	}
	if err := c.ledger.Living(ctx, since, yield); !errors.Is(err, ledger.ErrClosed) {
		return err
	}
	return nil
}
