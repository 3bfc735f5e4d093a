package verdict

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxMessage is the length of a message, in bytes: what a digest shows of a
// check has to fit a Nagios status line and a Datadog service check.
const MaxMessage = 512

const cutMark = "..."

// Clean makes a message fit to be shown anywhere: one line of valid UTF-8, at
// most [MaxMessage] bytes, without characters that move a terminal's cursor or
// turn its text around. A longer message is cut and ends in "...".
func Clean(message string) string {
	if enough := utf8.UTFMax * (MaxMessage + 1); len(message) > enough {
		// A check may hand over a whole response body. What is left has more
		// than MaxMessage characters, so a split one at its end is cut below.
		message = message[:enough]
	}
	message = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r // an invalid byte comes as U+FFFD, which is printable
		}
		return ' '
	}, message)
	if len(message) <= MaxMessage {
		return message
	}
	cut := MaxMessage - len(cutMark)
	for !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut] + cutMark
}
