package nagios

import (
	"math"
	"strconv"
)

// Figure writes a figure with four digits, or with as many as it takes to show on which
// side of a limit it is. A nil limit is none.
func Figure(v float64, limits ...*Range) string {
	s := strconv.FormatFloat(v, 'g', 4, 64)
	if a := math.Abs(v); a >= 1e4 && a < 1e15 {
		s = strconv.FormatFloat(v, 'f', 0, 64)
	}
	shown, err := strconv.ParseFloat(s, 64)
	for _, r := range limits {
		if r != nil && (err != nil || r.Alerts(shown) != r.Alerts(v)) {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
	}
	return s
}
