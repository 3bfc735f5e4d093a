package checks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/checks/nagios"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// Limits are the ranges, as Nagios writes them, within which a figure is fine.
type Limits struct {
	Warn *nagios.Range `yaml:"warn"`
	Crit *nagios.Range `yaml:"crit"`
}

// parseLimits reads two ranges; "" is none.
func parseLimits(warn, crit string) (Limits, error) {
	var l Limits
	for _, one := range []struct {
		text string
		to   **nagios.Range
	}{{warn, &l.Warn}, {crit, &l.Crit}} {
		if one.text == "" {
			continue
		}
		r := new(nagios.Range)
		if err := r.UnmarshalText([]byte(one.text)); err != nil {
			return Limits{}, err
		}
		*one.to = r
	}
	return l, nil
}

// judge says how bad a figure is, and what it should be; "" where it is fine.
func (l Limits) judge(v float64) (status verdict.Status, want string) {
	switch {
	case l.Crit != nil && l.Crit.Alerts(v):
		return verdict.Fail, l.Crit.String()
	case l.Warn != nil && l.Warn.Alerts(v):
		return verdict.Warn, l.Warn.String()
	}
	return verdict.Pass, ""
}

// measure is the figure with its limits, as performance data.
func (l Limits) measure(label string, v float64, unit string) verdict.Measure {
	m := verdict.Measure{Label: label, Value: v, Unit: unit}
	if l.Warn != nil {
		m.Warn = l.Warn.String()
	}
	if l.Crit != nil {
		m.Crit = l.Crit.String()
	}
	return m
}

// given reports whether there is any limit.
func (l Limits) given() bool { return l.Warn != nil || l.Crit != nil }

// TimeLeft says how much time must be left before something ends.
type TimeLeft struct {
	Warn time.Duration `yaml:"warn"`
	Crit time.Duration `yaml:"crit"`
}

func (t TimeLeft) validate(key string) error {
	switch {
	case t.Warn < 0 || t.Crit < 0:
		return &config.FieldError{Key: key, Got: "a time that is less than 0s", Want: "times such as 72h"}
	case t.Warn != 0 && t.Warn < t.Crit:
		return &config.FieldError{Key: key, Got: fmt.Sprintf("warn %v, which is less than crit %v", t.Warn, t.Crit), Want: "at least as much time for warn as for crit"}
	}
	return nil
}

func (t TimeLeft) judge(left time.Duration) (status verdict.Status, want string) {
	switch {
	case left < t.Crit:
		return verdict.Fail, showTime(t.Crit)
	case left < t.Warn:
		return verdict.Warn, showTime(t.Warn)
	}
	return verdict.Pass, ""
}

func (t TimeLeft) measure(label string, left time.Duration) verdict.Measure {
	m := verdict.Measure{Label: label, Value: math.Floor(left.Seconds()), Unit: "s"}
	if t.Warn > 0 {
		m.Warn = strconv.FormatFloat(t.Warn.Seconds(), 'f', -1, 64) + ":"
	}
	if t.Crit > 0 {
		m.Crit = strconv.FormatFloat(t.Crit.Seconds(), 'f', -1, 64) + ":"
	}
	return m
}

// showTime shows a time as people say it: the two largest units.
func showTime(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "-" + showTime(-d)
	case d >= 100*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.String()
}

// figure shows a number shortly.
func figure(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// answered is the result of what answered in time, judged by how long it took.
func answered(message string, took time.Duration, l Limits) verdict.Result {
	seconds := took.Seconds()
	r := verdict.Result{Message: message + " in " + showTime(took), Value: &seconds, Unit: "seconds"}
	var want string
	if r.Status, want = l.judge(seconds); want != "" {
		r.Message += ", want " + want + " s"
	}
	r.Measures = []verdict.Measure{l.measure("time", seconds, "s")}
	return r
}

// refused is the result of what did not answer as it should.
func refused(ctx context.Context, what string, err error) verdict.Result {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// The agent stops: that says nothing about who was asked.
		return verdict.Result{Status: verdict.Unknown, Message: what + ": stopped"}
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		return verdict.Result{Status: verdict.Fail, Message: what + ": no whole answer by the deadline"}
	}
	return verdict.Result{Status: verdict.Fail, Message: what + ": " + err.Error()}
}

// withDeadline gives a context without a deadline one.
func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, 10*time.Second)
}

// snippet shows how a foreign text begins: cleaned, without passwords, at most
// that many bytes.
func snippet(text string, most int) string {
	if enough := 4 * (most + 1); len(text) > enough {
		text = text[:enough]
	}
	text = strings.Join(strings.Fields(hidePasswords(verdict.Clean(text))), " ")
	if len(text) <= most {
		return text
	}
	cut := most - len("...")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "..."
}

// hidePasswords replaces the user in each address of a text: user and password
// of jdbc and redis addresses turn up in what exceptions say.
func hidePasswords(text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "://")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("://")
		end := strings.IndexAny(after, " \t\r\n\"'<>")
		if end < 0 {
			end = len(after)
		}
		host := after[:end]
		if i := strings.IndexAny(host, "/?#"); i >= 0 && strings.LastIndexByte(host[:i], '@') >= 0 {
			host = host[:i] // an @ further on is part of a path
		}
		if i := strings.LastIndexByte(host, '@'); i >= 0 {
			b.WriteString(config.Redacted)
			after = after[i:]
		}
		text = after
	}
}
