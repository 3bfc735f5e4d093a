package scenario

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	beat       = 5 * time.Millisecond
	slack      = 50 * time.Millisecond // of a tick that comes late without anyone having paused
	maxPause   = 30 * time.Second      // what was due in a longer one is not made up for
	day        = 2 * time.Minute
	spikeAfter = 5 * time.Second
)

// A Spike is a time of another rate.
type Spike struct {
	At, For time.Duration // since Run began
	Rate    float64       // changes a second, in place of the base's
}

// ParseSpike reads a spike: 50000/10s is 50,000 changes a second for ten
// seconds, from 5 s on; 50000/10s@1m from a minute on.
func ParseSpike(text string) (Spike, error) {
	s := Spike{At: spikeAfter}
	rate, rest, ok := strings.Cut(text, "/")
	if !ok {
		return Spike{}, fmt.Errorf("spike: got %q, want RATE/DURATION or RATE/DURATION@START, such as 50000/10s@5s", text)
	}
	var err error
	if s.Rate, err = strconv.ParseFloat(rate, 64); err != nil {
		return Spike{}, fmt.Errorf("spike %q: rate: got %q, want changes a second, such as 50000", text, rate)
	}
	lasts, start, later := strings.Cut(rest, "@")
	if s.For, err = time.ParseDuration(lasts); err != nil {
		return Spike{}, fmt.Errorf("spike %q: duration: got %q, want one such as 10s", text, lasts)
	}
	if later {
		if s.At, err = time.ParseDuration(start); err != nil {
			return Spike{}, fmt.Errorf("spike %q: start: got %q, want a duration since the start, such as 5s", text, start)
		}
	}
	return s, s.check()
}

// String is what [ParseSpike] reads.
func (s Spike) String() string {
	return strconv.FormatFloat(s.Rate, 'f', -1, 64) + "/" + s.For.String() + "@" + s.At.String()
}

func (s Spike) check() error {
	switch {
	case !(s.Rate > 0) || math.IsInf(s.Rate, 1):
		return fmt.Errorf("spike: got a rate of %v, want more than 0", s.Rate)
	case s.For <= 0:
		return fmt.Errorf("spike: got a duration of %v, want more than 0", s.For)
	case s.At < 0:
		return fmt.Errorf("spike: got a start of %v, want 0 or later", s.At)
	}
	return nil
}

// rateAt returns the rate asked for at a time since the start.
func (o *Options) rateAt(t time.Duration) float64 {
	rate := o.Rate
	if o.Daily { // it begins at six in the morning, at the mean
		rate *= 1 + 0.8*math.Sin(2*math.Pi*float64(t%day)/float64(day))
	}
	spike := 0.0
	for _, s := range o.Spikes {
		if t >= s.At && t < s.At+s.For {
			spike = max(spike, s.Rate)
		}
	}
	if spike > 0 {
		return spike
	}
	return rate
}

func (o *Options) lastSpike() (end time.Duration) {
	for _, s := range o.Spikes {
		end = max(end, s.At+s.For)
	}
	return end
}

// A pacer says how many changes are due. What was missed in a pause is made up
// for at twice the rate at most.
type pacer struct {
	rate    func(time.Duration) float64
	at      time.Duration
	planned float64
	done    float64
	room    float64 // changes that may be made now
	peak    float64 // the highest rate since nothing was behind
	samples []sample
}

type sample struct {
	at   time.Duration
	done float64
}

func (p *pacer) advance(to time.Duration) {
	passed := to - p.at
	if passed <= 0 {
		return
	}
	if p.behind() < 1 {
		p.peak = 0
	}
	for t := max(p.at, to-maxPause); t < to; t += beat {
		step := min(beat, to-t)
		rate := p.rate(t + step/2)
		p.planned += rate * step.Seconds()
		p.peak = max(p.peak, rate)
	}
	p.at = to
	most := 2 * p.peak * slack.Seconds()
	p.room = min(p.room+2*p.peak*passed.Seconds(), max(most, 1))
}

func (p *pacer) behind() float64 { return max(0, p.planned-p.done) }

func (p *pacer) due() bool { return p.planned-p.done >= 1 && p.room >= 1 }

// made notes that a change was made.
func (p *pacer) made() { p.done, p.room = p.done+1, p.room-1 }

// failed notes that a change could not be made: it is still due, but tried no
// more often than changes are made.
func (p *pacer) failed() { p.room-- }

// sample notes how many changes there are, 20 times a second.
func (p *pacer) sample(now time.Duration) {
	if n := len(p.samples); n > 0 && now-p.samples[n-1].at < time.Second/20 {
		return
	}
	p.samples = append(p.samples, sample{now, p.done})
	for len(p.samples) > 2 && now-p.samples[1].at >= time.Second {
		p.samples = append(p.samples[:0], p.samples[1:]...)
	}
}

// achieved returns the changes a second between the first sample and the last.
func (p *pacer) achieved() float64 {
	if len(p.samples) < 2 {
		return 0
	}
	first, last := p.samples[0], p.samples[len(p.samples)-1]
	return (last.done - first.done) / (last.at - first.at).Seconds()
}
