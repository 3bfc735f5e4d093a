package collectors

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// How names from DogStatsD become those of Prometheus:
//
//   - every character of a name that is not a letter, a digit or _ becomes _, and
//     a name that begins with a digit gets a _ before it: web.hits is web_hits;
//   - counters end in _total; timers, which are sent in milliseconds, in _seconds,
//     for which a _ms or _milliseconds at the end gives way;
//   - names of tags likewise; they do not begin with two _, and le and quantile,
//     which histograms use, become tag_le and tag_quantile;
//   - a tag without a value has the value true; one that is sent with several has
//     them all, sorted, with commas between them.
//
// In Datadog a series has the name with which it was sent.

const (
	maxStatsDName = 200 // bytes: Datadog cuts them there, here they are refused
	maxStatsDKeys = 64  // names of tags that the series of one metric have together
)

// validStatsDName tells the name of a metric from noise.
func validStatsDName(name []byte) bool {
	if len(name) == 0 || len(name) > maxStatsDName {
		return false
	}
	letters := false
	for _, c := range name {
		if c < ' ' || c > '~' {
			return false
		}
		letters = letters || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	return letters
}

// statsdPromName is the name in Prometheus of a metric sent with this name.
func statsdPromName(name string, kind byte) string {
	out := statsdWord(name)
	switch kind {
	case 'c':
		if !strings.HasSuffix(out, "_total") {
			out += "_total"
		}
	case 'm':
		out = strings.TrimSuffix(strings.TrimSuffix(out, "_milliseconds"), "_ms")
		if !strings.HasSuffix(out, "_seconds") {
			out += "_seconds"
		}
	}
	return out
}

func statsdWord(s string) string {
	out := []byte(s)
	for i, c := range out {
		if !(c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9') {
			out[i] = '_'
		}
	}
	if len(out) == 0 || out[0] >= '0' && out[0] <= '9' {
		return "_" + string(out)
	}
	return string(out)
}

func statsdTagName(s string) string {
	out := statsdWord(s)
	for strings.HasPrefix(out, "__") {
		out = out[1:]
	}
	if out == "le" || out == "quantile" {
		return "tag_" + out
	}
	return out
}

// A statsdTag is one tag of a series.
type statsdTag struct{ key, value string }

// statsdTags reads tags, sorted by their names. What is cut off because of the
// limits is counted.
func statsdTags(raw []byte, most, longest int) (tags []statsdTag, cut int64) {
	for key, value := range EachTag(raw) {
		if len(key) == 0 || len(tags) == most {
			cut++
			continue
		}
		if value == nil {
			value = []byte("true")
		}
		if len(value) == 0 {
			continue // as good as no tag
		}
		k, v := key, value
		if len(k) > longest || len(v) > longest {
			k, v = cutText(k, longest), cutText(v, longest)
			cut++
		}
		tags = append(tags, statsdTag{statsdTagName(string(k)), string(bytes.ToValidUTF8(v, []byte("�")))})
	}
	slices.SortFunc(tags, func(a, b statsdTag) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.value, b.value))
	})
	out := tags[:0]
	for _, tag := range slices.Compact(tags) {
		if n := len(out); n == 0 || out[n-1].key != tag.key {
			out = append(out, tag)
		} else if last := &out[n-1]; len(last.value)+1+len(tag.value) <= longest {
			last.value += "," + tag.value
		}
	}
	return out, cut
}

// cutText cuts at most to n bytes, and not through a character.
func cutText(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	for n > 0 && !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n]
}
