package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/outrider-agent/outrider/statesync/ledger/inspect"
)

// ledgerLists are what a [ledgerReader] can list besides.
type ledgerLists interface {
	Letters(ctx context.Context, q inspect.LetterQuery) (out []inspect.Letter, all int64, err error)
	Sinks(ctx context.Context) ([]inspect.SinkState, error)
}

// lists opens the ledger for f.
func (p *ledgerPlace) lists(c *cobra.Command, args []string, f func(ledgerLists) error) (err error) {
	l, err := p.open(c, args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	lists, ok := l.(ledgerLists)
	if !ok {
		return errors.New("BUG: the ledger has no lists")
	}
	return f(lists)
}

func ledgerSinksCommand() *cobra.Command {
	p := &ledgerPlace{}
	c := &cobra.Command{
		Use:   "sinks",
		Short: "List the sinks that the ledger knows, and where each stands",
		Long: `List the sinks that the ledger knows: up to which number everything is settled,
how many changes wait for it, how many of these are put aside (refused for now,
initial states, replays), its dead letters, whether it is detached, and whether
the configuration has it ("-" when none was read).`,
		Example: `  outrider ledger sinks
  outrider ledger sinks --json | jq '.[] | select(.detached)'`,
	}
	p.flags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return p.lists(c, args, func(l ledgerLists) error {
			sinks, err := l.Sinks(c.Context())
			if err != nil {
				return err
			}
			if names, known := p.sinks(); known {
				inspect.Configure(sinks, names)
			}
			if p.json {
				return printJSON(c.OutOrStdout(), sinks)
			}
			return inspect.WriteSinks(c.OutOrStdout(), sinks)
		})
	}
	return c
}

func ledgerLettersCommand() *cobra.Command {
	p := &ledgerPlace{}
	var q inspect.LetterQuery
	var key string
	c := &cobra.Command{
		Use:   "deadletters",
		Short: "List the changes that a sink has refused as such",
		Long: `List dead letters, the newest last: ID, sink, workload, seq, the states from and
to; below it how often it was tried and when last (UTC), and what the receiver
said. They stay until they are replayed: outrider ledger replay --dead-letters.`,
		Example: `  outrider ledger deadletters
  outrider ledger deadletters --sink platform --last 0
  outrider ledger deadletters --json | jq .letters[].error`,
	}
	p.flags(c)
	c.Flags().StringVar(&q.Sink, "sink", "", "only of this sink")
	c.Flags().StringVar(&key, "workload", "", "only of this workload: NAMESPACE/KIND/NAME")
	c.Flags().StringVar(&q.UID, "uid", "", "only of this life of a workload")
	c.Flags().IntVar(&q.Last, "last", 20, "only the last N; 0: all")
	c.RunE = func(c *cobra.Command, args []string) error {
		if q.Last < 0 {
			return usageError(errors.New("--last: got a number below 0, want one from 0"))
		}
		if key != "" {
			k, err := inspect.ParseKey(key)
			if err != nil {
				return usageError(err)
			}
			q.Workload = &k
		}
		return p.lists(c, args, func(l ledgerLists) error {
			list := inspect.LetterList{Letters: []inspect.Letter{}}
			letters, all, err := l.Letters(c.Context(), q)
			if err != nil {
				return err
			}
			list.Letters, list.All = append(list.Letters, letters...), all
			if p.json {
				return printJSON(c.OutOrStdout(), list)
			}
			return list.WriteText(c.OutOrStdout())
		})
	}
	return c
}
