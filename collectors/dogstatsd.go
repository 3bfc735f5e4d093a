package collectors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/metrics"
)

// DogStatsDConfig describes a socket to which programs send their metrics, in
// StatsD or DogStatsD 1.0 to 1.6.
type DogStatsDConfig struct {
	// Listen is host:port for UDP, unix:///path for datagrams, or
	// unixstream:///path.
	Listen string `yaml:"listen" default:"127.0.0.1:8125"`

	ReceiveBuffer config.Bytes `yaml:"receive_buffer" default:"4MiB"` // of the kernel, which may give less
	Queue         config.Bytes `yaml:"queue" default:"4MiB"`          // between receiving and counting
	MaxPacket     config.Bytes `yaml:"max_packet" default:"64KiB"`    // longer ones are dropped
	Connections   int          `yaml:"connections" default:"128"`     // to unixstream, at once

	TTL             time.Duration `yaml:"ttl" default:"5m"` // of a series of which nothing comes
	Series          int           `yaml:"series" default:"10000"`
	SeriesPerMetric int           `yaml:"series_per_metric" default:"1000"`
	MaxTags         int           `yaml:"max_tags" default:"32"`        // of one series
	MaxTagLength    int           `yaml:"max_tag_length" default:"200"` // bytes, of name and of value
	SetWindow       time.Duration `yaml:"set_window" default:"10s"`     // in which sets count what is distinct

	// RelativeGauges makes +1 and -1 change a gauge, as in plain StatsD. In
	// DogStatsD they are values like any other.
	RelativeGauges bool `yaml:"relative_gauges"`
}

// Validate implements the configuration's check.
func (c *DogStatsDConfig) Validate() error {
	var errs []error
	wrong := func(key, got, want string) {
		errs = append(errs, &config.FieldError{Key: key, Got: got, Want: want})
	}
	if _, ok := parseStatsDAddress(c.Listen); !ok {
		wrong("listen", strconv.Quote(c.Listen), "host:port, unix:///path or unixstream:///path, a path of at most 107 bytes")
	}
	for _, f := range []struct {
		key       string
		got       config.Bytes
		low, high config.Bytes
	}{
		{"receive_buffer", c.ReceiveBuffer, 1 << 10, 1 << 30},
		{"queue", c.Queue, 64 << 10, 1 << 30},
		{"max_packet", c.MaxPacket, 512, 1 << 20},
	} {
		if f.got < f.low || f.got > f.high {
			wrong(f.key, f.got.String(), f.low.String()+" to "+f.high.String())
		}
	}
	for _, f := range []struct {
		key            string
		got, low, high int
	}{
		{"connections", c.Connections, 1, 10_000},
		{"series", c.Series, 10, 1_000_000},
		{"series_per_metric", c.SeriesPerMetric, 10, 1_000_000},
		{"max_tags", c.MaxTags, 1, maxStatsDKeys},
		{"max_tag_length", c.MaxTagLength, 10, 1000},
	} {
		if f.got < f.low || f.got > f.high {
			wrong(f.key, strconv.Itoa(f.got), fmt.Sprintf("%d to %d", f.low, f.high))
		}
	}
	if c.TTL < 10*time.Second {
		wrong("ttl", c.TTL.String(), "at least 10s")
	}
	if c.SetWindow < time.Second || c.SetWindow > c.TTL {
		wrong("set_window", c.SetWindow.String(), "1s to the ttl")
	}
	return errors.Join(errs...)
}

// Build implements [Builder].
func (c *DogStatsDConfig) Build(env Env) (Collector, error) {
	address, ok := parseStatsDAddress(c.Listen)
	if !ok {
		return nil, fmt.Errorf("dogstatsd: listen: got %q, want host:port, unix:///path or unixstream:///path", c.Listen)
	}
	return &dogstatsd{
		config: *c, env: env, address: address,
		table: newStatsDTable(c.limits()), leave: make(chan struct{}), done: make(chan struct{}),
		listening: make(chan struct{}),
	}, nil
}

func (c *DogStatsDConfig) limits() statsdLimits {
	return statsdLimits{
		series: c.Series, perMetric: c.SeriesPerMetric, tags: c.MaxTags, tagLength: c.MaxTagLength,
		ttl: c.TTL, setWindow: c.SetWindow, relativeGauges: c.RelativeGauges,
	}
}

// dogstatsd receives lines and sums them up.
type dogstatsd struct {
	config  DogStatsDConfig
	env     Env
	address statsdAddress
	table   *statsdTable
	intake  intake                      // nil: not open
	before  [2]metrics.PipelineSnapshot // packets and lines, of the one whose place it took

	mu        sync.Mutex
	ran       bool
	adopted   bool          // another takes its place
	handOver  bool          // and its socket
	leave     chan struct{} // closed by Adopt
	listening chan struct{} // closed when the socket is open
	done      chan struct{} // closed when Run has ended

	queue *packetQueue
	lines lineBooks
}

// Collect implements [Collector].
func (d *dogstatsd) Collect(context.Context) ([]metrics.Family, error) {
	return d.table.collect(d.env.Now()), nil
}

// Pipelines are those that lines named pipeline.* tell of.
func (d *dogstatsd) Pipelines() []metrics.PipelineSnapshot {
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	return d.table.heard.snapshots(d.env.Name)
}

// ServiceChecks returns the last of each service check, sorted by name and tags.
func (d *dogstatsd) ServiceChecks() []ServiceCheck {
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	return d.table.news.last()
}

