// Package demo runs the agent between a simulated cluster and a simulated platform, and judges what the platform was told.
package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"time"
)

// The kinds of sink that a demo has.
const (
	SinkWebhook = "webhook"
	SinkBatch   = "webhook-batch"
	SinkFile    = "file"
)

const (
	batchSize    = 100
	readyPoll    = 20 * time.Millisecond
	settleTime   = time.Second
	drainPoll    = 50 * time.Millisecond
	faultyReady  = 5 * time.Second        // with faults, the agent is not waited for any longer
	slowReady    = 3 * time.Second        // so often it is said that the agent still reads
	quiet        = 3 * time.Second        // with nothing in the agent and nothing taken, nothing more is coming
	stopPatience = 8 * time.Second        // for the agent to stop; it promises 5 s
	lastLook     = scrapeLimit            // at the books
	lastDrain    = time.Second            // of an interrupted run
	lastPatience = 800 * time.Millisecond // for the agent to stop, when the run was interrupted
	hangPatience = 4 * time.Second        // for a cluster of its own process to answer, when the run was interrupted
	causeWithin  = 300 * time.Millisecond // a process that has ended is noticed, after what comes of it
)

// Options say what a demo is like.
type Options struct {
	Load
	Sink     string
	Manner   Manner
	For      time.Duration // 0: until it is interrupted
	Drain    time.Duration // so long it waits at the end for what is on its way
	JSON     bool          // the result goes to Out as one line of JSON, everything else to Err
	Keep     bool          // the folder stays
	Separate bool          // cluster and agent are processes of their own

	Agent   func(ctx context.Context, config string) error // runs an agent in this process
	Self    string                                         // the program's own file, which has simulate and run
	Out     io.Writer
	Err     io.Writer
	Colors  bool
	Columns func() int // of the terminal that people read; nil: it is none
	Log     *slog.Logger
}

// A demo is a run.
type demo struct {
	Options
	say      *voice
	places   places
	world    world
	agent    agent
	receiver *receiver
	client   *http.Client
	failed   chan error // a part that ended before it was told to
	began    time.Time
	lines    live
	last     view
	calm     *books // when nothing waited in the agent any more; nil: it is not known
	before   Taken  // it began
}

// Run runs a demo until its time is up or ctx ends. It returns an error when
// it cannot run, and when changes were lost or the books do not balance.
func Run(ctx context.Context, o Options) (err error) {
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	d := &demo{
		Options: o, client: &http.Client{Transport: &http.Transport{}}, failed: make(chan error, 8),
		say:   &voice{to: o.Out, terminal: o.Columns != nil, broken: gone},
		lines: live{colors: o.Colors, columns: o.Columns},
	}
	defer d.client.CloseIdleConnections()
	if o.JSON {
		// The result is on another way, and comes without anyone reading this.
		d.say.to, d.say.broken = o.Err, func(error) {}
	}
	if d.places.Folder, err = makeFolder(); err != nil {
		return err
	}
	bad := false
	defer func() {
		if o.Keep || bad {
			fmt.Fprintf(d.say, "kept: %s\n", d.places.Folder)
			return
		}
		err = errors.Join(err, os.RemoveAll(d.places.Folder))
	}()
	// The parts outlive ctx: what is on its way is let through first.
	parts, stop := newGroup(context.WithoutCancel(ctx), d.failed)
	defer stop()
	result, err := d.run(ctx, parts)
	if err != nil {
		err = d.cause(ctx, err)
		if d.agent != nil {
			_, _, _ = d.agent.stop(true) // what went wrong before says more
		}
		return err
	}
	if d.JSON {
		if err := json.NewEncoder(d.Out).Encode(result); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	} else {
		result.write(d.say, time.Since(d.began))
	}
	if result.Undelivered == 0 { // else it may only be on its way
		d.different(result.different)
	}
	if err := result.verdict(); err != nil {
		bad = !result.interrupted
		return d.where(err, bad)
	}
	return unread(ctx)
}

