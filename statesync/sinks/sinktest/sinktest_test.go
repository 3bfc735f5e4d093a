package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/outrider-agent/outrider/statesync"
)

// A shelf is a sink in memory that can be bad in many ways.
type shelf struct {
	bad func(s *shelf, ctx context.Context, ds []statesync.Delivery) error // nil: a good one

	mu   sync.Mutex
	ids  []string
	kept [][]statesync.Delivery
}

func (s *shelf) Deliver(ctx context.Context, ds []statesync.Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad != nil {
		return s.bad(s, ctx, ds)
	}
	return s.take(ds)
}

func (s *shelf) take(ds []statesync.Delivery) error {
	s.ids = append(s.ids, ids(ds)...)
	return nil
}

func (s *shelf) read() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ids)
}

type orderedShelf struct{ *shelf }

func (orderedShelf) Ordered() {}

// A refusing shelf says what became of each delivery.
type refusing struct {
	shelf
	refuse map[string]bool
	lie    func(s *refusing, ds []statesync.Delivery, errs []error) error // nil: it is a good one
}

func (s *refusing) Deliver(_ context.Context, ds []statesync.Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(ds))
	behind := map[statesync.Key]bool{}
	failed := false
	for i, d := range ds {
		if key := d.Workload.Key(); s.refuse[d.ID] || behind[key] {
			behind[key], failed = true, true
			errs[i] = &statesync.SinkError{Cause: "refused", Rejected: s.refuse[d.ID], Err: errors.New("refused")}
			continue
		}
		s.ids = append(s.ids, d.ID)
	}
	if !failed {
		return nil
	}
	if s.lie != nil {
		return s.lie(s, ds, errs)
	}
	return &statesync.BatchError{Errs: errs}
}

func newRefusing(lie func(s *refusing, ds []statesync.Delivery, errs []error) error) Opened {
	s := &refusing{refuse: map[string]bool{}, lie: lie}
	return Opened{Sink: s, Read: s.read, Refuse: func(id string) { s.refuse[id] = true }}
}

// TestLiesAboutABatchAreFound: each way to say the wrong thing of a batch of
// which something was refused.
func TestLiesAboutABatchAreFound(t *testing.T) {
	for name, lie := range map[string]func(s *refusing, ds []statesync.Delivery, errs []error) error{
		"one error too few": func(_ *refusing, _ []statesync.Delivery, errs []error) error {
			return &statesync.BatchError{Errs: errs[1:]}
		},
		"one error too many": func(_ *refusing, _ []statesync.Delivery, errs []error) error {
			return &statesync.BatchError{Errs: append(errs, nil)}
		},
		"no error at all": func(_ *refusing, _ []statesync.Delivery, errs []error) error {
			return &statesync.BatchError{Errs: make([]error, len(errs))}
		},
		"everything is taken": func(*refusing, []statesync.Delivery, []error) error { return nil },
		"what is taken is forgotten": func(s *refusing, _ []statesync.Delivery, errs []error) error {
			s.ids = nil
			return &statesync.BatchError{Errs: errs}
		},
		"a refused one is taken": func(_ *refusing, _ []statesync.Delivery, errs []error) error {
			errs[slices.IndexFunc(errs, func(err error) bool { return err != nil })] = nil
			return &statesync.BatchError{Errs: errs}
		},
		"those behind a refused one are taken": func(s *refusing, ds []statesync.Delivery, errs []error) error {
			for i, d := range ds {
				if errs[i] != nil && !s.refuse[d.ID] {
					s.ids, errs[i] = append(s.ids, d.ID), nil
				}
			}
			return &statesync.BatchError{Errs: errs}
		},
		"those behind a refused one are taken, and said not to be": func(s *refusing, ds []statesync.Delivery, errs []error) error {
			s.ids = append(s.ids, ids(ds)...)
			return &statesync.BatchError{Errs: errs}
		},
		"those behind a refused one are never taken": func(s *refusing, ds []statesync.Delivery, errs []error) error {
			for _, d := range ds {
				s.refuse[d.ID] = true
			}
			return &statesync.BatchError{Errs: errs}
		},
	} {
		if err := refused(newRefusing(lie)); err == nil {
			t.Errorf("%s: nothing wrong is found", name)
		}
	}
}

// A place is a shelf that goes on at a position: a number of IDs.
type place struct {
	*shelf
	at  int
	bad func(p *place, position string) // nil: it is a good one
}

func (p *place) Deliver(_ context.Context, ds []statesync.Delivery) error {
	for _, id := range ids(ds) {
		if p.at == len(p.ids) || p.ids[p.at] != id {
			p.ids = append(p.ids[:p.at:p.at], id)
		}
		p.at++
	}
	return nil
}

func (p *place) Ordered() {}

func (p *place) Position() string { return fmt.Sprint("at ", p.at) }

func (p *place) Resume(position string) error {
	if _, err := fmt.Sscanf(position, "at %d", &p.at); err != nil {
		p.at = len(p.ids)
	}
	if p.bad != nil {
		p.bad(p, position)
	}
	return nil
}

func newPlace(bad func(p *place, position string)) Opened {
	s := &shelf{}
	again := func() (statesync.Sink, error) { return &place{shelf: s, bad: bad}, nil }
	sink, _ := again()
	return Opened{Sink: sink, Read: s.read, Again: again}
}

// emptyPlace is a place that has no position before it was given something.
type emptyPlace struct{ *place }

func (p emptyPlace) Position() string {
	if p.at == 0 {
		return ""
	}
	return p.place.Position()
}

