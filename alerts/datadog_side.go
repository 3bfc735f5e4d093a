package alerts

import (
	"cmp"
	"fmt"

	"github.com/outrider-agent/outrider/alerts/rule"
	"github.com/outrider-agent/outrider/checks/nagios"
)

// A datadogSide is what a monitor compares with: all of it on one side.
type datadogSide struct {
	suffix          string // of the monitor's name
	op              string
	crit, critClear *float64
	warn, warnClear *float64
	warnOnly        bool // crit is the rule's warn
}

// datadogSides are the sides of a rule, the low one first.
func datadogSides(r rule.Rule, d domain) ([]datadogSide, error) {
	var sides []datadogSide
	for _, up := range []bool{false, true} {
		side := datadogSide{}
		var err error
		if side.crit, side.critClear, err = side.level("crit", r.Crit, r.CritClear, d, up); err != nil {
			return nil, err
		}
		if side.warn, side.warnClear, err = side.level("warn", r.Warn, r.WarnClear, d, up); err != nil {
			return nil, err
		}
		switch {
		case side.crit == nil && side.warn == nil:
			continue
		case side.crit == nil:
			side.crit, side.critClear, side.warn, side.warnClear, side.warnOnly = side.warn, side.warnClear, nil, nil, true
		case side.warn != nil && *side.warn == *side.crit:
			side.warn, side.warnClear = nil, nil // there it never only warns
		}
		side.suffix = "-low"
		if up {
			side.suffix = "-high"
		}
		sides = append(sides, side)
	}
	switch len(sides) {
	case 0:
		given := cmp.Or(r.Crit, r.Warn)
		return nil, fmt.Errorf("warn and crit: got %s, which no figure can cross, want a number to compare with", given)
	case 1:
		sides[0].suffix = ""
	}
	return sides, nil
}

// level finds the number of one level, and the one at which it is over.
func (s *datadogSide) level(key string, alert, clear *nagios.Range, d domain, up bool) (value, over *float64, err error) {
	if alert == nil {
		return nil, nil, nil
	}
	all := bounds(*alert, d)
	if alert.Inside && len(all) != 1 {
		return nil, nil, fmt.Errorf("%s: got %s, want a range with one end: a monitor compares with one number", key, alert)
	}
	for _, b := range all {
		if (b.op[0] == '>') == up {
			if s.op != "" && s.op != b.op {
				return nil, nil, fmt.Errorf("%s: got %s, want one that alerts by %s as crit does: a monitor has one comparator", key, alert, s.op)
			}
			s.op, value = b.op, &b.value
		}
	}
	if clear == nil {
		return value, nil, nil
	}
	recovered := bounds(*clear, d)
	if len(recovered) > len(all) {
		return nil, nil, fmt.Errorf("%s_clear: got %s, want no more ends than %s has, which is %s: a monitor recovers on the side on which it alerts", key, clear, key, alert)
	}
	for _, b := range recovered {
		switch {
		case (b.op[0] == '>') != up:
		case b.op != s.op:
			return nil, nil, fmt.Errorf("%s_clear: got %s, want one of the kind of %s, which is %s", key, clear, key, alert)
		default:
			over = &b.value
		}
	}
	return value, over, nil
}
