package collectors

import (
	"bytes"
	"iter"
	"math"
	"strconv"
)

// The lines of DogStatsD, protocols 1.0 to 1.6, as Datadog documents them
// ("Datagram Format and Shell Usage") and as its agent reads them:
//
//	NAME:VALUE[:VALUE...]|TYPE[|@RATE][|#TAG,TAG][|c:CONTAINER][|e:EXTERNAL][|card:LEVEL][|Tseconds]
//	_e{TITLE BYTES,TEXT BYTES}:TITLE|TEXT[|d:SECONDS][|h:HOST][|k:KEY][|p:PRIORITY][|s:SOURCE][|t:ALERT][|#TAGS]...
//	_sc|NAME|STATUS[|d:SECONDS][|h:HOST][|#TAGS][|m:MESSAGE]...
//
// Plain StatsD is the first of them without tags. Fields that nobody knows are
// skipped: the next protocol will have some.

// DogStatsDKind is what a line tells of.
type DogStatsDKind uint8

// The kinds of line.
const (
	DogStatsDMetric DogStatsDKind = iota
	DogStatsDEvent
	DogStatsDCheck
)

// A DogStatsDLine is what one line says. Its bytes are those of the line.
type DogStatsDLine struct {
	Kind DogStatsDKind
	Type byte   // of a metric: c, g, h, d, s, or m for ms; of a service check: its status, 0 to 3
	Sign byte   // of the first value, where one is written: + or -
	Name []byte // of a metric or a service check; the title of an event

	Values []float64 // one or more of a metric; none of a set
	Text   []byte    // what a set counts; the text of an event; the message of a service check
	Rate   float64   // the share of what happened that was sent: above 0, at most 1
	Tags   []byte    // as written, with commas between them: see EachTag
	Stamp  int64     // seconds since 1970; 0: none

	Container, External, Cardinality []byte // of whoever sent it
	Host, Key, Source                []byte // of events, Host also of service checks
	Priority, Alert                  []byte // of events
}

// lineFault says why a line is not understood. It is an error that needs no
// memory.
type lineFault uint8

const (
	faultNone lineFault = iota
	faultForm
	faultType
	faultValue
	faultRate
	faultStamp
	faultEvent
	faultCheck
	faultStatus
)

// lineFaults are the words of the faults. Read-only.
var lineFaults = [...]string{
	faultNone:   "no fault",
	faultForm:   "want NAME:VALUE|TYPE",
	faultType:   "type: want c, g, h, d, s or ms",
	faultValue:  "value: want a finite decimal number",
	faultRate:   "sample rate: want 0.000001 to 1",
	faultStamp:  "timestamp: want seconds since 1970",
	faultEvent:  "event: want _e{TITLE BYTES,TEXT BYTES}:TITLE|TEXT of these lengths",
	faultCheck:  "service check: want _sc|NAME|STATUS",
	faultStatus: "service check: status: want 0, 1, 2 or 3",
}

func (f lineFault) Error() string { return lineFaults[f] }

// lowestRate is that of the rarest sampling that is believed. One line must not
// count as billions.
const lowestRate = 1e-6

// ParseDogStatsD reads one line, without its newline, into l, of which it keeps
// nothing but the memory of Values. What it returns for a line that cannot be
// understood says what was expected.
func ParseDogStatsD(line []byte, l *DogStatsDLine) error {
	if fault := l.parse(line); fault != faultNone {
		return fault
	}
	return nil
}

// EachTag yields the tags that are written in raw. One without a colon has the
// value nil.
func EachTag(raw []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for len(raw) > 0 {
			tag := raw
			if i := bytes.IndexByte(raw, ','); i >= 0 {
				tag, raw = raw[:i], raw[i+1:]
			} else {
				raw = nil
			}
			if len(tag) == 0 {
				continue
			}
			key, value := tag, []byte(nil)
			if i := bytes.IndexByte(tag, ':'); i >= 0 {
				key, value = tag[:i], tag[i+1:]
			}
			if !yield(key, value) {
				return
			}
		}
	}
}

func (l *DogStatsDLine) parse(line []byte) lineFault {
	*l = DogStatsDLine{Values: l.Values[:0], Rate: 1}
	if n := len(line); n > 0 && line[n-1] == '\r' { // of what was typed into nc
		line = line[:n-1]
	}
	if len(line) > 3 && line[0] == '_' {
		switch {
		case line[1] == 'e' && line[2] == '{':
			return l.parseEvent(line)
		case line[1] == 's' && line[2] == 'c' && line[3] == '|':
			return l.parseCheck(line)
		}
	}
	return l.parseMetric(line)
}

func (l *DogStatsDLine) parseMetric(line []byte) lineFault {
	bar := bytes.IndexByte(line, '|')
	if bar < 0 {
		return faultForm
	}
	colon := bytes.IndexByte(line[:bar], ':')
	if colon <= 0 || colon+1 == bar {
		return faultForm
	}
	l.Name = line[:colon]
	values, rest := line[colon+1:bar], line[bar+1:]

	if len(rest) == 0 {
		return faultType
	}
	width := 1
	switch rest[0] {
	case 'c', 'g', 'h', 'd', 's':
	case 'm':
		if width = 2; len(rest) < 2 || rest[1] != 's' {
			return faultType
		}
	default:
		return faultType
	}
	l.Type, rest = rest[0], rest[width:]
	if len(rest) > 0 && rest[0] != '|' {
		return faultType
	}
	if l.Type == 's' {
		l.Text = values
	} else if fault := l.parseValues(values); fault != faultNone {
		return fault
	}
	return l.parseFields(rest)
}