func (d *demo) different(workloads []string) {
	for i, what := range workloads {
		if i == 0 {
			fmt.Fprintln(d.say, "told otherwise than it had to be:")
		}
		fmt.Fprintf(d.say, "  %s\n", what)
	}
}

// unread is the error that the output could not be written, if it was so.
func unread(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, errUnread) {
		return err
	}
	return nil
}

// cause is what err came of: that nobody reads, or that a process has ended.
func (d *demo) cause(ctx context.Context, err error) error {
	if reason := unread(ctx); reason != nil {
		return reason
	}
	if _, ok := errors.AsType[*endedError](err); ok || !d.Separate {
		return err
	}
	for limit := time.After(causeWithin); ; {
		select {
		case other := <-d.failed:
			if _, ok := errors.AsType[*endedError](other); ok {
				return other
			}
		case <-limit:
			return err
		}
	}
}

// where says where to look.
func (d *demo) where(err error, kept bool) error {
	if !kept {
		return err
	}
	return fmt.Errorf("%w; what the agent recorded: outrider ledger verify -c %s; the same again: --seed %d", err, d.places.config(), d.Seed)
}

func (d *demo) run(ctx context.Context, parts *group) (*Result, error) {
	if err := d.start(ctx, parts); err != nil {
		return nil, err
	}
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	d.settle(ctx)
	d.began = time.Now()
	d.receiver.begin()
	if err := d.world.Begin(); err != nil {
		return nil, err
	}
	if err := d.look(ctx); err != nil && ctx.Err() == nil { // what was there before is no rate
		return nil, err
	}
	d.before = d.last.taken
	fmt.Fprintf(d.say, "%s: the agent has told %d changes of what was there; now things happen\n", clock(0), d.before.Changes)
	limit := d.For
	if limit == 0 {
		limit = 1 << 62
	}
	if _, err := d.watch(ctx, limit, nil); err != nil {
		return nil, err
	}
	return d.end(ctx, parts)
}

// start starts the parts: the receiver, the cluster, and then the agent.
func (d *demo) start(ctx context.Context, parts *group) error {
	p := &d.places
	p.Sink, p.Batch = d.Sink, 1
	if d.Sink == SinkBatch {
		p.Batch = batchSize
	}
	key, err := p.writeKey()
	if err != nil {
		return err
	}
	if err := os.Mkdir(p.cluster(), 0o700); err != nil {
		return fmt.Errorf("make the cluster's folder: %w", err)
	}
	if err := d.startWorld(ctx, parts); err != nil {
		return err
	}
	d.receiver = newReceiver(d.Manner, key, time.Now, d.world.Told)
	if d.Sink == SinkFile {
		parts.run(func(ctx context.Context) error { return d.receiver.follow(ctx, p.changes()) })
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("receiver: %w", err)
		}
		p.Receiver = l.Addr().String()
		parts.run(func(ctx context.Context) error { return d.receiver.serve(ctx, l, d.Log) })
	}
	if err := p.listen(); err != nil {
		return err
	}
	config, err := p.writeConfig()
	if err != nil {
		return err
	}
	d.introduce(config)
	if d.Separate {
		d.agent, err = startChild(d.Self, []string{"run", "-c", p.config()}, d.Err)
	} else {
		d.agent = startInside(ctx, d.Agent, p.config())
	}
	return err
}

// startWorld starts the cluster, and notes where it is.
func (d *demo) startWorld(ctx context.Context, parts *group) error {
	if d.Separate {
		r, err := startRemote(ctx, d.Self, d.places.cluster(), d.Load, d.Err, parts)
		if err != nil {
			return err
		}
		d.world, d.places.Kubeconfig = r, r.kubeconfig
		return nil
	}
	s, err := NewSimulation(d.Load, Place{Folder: d.places.cluster(), Log: d.Log})
	if err != nil {
		return err
	}
	parts.run(s.Run)
	d.world, d.places.Kubeconfig = s, s.Kubeconfig()
	return nil
}

