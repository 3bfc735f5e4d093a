package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/outrider-agent/outrider/cmd/outrider/demo"
	"github.com/outrider-agent/outrider/statesync/simcluster/scenario"
)

// mostRate and mostWorkloads are what a simulated cluster is built for.
const (
	mostRate      = 1_000_000
	mostWorkloads = 1_000_000
)

// A flagValue is a flag with a reader of its own, whose error says what it got
// and what was wanted.
type flagValue struct {
	name  string // of the value, in the help
	text  string
	topic string // with which its errors begin
	set   func(text string) error
}

func (v *flagValue) String() string { return v.text }
func (v *flagValue) Type() string   { return v.name }

// Set implements [pflag.Value].
func (v *flagValue) Set(text string) error {
	if err := v.set(text); err != nil {
		// The command says before what flag it is, and what it got.
		err = errors.New(strings.TrimPrefix(err.Error(), v.topic))
		if wanted, ok := strings.CutPrefix(err.Error(), fmt.Sprintf("got %q, ", text)); ok {
			return errors.New(wanted)
		}
		return err
	}
	v.text = text
	return nil
}

// rateFlag takes changes a second: more than 0, or 0 too.
func rateFlag(c *cobra.Command, to *float64, name, text, usage string, zero bool) {
	set := func(text string) error {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || n < 0 || n > mostRate || n == 0 && !zero {
			least := "more than 0"
			if zero {
				least = "0 (no limit)"
			}
			return fmt.Errorf("got %q, want changes a second, such as 500: %s, at most %d", text, least, mostRate)
		}
		*to = n
		return nil
	}
	c.Flags().Var(preset(&flagValue{name: "number", set: set}, text), name, usage)
}

// durationFlag takes a duration: more than 0, or 0 too.
func durationFlag(c *cobra.Command, to *time.Duration, name, text, usage string, zero bool) {
	set := func(text string) error {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d == 0 && !zero {
			least := ""
			if !zero {
				least = " of more than 0"
			}
			return fmt.Errorf("got %q, want a duration%s, such as 10ms, 20s or 5m", text, least)
		}
		*to = d
		return nil
	}
	v := &flagValue{name: "duration", set: set}
	if text != "" {
		preset(v, text)
	}
	c.Flags().Var(v, name, usage)
}

// boolFlag takes true when it is there, or what is said.
func boolFlag(c *cobra.Command, to *bool, name, usage string) {
	set := func(text string) error {
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("got %q, want true or false", text)
		}
		*to = b
		return nil
	}
	c.Flags().Var(&flagValue{name: "bool", set: set}, name, usage)
	c.Flags().Lookup(name).NoOptDefVal = "true"
}

func preset(v *flagValue, text string) *flagValue {
	if err := v.Set(text); err != nil {
		panic("BUG: a flag's default: " + err.Error())
	}
	return v
}

// loadFlags adds the flags that say what is put on a simulated cluster.
func loadFlags(c *cobra.Command, l *demo.Load) {
	rateFlag(c, &l.Rate, "rate", "200", "changes of workloads a second", false)
	boolFlag(c, &l.Daily, "daily", "the rate follows the hours of a day of two minutes: from 0.2 to 1.8 times as much")
	c.Flags().Var(preset(&flagValue{name: "number", set: func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostWorkloads {
			return fmt.Errorf("got %q, want a number of workloads, 1 to %d", text, mostWorkloads)
		}
		l.Workloads = n
		return nil
	}}, "1000"), "workloads", "workloads that live at any time, and are there from the beginning")
	c.Flags().Var(&flagValue{name: "spike", topic: "spike: ", set: func(text string) error {
		s, err := scenario.ParseSpike(text)
		if err != nil {
			return err
		}
		l.Spikes, l.SpikeText = append(l.Spikes, s), append(l.SpikeText, text)
		return nil
	}}, "spike", "a higher rate for a time: 50000/10s from 5s after the beginning, or 50000/10s@30s; may be repeated")
	c.Flags().Var(&flagValue{name: "number", set: func(text string) error {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("got %q, want a whole number from 0", text)
		}
		l.Seed = n
		return nil
	}}, "seed", "what the scenario is made from: the same one gives the same changes; without, another one each time")
	c.Flags().Var(&flagValue{name: "file", set: func(text string) error {
		script, err := readScript(text)
		if err != nil {
			return err
		}
		l.Faults, l.Script = text, script
		return nil
	}}, "faults", "a script of faults, a line each: 5s..15s too-many pods")
}

// sinkFlag takes a kind of sink.
func sinkFlag(c *cobra.Command, to *string) {
	kinds := []string{demo.SinkFile, demo.SinkWebhook, demo.SinkBatch}
	c.Flags().Var(preset(&flagValue{name: "kind", set: func(text string) error {
		if !slices.Contains(kinds, text) {
			return fmt.Errorf("got %q, want %s", text, strings.Join(kinds[:2], ", ")+" or "+kinds[2])
		}
		*to = text
		return nil
	}}, demo.SinkWebhook), "sink", "how changes are told: file, webhook or webhook-batch")
}

// mannerFlags add how the receiver behaves.
func mannerFlags(c *cobra.Command, m *demo.Manner) {
	durationFlag(c, &m.Latency, "receiver-latency", "5ms", "how long the receiver takes for an answer", true)
	rateFlag(c, &m.Rate, "receiver-rate", "0", "changes a second that the receiver takes, more wait; 0: all", true)
	c.Flags().Var(&flagValue{name: "window", set: func(text string) error {
		w, err := demo.ParseWindow(text)
		if err != nil {
			return err
		}
		m.Down = &w
		return nil
	}}, "receiver-down", "when the receiver answers 503: 5s..15s")
}

// checkTogether refuses what does not go together: what would begin after the
// end, and a receiver's manner for a sink that has none.
func checkTogether(c *cobra.Command, o *demo.Options) error {
	late := func(name, text string, begins time.Duration) error {
		if o.For == 0 || begins < o.For {
			return nil
		}
		return usageError(fmt.Errorf("--%s: got %s, which begins %s after the beginning, want it before --for %s", name, text, begins, o.For))
	}
	for i, s := range o.Spikes {
		if err := late("spike", o.SpikeText[i], s.At); err != nil {
			return err
		}
	}
	if w := o.Manner.Down; w != nil {
		if err := late("receiver-down", w.String(), w.From); err != nil {
			return err
		}
	}
	if o.Sink != demo.SinkFile {
		return nil
	}
	for _, name := range []string{"receiver-latency", "receiver-rate", "receiver-down"} {
		if c.Flags().Changed(name) {
			return usageError(errors.New("--" + name + ": got it with --sink file, want --sink webhook or webhook-batch: nobody answers a file"))
		}
	}
	return nil
}

// seeded chooses a seed when none was given.
func seeded(c *cobra.Command, l *demo.Load) {
	if !c.Flags().Changed("seed") {
		l.Seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
}

// terminal returns what gives the columns of a terminal; nil: f is none.
func terminal(f any) (columns func() int) {
	file, ok := f.(*os.File)
	if !ok {
		return nil
	}
	columns = func() int {
		size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0
		}
		return int(size.Col)
	}
	if _, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ); err != nil {
		return nil
	}
	return columns
}

// inColors reports whether a terminal takes colours.
func inColors() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }
