package collectors

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"unicode"
)

const (
	promMaxLine = 64 << 10 // bytes; a longer line is left out, so what stands before a value fits into 16 bits
	promMaxBad  = 1000     // bad lines before the first good one: then it is no text of metrics
)

// A promTable turns the text that a neighbour answers into families, and
// remembers from read to read what each series was found to be. A line's series
// is compared with the one that followed the line before last time, then looked
// up; only one that is new is parsed. Nothing is remembered that the last text
// did not have.
//
// What is remembered is small, as there is much of it: of the bytes of a series a
// hash, and of its labels the values alone, which series share where they are the
// same.
//
// Lines belong to metrics by the rule of the reference parser: to the metric of
// their own name, or else to a histogram or summary declared before, whose
// name they have with a suffix.
type promTable struct {
	limit   int // samples that are kept
	relabel promRelabeler
	buf     *bufio.Reader
	lines   promLineReader

	gen      uint32 // of this read; what has another one was not seen in it
	open     bool   // OpenMetrics
	seed     maphash.Seed
	entries  map[uint64]*promEntry // by hash
	shared   promShared
	seen     int // entries that this text has
	skipped  int // entries that stand for nothing
	names    map[string]*promName
	groups   map[string]*promGroup
	families map[string]*promFamily
	sorted   []*promFamily // nil: to be made
	previous *promEntry    // of the line before
	current  *promGroup    // of the line before
	named    int           // groups seen in this read
	admitted int           // samples kept in this read
	big      []*promGroup  // those with a hundredth of the limit or more
	read     promRead
}

// A promRead is what one read found.
type promRead struct {
	lines, samples int              // samples: lines with a value, good ones
	bad            int              // lines that could not be read
	first          error            // why the first of them could not
	dropped        map[string]int64 // samples, by reason
	cut            map[string]int64 // samples left out for the limit, by metric
	ended          bool             // # EOF was there
}

// The reasons for which a sample is dropped.
const (
	promDropParse     = "parse"
	promDropLong      = "line_too_long"
	promDropRelabel   = "relabel"
	promDropDuplicate = "duplicate"
	promDropConflict  = "type_conflict"
	promDropLimit     = "sample_limit"
	promDropTruncated = "truncated"
	promDropCreated   = "created" // when a series began, which OpenMetrics tells as one more series
	promDropLabels    = "too_many_labels"
)

// promSkips are the reasons for which a line stands for nothing. Read-only.
var promSkips = [...]string{promDropCreated, promDropRelabel, promDropConflict, promDropLabels}

// A promGroup is one metric as the text declares it.
type promGroup struct {
	name, help, unit string
	helpLine         string // of the last HELP line, and what it says
	helpText         string
	typ              promType
	settled          bool // the type: it was declared, or there were samples
	gen              uint32
	entries          *promEntry // all of it, linked
	samples          int        // in this read
	cut              bool       // left out of this read
	keepCut          bool       // and of the next
}

// A promName is one name that lines begin with, and what it means.
type promName struct {
	text    string
	group   *promGroup
	typ     promType // of the group when this was found out
	open    bool
	suffix  string // of the group's name
	gen     uint32 // when it was found out last
	version uint16 // grows when it means something else
}

// A promEntry is one line without its value. Of its text there is a hash, whose
// seed nobody else knows: that another text of 64 bits has the same does not
// happen. There are as many as lines, of 64 bytes.
type promEntry struct {
	hash       uint64
	name       *promName
	series     *promSeries // nil: the line stands for nothing
	next       *promEntry  // the line that followed last time
	same       *promEntry  // the next one of its metric
	link       **promEntry // what points to this one as to one of its metric; nil: the table does not have it
	gen        uint32
	bucket     uint32
	size       uint16 // bytes of the text
	version    uint16 // of the name
	part       promPart
	why        uint8 // of promSkips: it stands for nothing
	kept, gone bool  // it is in the table; it was
}

func newPromTable(limit int, relabel promRelabeler) *promTable {
	return &promTable{
		limit: limit, relabel: relabel, buf: bufio.NewReaderSize(nil, promMaxLine), seed: maphash.MakeSeed(),
		entries: map[uint64]*promEntry{}, names: map[string]*promName{},
		groups: map[string]*promGroup{}, families: map[string]*promFamily{},
	}
}

// scan reads one text to its end. An error is one of reading: what came before
// it was taken in, except for the metric in the middle of which it came.
func (t *promTable) scan(r io.Reader, openMetrics bool) error {
	t.gen++
	t.open, t.read = openMetrics, promRead{dropped: map[string]int64{}, cut: map[string]int64{}}
	t.previous, t.current, t.seen, t.named, t.admitted, t.big = nil, nil, 0, 0, 0, t.big[:0]
	t.buf.Reset(r)
	t.lines = promLineReader{r: t.buf}
	defer t.buf.Reset(nil)
	for {
		line, err := t.lines.next()
		switch {
		case errors.Is(err, errPromLine):
			t.read.lines++
			t.bad(promDropLong, err)
		case err != nil && !errors.Is(err, io.EOF):
			t.truncate()
			return err
		case len(line) > 0:
			t.read.lines++
			t.line(line)
		}
		switch {
		case openMetrics && t.read.ended:
			return nil
		case openMetrics && err != nil && !errors.Is(err, errPromLine):
			t.truncate()
			return errPromEOF
		case err != nil && !errors.Is(err, errPromLine):
			return nil
		}
		if t.read.samples == 0 && t.read.bad > promMaxBad {
			return errPromText
		}
	}
}

// errPromEOF is what a text of OpenMetrics has that was not sent whole.
var errPromEOF = &scrapeError{"truncated", errors.New("got the end of the text without # EOF, want it as the last line")} // Read-only.

// errPromText is what a text is that has many lines, and no metric.
var errPromText = errors.New("got no line with a metric, want Prometheus text")

// truncate takes out the metric that the text broke off in: a histogram with
// some of its buckets would count backwards.
func (t *promTable) truncate() {
	if g := t.current; g != nil && !g.cut {
		t.read.dropped[promDropTruncated] += int64(g.samples)
		t.forget(g)
	}
}

func (t *promTable) line(line []byte) {
	line = bytes.TrimRight(line, "\r\n")
	line = bytes.TrimLeft(line, " \t")
	switch {
	case len(line) == 0:
	case line[0] == '#':
		if err := t.comment(line[1:]); err != nil {
			t.bad("", err)
		}
	default:
		t.sample(line)
	}
}

func (t *promTable) bad(reason string, err error) {
	t.read.bad++
	if reason != "" {
		t.read.dropped[reason]++
	}
	if t.read.first == nil {
		t.read.first = fmt.Errorf("line %d: %w", t.read.lines, err)
	}
}

func (t *promTable) comment(line []byte) error {
	c, err := parsePromComment(line)
	if err != nil || c.word == "" {
		return err
	}
	if c.word == "EOF" {
		t.read.ended = true
		return nil
	}
	if len(c.text) == 0 || c.word == "UNIT" && !t.open {
		return nil
	}
	g, suffix := t.groupFor(c.name)
	if g == nil {
		return nil
	}
	switch c.word {
	case "HELP":
		if g.help == "" {
			if string(c.text) != g.helpLine {
				g.helpLine, g.helpText = string(c.text), promHelp(c.text)
				if g.helpText == g.helpLine {
					g.helpText = g.helpLine // once
				}
			}
			g.help = g.helpText
		}
	case "UNIT":
		if g.unit == "" && len(c.text) < 64 {
			g.unit = promSanitize(string(c.text), false)
		}
	case "TYPE":
		// A second one, and one for the parts of another metric, means nothing.
		if g.settled || suffix != "" {
			return nil
		}
		typ, ok := promTypeOf(c.text)
		if !ok {
			return fmt.Errorf("got the type %s of %s, want counter, gauge, histogram, summary or untyped", promShow(string(c.text)), promShow(g.name))
		}
		g.typ, g.settled = typ, true
	}
	return nil
}

func (t *promTable) sample(line []byte) {
	e := t.find(line)
	if e == nil {
		if e = t.enter(line); e == nil {
			return
		}
	}
	if e.kept {
		if t.previous != nil {
			t.previous.next = e
		}
		t.previous = e
	}
	t.current = e.name.group
	if e.series != nil {
		t.touch(e.series.family, e.name.group)
	}
	text, rest := line[:e.size], line[e.size:]
	v, err := parsePromValue(rest)
	if err == nil {
		err = e.takes(text, v)
	}
	if err != nil {
		t.bad(promDropParse, err)
		return
	}
	t.take(e, v)
}

// enter makes the entry of a line's series; nil: the sample is left out.
func (t *promTable) enter(line []byte) *promEntry {
	if t.leaveOut(line) {
		return nil
	}
	raw := string(line[:promSeriesEnd(line)])
	name, labels, end, err := parsePromSeries(raw)
	if err != nil {
		t.bad(promDropParse, err)
		return nil
	}
	hash := maphash.String(t.seed, raw[:end])
	if end < len(raw) { // no blank follows, and it was not looked for so
		if e := t.known(hash); e != nil {
			return e
		}
	}
	n := t.nameOf(name)
	if n == nil { // more names than samples may be kept
		t.read.samples++
		t.read.cut[promOthers]++
		return nil
	}
	if n.group.cut {
		t.read.samples++
		n.group.samples++
		return nil
	}
	e := &promEntry{hash: hash, size: uint16(end), name: n, version: n.version}
	if err := t.build(e, labels); err != nil {
		t.bad(promDropParse, err)
		return nil
	}
	return e
}

// find returns the entry of a line's series; nil: there is none that still
// means the same.
func (t *promTable) find(line []byte) *promEntry {
	if t.previous != nil {
		if e := t.previous.next; e != nil && !e.gone && t.begins(line, e) {
			return t.valid(e)
		}
	}
	return t.known(maphash.Bytes(t.seed, line[:promSeriesEnd(line)]))
}

// known returns the entry of a text that has this hash.
func (t *promTable) known(hash uint64) *promEntry {
	e := t.entries[hash]
	if e == nil {
		return nil
	}
	return t.valid(e)
}

// valid returns an entry, or nil if it does not mean the same any more.
func (t *promTable) valid(e *promEntry) *promEntry {
	n := e.name
	if n.gen != t.gen && !t.resolve(n) || e.version != n.version || e.series != nil && e.series.gone || n.group.cut {
		t.remove(e)
		return nil
	}
	return e
}

// begins reports whether a line is one of a series that was parsed.
func (t *promTable) begins(line []byte, e *promEntry) bool {
	size := int(e.size)
	if len(line) <= size {
		return false
	}
	if line[size-1] != '}' {
		if !promBlank(line[size]) {
			return false
		}
		if rest := bytes.TrimLeft(line[size:], " \t"); len(rest) == 0 || rest[0] == '{' {
			return false
		}
	}
	return maphash.Bytes(t.seed, line[:size]) == e.hash
}

// nameOf returns what a name means; nil: there are too many.
func (t *promTable) nameOf(name string) *promName {
	n := t.names[name]
	if n == nil {
		n = &promName{text: strings.Clone(name)}
		if !t.resolve(n) {
			return nil
		}
		t.names[n.text] = n
	} else if n.gen != t.gen && !t.resolve(n) {
		return nil
	}
	return n
}

// resolve finds out what a name means in this text so far. It stays so to the
// end: nothing is declared under a name that means something already.
func (t *promTable) resolve(n *promName) bool {
	g, suffix := t.groupFor([]byte(n.text))
	if g == nil {
		return false
	}
	g.settled = true
	if g != n.group || g.typ != n.typ || suffix != n.suffix || t.open != n.open {
		n.group, n.typ, n.suffix, n.open = g, g.typ, suffix, t.open
		n.version++
	}
	n.gen = t.gen
	return true
}

// groupFor returns the metric to which a name belongs, with the suffix that the
// name has beyond that of the metric; nil: there are too many.
func (t *promTable) groupFor(name []byte) (*promGroup, string) {
	own := t.groups[string(name)]
	if own != nil && own.gen == t.gen {
		return own, ""
	}
	if i := bytes.LastIndexByte(name, '_'); i > 0 {
		if g := t.groups[string(name[:i])]; g != nil && g.gen == t.gen {
			if suffix := g.typ.suffix(name[i:], t.open); suffix != "" {
				return g, suffix
			}
		}
	}
	if t.named >= t.limit {
		return nil, ""
	}
	t.named++
	if own == nil {
		own = &promGroup{name: string(name)}
		t.groups[own.name] = own
	}
	own.gen, own.typ, own.settled, own.help, own.unit = t.gen, promUntyped, false, "", ""
	own.samples, own.cut, own.keepCut = 0, own.keepCut, false
	return own, ""
}

// remove forgets an entry.
func (t *promTable) remove(e *promEntry) {
	if e.gone {
		return
	}
	e.gone, e.next = true, nil
	delete(t.entries, e.hash)
	if e.gen == t.gen {
		t.seen--
	}
	if e.series == nil {
		t.skipped--
	}
	*e.link = e.same
	if e.same != nil {
		e.same.link = e.link
	}
	e.link, e.same = nil, nil
}

// promHelp is a metric's description, cut where it is long.
func promHelp(text []byte) string {
	const limit = 512
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, promUnescape(text)))
}

// A promLineReader cuts a text into lines of at most [promMaxLine] bytes.
type promLineReader struct{ r *bufio.Reader }

// errPromLine stands for one line, the whole of which was read.
var errPromLine = errors.New("got a line of more than 64 KiB, want a shorter one")

// next returns a line, which is valid until the next call. At the end it is
// io.EOF, with the last line if that has no end; another error is without one.
func (l *promLineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if err == nil || errors.Is(err, io.EOF) {
		return line, err
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = l.r.ReadSlice('\n')
	}
	if err == nil || errors.Is(err, io.EOF) {
		return nil, errPromLine
	}
	return nil, err
}