// parseValues reads values with colons between them. Datadog's agent skips empty
// ones, so they are skipped here.
func (l *DogStatsDLine) parseValues(raw []byte) lineFault {
	if raw[0] == '+' || raw[0] == '-' {
		l.Sign = raw[0]
	}
	for len(raw) > 0 {
		one := raw
		if i := bytes.IndexByte(raw, ':'); i >= 0 {
			one, raw = raw[:i], raw[i+1:]
		} else {
			raw = nil
		}
		if len(one) == 0 {
			continue
		}
		v, ok := parseDecimal(one)
		if !ok {
			return faultValue
		}
		l.Values = append(l.Values, v)
	}
	if len(l.Values) == 0 {
		return faultValue
	}
	return faultNone
}

// parseFields reads the fields behind the type, each of which begins with |.
func (l *DogStatsDLine) parseFields(rest []byte) lineFault {
	for len(rest) > 0 {
		field := rest[1:]
		if i := bytes.IndexByte(field, '|'); i >= 0 {
			field, rest = field[:i], field[i:]
		} else {
			rest = nil
		}
		if len(field) == 0 {
			continue
		}
		switch field[0] {
		case '#':
			l.Tags = field[1:]
		case '@':
			rate, ok := parseDecimal(field[1:])
			if !ok || rate < lowestRate || rate > 1 {
				return faultRate
			}
			l.Rate = rate
		case 'T':
			var ok bool
			if l.Stamp, ok = parseWhole(field[1:]); !ok || l.Stamp < 1 {
				return faultStamp
			}
		default:
			l.parseOrigin(field)
		}
	}
	return faultNone
}

// parseOrigin reads the fields that all kinds of line share.
func (l *DogStatsDLine) parseOrigin(field []byte) {
	switch {
	case len(field) >= 2 && field[0] == 'c' && field[1] == ':':
		l.Container = field[2:]
	case len(field) >= 2 && field[0] == 'e' && field[1] == ':':
		l.External = field[2:]
	case len(field) >= 5 && string(field[:5]) == "card:":
		l.Cardinality = field[5:]
	}
}

// parseEvent reads _e{5,4}:title|text and what follows.
func (l *DogStatsDLine) parseEvent(line []byte) lineFault {
	l.Kind = DogStatsDEvent
	head, rest, found := bytes.Cut(line[3:], []byte("}:"))
	first, second, both := bytes.Cut(head, []byte(","))
	title, ok1 := parseWhole(first)
	text, ok2 := parseWhole(second)
	room := int64(len(rest))
	if !found || !both || !ok1 || !ok2 || title < 1 || title > room || text > room || title+1+text > room || rest[title] != '|' {
		return faultEvent
	}
	l.Name, l.Text = rest[:title], rest[title+1:title+1+text]
	rest = rest[title+1+text:]
	if len(rest) > 0 && rest[0] != '|' {
		return faultEvent
	}
	return l.parseStory(rest)
}

// parseCheck reads _sc|name|status and what follows.
func (l *DogStatsDLine) parseCheck(line []byte) lineFault {
	l.Kind = DogStatsDCheck
	name, rest, found := bytes.Cut(line[4:], []byte("|"))
	if !found || len(name) == 0 {
		return faultCheck
	}
	l.Name = name
	if len(rest) == 0 || rest[0] < '0' || rest[0] > '3' || len(rest) > 1 && rest[1] != '|' {
		return faultStatus
	}
	l.Type = rest[0] - '0'
	return l.parseStory(rest[1:])
}

// parseStory reads the fields of events and service checks.
func (l *DogStatsDLine) parseStory(rest []byte) lineFault {
	for len(rest) > 0 {
		field := rest[1:]
		if i := bytes.IndexByte(field, '|'); i >= 0 {
			field, rest = field[:i], field[i:]
		} else {
			rest = nil
		}
		if len(field) > 0 && field[0] == '#' {
			l.Tags = field[1:]
			continue
		}
		if len(field) < 2 || field[1] != ':' {
			l.parseOrigin(field)
			continue
		}
		value := field[2:]
		switch field[0] {
		case 'd':
			var ok bool
			if l.Stamp, ok = parseWhole(value); !ok {
				return faultStamp
			}
		case 'h':
			l.Host = value
		case 'k':
			l.Key = value
		case 'p':
			l.Priority = value
		case 's':
			l.Source = value
		case 't':
			l.Alert = value
		case 'm':
			if l.Kind == DogStatsDCheck {
				l.Text = value
			}
		default:
			l.parseOrigin(field)
		}
	}
	return faultNone
}

// tens are the powers of ten that a float64 holds exactly. Read-only.
var tens = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// parseDecimal reads a finite decimal number, and rounds as strconv does: a
// mantissa below 2^53 over a power of ten that is exact is rounded once.
func parseDecimal(b []byte) (float64, bool) {
	i, negative := 0, false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		i, negative = 1, b[0] == '-'
	}
	var mantissa uint64
	point, digits := -1, 0
	for ; i < len(b); i++ {
		c := b[i]
		switch {
		case c-'0' <= 9:
			mantissa = mantissa*10 + uint64(c-'0')
			digits++
		case c == '.' && point < 0:
			point = digits
		default:
			return parseLong(b)
		}
	}
	if digits == 0 {
		return 0, false
	}
	if digits > 19 || mantissa >= 1<<53 {
		return parseLong(b)
	}
	v := float64(mantissa)
	if point >= 0 {
		v /= tens[digits-point]
	}
	if negative {
		v = -v
	}
	return v, true
}

// parseLong reads what parseDecimal cannot: exponents, and many digits.
func parseLong(b []byte) (float64, bool) {
	for _, c := range b {
		if c-'0' > 9 && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false // strconv also reads hexadecimal, Inf and NaN
		}
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil && !math.IsInf(v, 0)
}

// parseWhole reads a whole number that is not negative.
func parseWhole(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c-'0' > 9 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
