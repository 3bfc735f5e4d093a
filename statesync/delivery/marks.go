package delivery

import "github.com/outrider-agent/outrider/statesync"

// marks account for the numbers of the log that the sink has gone through.
type marks struct {
	sent    *statesync.Mark
	base    int64          // counted from here on: the number of the last mark that was made
	skipped int64          // numbers above base, up to counted, that were left out
	waiting int64          // that wait aside
	counted int64          // the cursor, as far as it is counted
	above   map[int64]bool // numbers above that were left out (true) or wait (false)
}

func newMarks(c statesync.Cursor) marks {
	return marks{base: c.Marked.Number, skipped: c.Skipped, waiting: c.Waiting, counted: c.Acked, above: map[int64]bool{}}
}

func (m *marks) leftOut(number, acked int64) { m.set(number, acked, true) }
func (m *marks) waits(number, acked int64)   { m.set(number, acked, false) }

func (m *marks) set(number, acked int64, leftOut bool) {
	if number <= m.base {
		return // accounted for
	}
	m.above[number] = leftOut
	m.counted = min(m.counted, number-1)
	m.upTo(acked)
}

// upTo counts what the cursor has passed.
func (m *marks) upTo(acked int64) {
	if acked == m.counted {
		return
	}
	m.counted = acked
	for n, leftOut := range m.above {
		if n > acked {
			continue
		}
		delete(m.above, n)
		if leftOut {
			m.skipped++
		} else {
			m.waiting++
		}
	}
}

// came takes back that a change waits: it was given after all.
func (m *marks) came(number int64) {
	if leftOut, ok := m.above[number]; ok && !leftOut {
		delete(m.above, number)
	} else if number > m.base && number <= m.counted && m.waiting > 0 {
		m.waiting--
	}
}

// make returns the next mark; nil when there is nothing new to account for.
func (m *marks) make(acked int64) *statesync.Mark {
	m.upTo(acked)
	if m.sent != nil || acked <= m.base {
		return nil
	}
	m.sent = &statesync.Mark{
		Previous: m.base, Number: acked, Skipped: m.skipped, Waiting: m.waiting,
		Changes: acked - m.base - m.skipped - m.waiting,
	}
	m.base, m.skipped, m.waiting = acked, 0, 0
	return m.sent
}

func (m *marks) acknowledged() { m.sent = nil }

// leftOutSince is how many numbers up to the cursor were left out since the
// last mark that was acknowledged.
func (m *marks) leftOutSince() int64 {
	if m.sent != nil {
		return m.skipped + m.sent.Skipped
	}
	return m.skipped
}