// TestBadPositionsAreFound: each way to go on at the wrong place.
func TestBadPositionsAreFound(t *testing.T) {
	for name, tt := range map[string]struct {
		bad   func(p *place, position string)
		check check
	}{
		"goes on at the end":      {func(p *place, _ string) { p.at = len(p.ids) }, resumed},
		"goes on one too early":   {func(p *place, _ string) { p.at = max(0, p.at-1) }, resumed},
		"goes on one too late":    {func(p *place, _ string) { p.at = min(len(p.ids), p.at+1) }, resumed},
		"does not know the start": {func(p *place, position string) { p.at = len(p.ids) }, resumedFromNothing},
		"begins anew without one": {func(p *place, position string) {
			if position == "" {
				p.at = 0
			}
		}, resumedWithout},
		"begins anew after nonsense": {func(p *place, position string) {
			if position == "nonsense" {
				p.at = 0
			}
		}, resumedWithout},
	} {
		if err := tt.check(newPlace(tt.bad)); err == nil {
			t.Errorf("%s: nothing wrong is found", name)
		}
	}
	empty := newPlace(nil)
	empty.Sink = emptyPlace{empty.Sink.(*place)}
	if err := resumedFromNothing(empty); err == nil {
		t.Error("no position before the first delivery: nothing wrong is found")
	}
	closed := newPlace(nil)
	closed.Again = nil
	if err := resumed(closed); err == nil {
		t.Error("cannot be opened again: nothing wrong is found")
	}
}

func TestGoodSinksPass(t *testing.T) {
	RunWith(t, func(*testing.T) Opened { return newRefusing(nil) })
	RunWith(t, func(*testing.T) Opened { return newPlace(nil) })
	Run(t, func(*testing.T) (statesync.Sink, func() []string) { s := &shelf{}; return s, s.read })
	Run(t, func(*testing.T) (statesync.Sink, func() []string) { s := &shelf{}; return orderedShelf{s}, s.read })
}

// TestBadSinksFail: each way to break the contract is found, by the case that
// is there for it.
func TestBadSinksFail(t *testing.T) {
	errBad := errors.New("bad")
	for name, tt := range map[string]struct {
		bad    func(s *shelf, ctx context.Context, ds []statesync.Delivery) error
		caseOf string
	}{
		"takes nothing": {
			func(*shelf, context.Context, []statesync.Delivery) error { return nil },
			"what is acknowledged is taken",
		},
		"refuses everything": {
			func(*shelf, context.Context, []statesync.Delivery) error { return errBad },
			"what is acknowledged is taken",
		},
		"puts the last one first": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				s.ids = append(ids(ds), s.ids...)
				return nil
			},
			"calls keep their order",
		},
		"takes the first of a batch": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error { return s.take(ds[:min(1, len(ds))]) },
			"a batch is taken whole and in order",
		},
		"turns a batch round": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				ds = slices.Clone(ds)
				slices.Reverse(ds)
				return s.take(ds)
			},
			"a batch is taken whole and in order",
		},
		"fails on nothing": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				if len(ds) == 0 {
					return errBad
				}
				return s.take(ds)
			},
			"nothing to deliver is no error",
		},
		"refuses a repeat": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				if slices.Contains(s.ids, ds[0].ID) {
					return errBad
				}
				return s.take(ds)
			},
			"a repeat is acknowledged",
		},
		"refuses what is long": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				if len(ds[0].Message) > 1000 {
					return errBad
				}
				return s.take(ds)
			},
			"odd changes are taken",
		},
		"writes into the labels": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				if ds[0].Workload.Labels != nil {
					ds[0].Workload.Labels["seen"] = "yes"
				}
				return s.take(ds)
			},
			"deliveries are left alone",
		},
		"forgets when the context has ended": {
			func(s *shelf, ctx context.Context, ds []statesync.Delivery) error {
				if ctx.Err() == nil {
					return s.take(ds)
				}
				return nil
			},
			"an ended context leaves no doubt",
		},
		"remembers a failure for ever": {
			func(s *shelf, ctx context.Context, ds []statesync.Delivery) error {
				if ctx.Err() != nil || len(s.kept) > 0 {
					s.kept = append(s.kept, ds)
					return errBad
				}
				return s.take(ds)
			},
			"an ended context leaves no doubt",
		},
		"mixes the workloads up": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				if len(s.ids) > 80 {
					s.ids[0], s.ids[80] = s.ids[80], s.ids[0]
				}
				return s.take(ds)
			},
			"workloads are taken at once",
		},
		"loses marks": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				return s.take(slices.DeleteFunc(slices.Clone(ds), func(d statesync.Delivery) bool { return d.Mark != nil }))
			},
			"marks, gaps and what was left out are taken",
		},
		"loses what has something left out before it": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				return s.take(slices.DeleteFunc(slices.Clone(ds), func(d statesync.Delivery) bool { return len(d.Skipped) > 0 }))
			},
			"marks, gaps and what was left out are taken",
		},
		"keeps the last one in a buffer": {
			func(s *shelf, _ context.Context, ds []statesync.Delivery) error {
				for _, late := range s.kept {
					s.ids = append(s.ids, ids(late)...)
				}
				s.kept = [][]statesync.Delivery{ds}
				return nil
			},
			"what is acknowledged survives Close",
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := false
			for _, c := range cases() {
				s := &shelf{bad: tt.bad}
				if c.name == tt.caseOf {
					found = true
					if err := c.check(Opened{Sink: s, Read: s.read}); err == nil {
						t.Errorf("the case %q finds nothing wrong", c.name)
					}
				}
			}
			if !found {
				t.Errorf("there is no case %q", tt.caseOf)
			}
		})
	}
}