// introduce says what is there to be seen.
func (d *demo) introduce(config string) {
	p := &d.places
	fmt.Fprintf(d.say, "the agent's configuration, %s:\n\n%s\n\n", p.config(), indent(config))
	host, port, _ := net.SplitHostPort(p.Status)
	for _, line := range [][2]string{
		{"digest", "curl -s 'http://" + p.Public + "/healthz?category=all&format=text'"},
		{"metrics", "curl -s http://" + p.Public + "/metrics"},
		{"pprof", "http://" + p.Debug + "/debug/pprof/"},
		{"status text", "nc " + host + " " + port},
		{"cluster", "export KUBECONFIG=" + p.Kubeconfig},
	} {
		fmt.Fprintf(d.say, "%-12s %s\n", line[0], line[1])
	}
	fmt.Fprintf(d.say, "\n%s workloads, %s changes/s, seed %d; Ctrl-C stops it\n\n", short(float64(d.Workloads)), short(d.Rate), d.Seed)
}

// ready waits until the agent has read the cluster.
func (d *demo) ready(ctx context.Context) error {
	var limit <-chan time.Time
	if d.Script != "" {
		limit = time.After(faultyReady)
	}
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	slow := time.NewTicker(slowReady)
	defer slow.Stop()
	began := time.Now()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.places.Public+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("ask the agent: %w", err)
		}
		if resp, err := d.client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-poll.C:
		case now := <-slow.C:
			fmt.Fprintf(d.say, "the agent reads the cluster, for %s now\n", now.Sub(began).Round(time.Second))
		case <-limit:
			fmt.Fprintf(d.say, "the agent has not read the cluster in %s: it begins all the same, as there are faults\n", faultyReady)
			return nil
		case <-ctx.Done():
			d.say.overwrite()
			return errors.New("stopped before the agent had read the cluster")
		case err := <-d.failed:
			return err
		case err := <-d.agent.ended():
			return hasEnded("the agent", err)
		}
	}
}

