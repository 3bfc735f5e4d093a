package sinktest

import (
	"context"
	"errors"
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

func TestGoodSinksPass(t *testing.T) {
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
					if err := c.check(s, s.read); err == nil {
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
