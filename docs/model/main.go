// Command model looks at every state that the change path can reach in small worlds, and shows for every rule what is lost without it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit codes.
const (
	exitHolds    = 0
	exitViolated = 1
	exitUsage    = 2
)

const help = `model looks at every state that the change path can reach in small worlds.

With all rules every world must hold; with a rule removed one of them must
not. Progress goes to standard error, one line a search to standard output.

Examples:
  model                               all rules, then each rule removed; minutes
  model -long                         more events, and what needs them
  model -part hold -only A,C -cycles  some worlds, and whether a run is endless
  model -remove LowWater -only A      the shortest counterexample, step by step
  model -remove DiffW -events 2       is there one with two events?
  model -list                         rules and worlds

Exit codes: 0 holds and every removal is caught, 1 a violation or a removal
that is not caught, 2 usage.

Flags:
`

// options are the flags.
type options struct {
	part, only, remove           string
	events                       int
	crashes, breaks, compactions int // -1: the configuration's own
	touch, long, cycles          bool
	verbose, list                bool
	maxStates                    int
	limit                        time.Duration
	out, progress                io.Writer
}

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitHolds
	case err != nil:
		fmt.Fprintln(stderr, "model:", err)
		return exitUsage
	}
	o.out, o.progress = stdout, stderr
	if o.list {
		o.names()
		return exitHolds
	}
	var ok bool
	switch {
	case o.remove != "" || o.part == "hold":
		ok = o.hold()
	case o.part == "removals":
		ok = o.removals()
	default:
		ok = o.hold()
		ok = o.removals() && ok
	}
	if !ok {
		return exitViolated
	}
	return exitHolds
}

func parse(args []string, stderr io.Writer) (*options, error) {
	var o options
	f := flag.NewFlagSet("model", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.part, "part", "all", "what to run: hold, removals or all")
	f.StringVar(&o.only, "only", "", "worlds whose names start with one of these, separated by commas")
	f.StringVar(&o.remove, "remove", "", "remove these rules, separated by commas, and print the counterexample")
	f.IntVar(&o.events, "events", 0, fmt.Sprintf("events of the API server, 1 to %d (default: the world's own)", maxEvents))
	f.IntVar(&o.crashes, "crashes", -1, "crashes of the agent (default: the world's own)")
	f.IntVar(&o.breaks, "breaks", -1, "watches that break (default: the world's own)")
	f.IntVar(&o.compactions, "compactions", -1, "compactions of the history (default: the world's own)")
	f.BoolVar(&o.touch, "touch", false, "also MODIFIED without a change of state")
	f.BoolVar(&o.long, "long", false, "more events")
	f.BoolVar(&o.cycles, "cycles", false, "also look for a run that never comes to rest")
	f.BoolVar(&o.verbose, "v", false, "print the counterexample of every removal")
	f.BoolVar(&o.list, "list", false, "print the names of rules and worlds")
	f.IntVar(&o.maxStates, "max", 200_000_000, "states after which a search is cut")
	f.DurationVar(&o.limit, "limit", time.Hour, "time after which a search is cut")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, help)
			f.SetOutput(stderr)
			f.PrintDefaults()
		}
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("got argument %q, want none", f.Arg(0))
	case !slices.Contains([]string{"hold", "removals", "all"}, o.part):
		return nil, fmt.Errorf("part: got %q, want hold, removals or all", o.part)
	case o.events < 0 || o.events > maxEvents:
		return nil, fmt.Errorf("events: got %d, want 1 to %d", o.events, maxEvents)
	case len(o.worlds()) == 0:
		return nil, fmt.Errorf("only: got %q, want the start of a world's name: see -list", o.only)
	}
	for name := range strings.SplitSeq(o.remove, ",") {
		if err := new(rules).remove(name); o.remove != "" && err != nil {
			return nil, err
		}
	}
	return &o, nil
}

// worlds returns the configurations that were asked for.
func (o *options) worlds() (cs []config) {
	for _, c := range configurations() {
		if o.only != "" && !slices.ContainsFunc(strings.Split(o.only, ","), func(p string) bool { return p != "" && strings.HasPrefix(c.Name, p) }) {
			continue
		}
		if o.long && c.Long > 0 {
			c.Events = c.Long
		}
		override := func(to *uint8, n int) {
			if n >= 0 {
				*to = uint8(min(n, 255))
			}
		}
		if o.events > 0 {
			c.Events = uint8(o.events)
		}
		override(&c.Crashes, o.crashes)
		override(&c.Breaks, o.breaks)
		override(&c.Compactions, o.compactions)
		c.Touch = c.Touch || o.touch
		cs = append(cs, c)
	}
	return cs
}

// hold searches every world, and reports whether all hold.
func (o *options) hold() bool {
	ok := true
	for _, c := range o.worlds() {
		label := "all rules"
		if o.remove != "" {
			label = "without " + o.remove
			for name := range strings.SplitSeq(o.remove, ",") {
				if err := c.Rules.remove(name); err != nil {
					panic("BUG: " + err.Error()) // parse has tried it
				}
			}
		}
		r := o.search(&c, label, true)
		ok = ok && r.violation == "" && !r.cut && !r.endless
	}
	return ok
}

// removals removes each rule in turn, and reports whether all are caught.
func (o *options) removals() bool {
	ok := true
	for _, m := range removals() {
		if m.long && !o.long {
			continue
		}
		for _, c := range configurations() {
			if !strings.HasPrefix(c.Name, m.in) {
				continue
			}
			c.Events = m.events
			if m.narrow != nil {
				m.narrow(&c)
			}
			for name := range strings.SplitSeq(m.rules, ",") {
				if err := c.Rules.remove(name); err != nil {
					panic("BUG: " + err.Error())
				}
			}
			r := o.search(&c, "without "+m.rules, o.verbose)
			if caught := r.violation != ""; caught == m.spare {
				ok = false
				fmt.Fprintf(o.out, "NOT AS EXPECTED  without %s: violated %t, want %t\n", m.rules, caught, !m.spare)
			}
			break
		}
	}
	return ok
}

// search runs one search and prints its line, and its trace if there is one.
func (o *options) search(c *config, label string, trace bool) result {
	ctx, cancel := context.WithTimeout(context.Background(), o.limit)
	defer cancel()
	q := search{config: c, maxStates: o.maxStates, cycles: o.cycles, progress: o.progress}
	r := q.run(ctx)
	verdict := "holds"
	switch {
	case r.violation != "":
		verdict = fmt.Sprintf("VIOLATED in %d steps: %s", len(r.trace)-1, r.violation)
	case r.endless:
		verdict = "ENDLESS: some run never comes to rest"
	case r.cut:
		verdict = "CUT: holds so far"
	}
	fmt.Fprintf(o.out, "%-32s %-46s %d events %9d states %10d steps  depth %2d %6.1f s  %s\n",
		label, c.Name, c.Events, r.states, r.transitions, r.depth, r.took.Seconds(), verdict)
	if trace {
		for i, line := range r.trace {
			fmt.Fprintf(o.out, "    %2d %s\n", i+1, line)
		}
	}
	return r
}

func (o *options) names() {
	fmt.Fprintln(o.out, "rules:")
	for _, name := range ruleNames() {
		fmt.Fprintln(o.out, " ", name)
	}
	fmt.Fprintln(o.out, "worlds:")
	for _, c := range configurations() {
		fmt.Fprintln(o.out, " ", c.Name)
	}
}