// settle waits a moment for what is told of the beginning, so that it is in no
// rate.
func (d *demo) settle(ctx context.Context) {
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for limit := time.Now().Add(settleTime); time.Now().Before(limit); {
		f, err := d.world.Figures()
		if err != nil || f.Matched >= f.Offered {
			return
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// watch shows a line every second, until the time is up, ctx ends, or done
// says so. It reports whether done did.
func (d *demo) watch(ctx context.Context, limit time.Duration, done func() bool) (bool, error) {
	over := time.NewTimer(limit)
	defer over.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	if done == nil {
		poll.Stop()
	}
	for {
		if done != nil && done() {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-over.C:
			return false, nil
		case <-poll.C:
		case now := <-tick.C:
			if err := d.line(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintf(d.say, "%s: %v\n", clock(now.Sub(d.began)), err)
			}
		case err := <-d.failed:
			return false, err
		case err := <-d.agent.ended():
			return false, hasEnded("the agent", err)
		}
	}
}

// A view is what all parts say at one moment.
type view struct {
	at      time.Time
	figures Figures
	books   books
	taken   Taken
}

// look asks all parts.
func (d *demo) look(ctx context.Context) (err error) {
	v := view{at: time.Now(), taken: d.receiver.figures()}
	if v.figures, err = d.world.Figures(); err != nil {
		return err
	}
	if v.books, err = readBooks(ctx, d.client, "http://"+d.places.Public+"/metrics"); err != nil {
		return err
	}
	d.agent.observe(v.books.Memory)
	d.last = v
	return nil
}

// line shows the second that has passed.
func (d *demo) line(ctx context.Context) error {
	from := d.last
	if err := d.look(ctx); err != nil {
		return err
	}
	to := d.last
	took := to.at.Sub(from.at)
	rate := func(from, to int64) float64 { return perSecond(to-from, took) }
	fmt.Fprintln(d.say, d.lines.render(second{
		At:      to.at.Sub(d.began),
		Offered: rate(from.figures.Offered, to.figures.Offered), In: rate(from.books.Captured, to.books.Captured),
		Delivered: rate(from.taken.Changes, to.taken.Changes),
		Waiting:   max(0, to.figures.Offered-to.figures.Matched), Retries: to.books.Retries, Drops: to.books.Drops,
		P99: to.figures.since(from.figures).Quantile(0.99), Memory: to.books.Memory,
	}))
	return nil
}

// end stops the scenario, lets through what is on its way, stops the agent,
// and asks what came of it all.
func (d *demo) end(ctx context.Context, parts *group) (*Result, error) {
	offering := time.Since(d.began)
	if ctx.Err() != nil {
		d.say.stopping(offering)
	}
	if _, err := d.world.End(false); err != nil {
		return nil, err
	}
	if ctx.Err() == nil {
		fmt.Fprintf(d.say, "%s: nothing more is offered; what is on its way has %s\n", clock(offering), spoken(d.Drain))
	}
	r := &Result{Seed: d.Seed}
	drained, err := d.drain(ctx)
	if err != nil {
		return nil, err
	}
	r.interrupted = ctx.Err() != nil
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	if err := d.line(look); err == nil {
		d.calm = &d.last.books
	}
	if d.calm != nil {
		r.Captured, r.Balance = d.calm.Captured, d.calm.Balance
	}
	if r.interrupted {
		d.receiver.hurry()
	}
	r.Memory, r.CPU, err = d.agent.stop(r.interrupted)
	if err != nil {
		return nil, hasEnded("the agent", err)
	}
	v, err := d.world.End(true)
	if err != nil {
		return nil, err
	}
	parts.stop()
	taken, last, problem := d.receiver.whole()
	r.judge(v, taken, drained)
	r.problem = cmp.Or(first(v.First), problem)
	r.OfferedRate = perSecond(v.Offered-v.Initial, offering)
	r.AchievedRate = perSecond(taken.Changes-d.before.Changes, last.Sub(d.began))
	r.different = v.First
	return r, nil
}

// drain waits until everything is told, for a while.
func (d *demo) drain(ctx context.Context) (bool, error) {
	if ctx.Err() == nil {
		drained, err := d.watch(ctx, d.Drain, d.delivered(ctx))
		if err != nil || drained || ctx.Err() == nil {
			return drained, err
		}
		d.say.stopping(time.Since(d.began))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastDrain)
	defer cancel()
	return d.watch(ctx, lastDrain, d.delivered(ctx))
}

// delivered returns a function that says whether everything is told, or
// nothing more is coming: then it is of no use to wait, unless faults are still
// to be got over.
func (d *demo) delivered(ctx context.Context) func() bool {
	taken, moved := int64(-1), time.Now()
	return func() bool {
		f, err := d.world.Figures()
		if err != nil {
			return false // it is asked again, and the verdict says why
		}
		if t := d.receiver.figures().Changes; t != taken {
			taken, moved = t, time.Now()
		}
		told := f.Matched >= f.Offered
		if !told && (d.Script != "" || time.Since(moved) < quiet) {
			return false
		}
		return d.settled(ctx)
	}
}

// settled reports whether nothing waits in the agent.
func (d *demo) settled(ctx context.Context) bool {
	b, err := readBooks(ctx, d.client, "http://"+d.places.Public+"/metrics")
	if err != nil || b.Waiting > 0 {
		return false
	}
	d.calm = &b
	return true
}

// judge enters what was told, and what was not.
func (r *Result) judge(v Verdict, taken Taken, drained bool) {
	r.Acknowledged, r.Duplicates, r.Gaps, r.Offered = taken.Changes, taken.Duplicates, taken.Gaps, v.Offered
	r.Unexpected, r.Contradictions = v.Extra, taken.Wrong
	r.setLatencies(v.latency())
	lost := max(v.Lost, taken.Holes)
	if r.interrupted && !drained && lost > 0 {
		r.Undelivered = lost // whether it would have been lost, nobody knows
		return
	}
	r.Lost = &lost
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 || n <= 0 {
		return 0
	}
	return math.Round(10*float64(n)/d.Seconds()) / 10
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