// Touched is when a metric or a service check of a name was heard last; zero: not in
// the time that it is remembered.
func (d *dogstatsd) Touched(name string) time.Time {
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	at := d.table.news.touched(name)
	if f := d.table.families[name]; f != nil {
		for _, s := range f.series {
			if s.last.After(at) {
				at = s.last
			}
		}
	}
	return at
}

// Adopt takes the place of another collector: its series, its figures, and, where
// both listen on the same address, its open socket with all that waits in it. It
// is called before Run, with one that runs; the other's Run then has returned
// nil. What the other registered in Env.Metrics must be given back between Adopt
// and Run, since Run registers the same. It reports whether it took anything.
func (d *dogstatsd) Adopt(other Collector) bool {
	old, ok := other.(*dogstatsd)
	if !ok || old == d {
		return false
	}
	if !old.yield(old.address == d.address) {
		return false
	}
	d.intake, old.intake = old.intake, nil
	if old.queue != nil {
		d.before = [2]metrics.PipelineSnapshot{old.queue.books.Snapshot(), old.lines.books.Snapshot()}
	}
	d.table = old.table
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	d.table.limits = d.config.limits()
	return true
}

// Ready is closed when the socket is open.
func (d *dogstatsd) Ready() <-chan struct{} { return d.listening }

// yield ends Run, and leaves the socket open where the next one wants it.
func (d *dogstatsd) yield(open bool) bool {
	d.mu.Lock()
	ran, again := d.ran, d.adopted
	d.adopted, d.handOver = true, open
	d.mu.Unlock()
	if !ran || again {
		return false
	}
	close(d.leave)
	<-d.done
	return true
}

// Run implements [Runner].
func (d *dogstatsd) Run(ctx context.Context) (err error) {
	d.mu.Lock()
	ended := d.adopted || d.ran
	d.ran = true
	d.mu.Unlock()
	if ended {
		return nil
	}
	defer close(d.done)
	if err := d.begin(); err != nil {
		return fmt.Errorf("dogstatsd %s: %w", d.env.Name, err)
	}
	close(d.listening)

	var counting sync.WaitGroup
	counting.Go(d.count)
	stop := make(chan struct{})
	watch := make(chan struct{})
	go func() {
		defer close(stop)
		select {
		case <-ctx.Done():
		case <-d.leave:
		case <-watch:
		}
	}()
	err = d.intake.receive(stop, d.queue)
	close(watch)
	<-stop

	d.mu.Lock()
	handOver := d.handOver
	d.mu.Unlock()
	if !handOver {
		err = errors.Join(err, d.intake.drain(d.queue))
	}
	d.queue.close()
	counting.Wait()
	d.queue.settle()
	if !handOver {
		d.closeIntake()
	}
	if err != nil {
		return fmt.Errorf("dogstatsd %s: %w", d.env.Name, err)
	}
	return nil
}

// begin opens the socket, or fits one that was taken over to the configuration.
func (d *dogstatsd) begin() (err error) {
	if d.intake == nil {
		d.intake, err = d.address.open(&d.config)
	} else if a, ok := d.intake.(adjuster); ok {
		err = a.adjust(&d.config)
	}
	if err == nil {
		err = d.register()
	}
	if err != nil && d.intake != nil {
		d.closeIntake()
	}
	return err
}

// An adjuster is an intake on which a new configuration has effect.
type adjuster interface {
	adjust(*DogStatsDConfig) error
}

func (d *dogstatsd) closeIntake() {
	if err := d.intake.close(); err != nil {
		d.env.Log.Warn("the socket was not closed cleanly", "error", err)
	}
	d.intake = nil
}

// count sums up what is received, until the queue is closed.
func (d *dogstatsd) count() {
	var l DogStatsDLine
	for {
		records, ok := d.queue.take()
		if !ok {
			return
		}
		now := d.env.Now()
		tally := lineTally{now: now}
		for len(records) > 0 {
			var p packet
			p, records = nextRecord(records)
			d.countPacket(&l, p, &tally)
		}
		d.lines.enter(&tally)
		d.complain(&tally)
	}
}

// countPacket sums up the lines of one packet.
func (d *dogstatsd) countPacket(l *DogStatsDLine, p packet, tally *lineTally) {
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	for data := p.data; len(data) > 0; {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		if len(line) == 0 {
			continue
		}
		fault := l.parse(line)
		drop := dropParse
		if fault == faultNone {
			drop = d.table.add(l, tally.now)
		}
		tally.n[drop]++
		if drop != lineCounted && tally.bad == nil {
			tally.bad, tally.fault, tally.drop, tally.sender = append([]byte(nil), line[:min(len(line), maxQuoted)]...), fault, drop, p.sender
		}
	}
}

const (
	maxQuoted    = 200         // bytes of a line in a message
	complainOnce = time.Minute // is when what is dropped is logged again
)

// complain logs lines that do not count, the first of many and how many others.
func (d *dogstatsd) complain(tally *lineTally) {
	if tally.bad == nil {
		return
	}
	b := &d.lines
	for drop := lineCounted + 1; drop < lineDrops; drop++ {
		b.silent += tally.n[drop]
	}
	if !b.said.IsZero() && tally.now.Sub(b.said) < complainOnce {
		return
	}
	want := lineDropWants[tally.drop]
	if tally.fault != faultNone {
		want = tally.fault.Error()
	}
	sender := d.address.address
	if tally.sender.IsValid() {
		sender = tally.sender.String()
	}
	d.env.Log.Warn("lines are dropped", "sender", sender, "lines", b.silent,
		"reason", lineDropReasons[tally.drop], "line", strconv.Quote(string(tally.bad)), "error", want)
	b.said, b.silent = tally.now, 0
}
