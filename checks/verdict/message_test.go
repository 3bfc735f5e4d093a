package verdict

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"a plain sentence stays", "status 503, want 2xx", "status 503, want 2xx"},
		{"other scripts stay", "größer als 5 µs, 日本", "größer als 5 µs, 日本"},
		{"line breaks and tabs become spaces", "a\nb\r\n\tc", "a b   c"},
		{"escape sequences lose their escape", "\x1b[31mred\x00\x7f", " [31mred  "},
		{"characters that turn the text around become spaces", "a\u202eb\u2028c", "a b c"},
		{"an invalid byte becomes the replacement character", "a\xffb", "a\ufffdb"},
		{"512 bytes are kept", strings.Repeat("x", 512), strings.Repeat("x", 512)},
		{"513 bytes are cut", strings.Repeat("x", 513), strings.Repeat("x", 509) + "..."},
		{"a character is not cut in two", strings.Repeat("ä", 300), strings.Repeat("ä", 254) + "..."},
		{"a huge message is cut", strings.Repeat("日", 1<<20), strings.Repeat("日", 169) + "..."},
		{"a huge message of nothing printable is cut", strings.Repeat("\U000e0001", 1<<20), strings.Repeat(" ", 509) + "..."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Clean(tt.in); got != tt.want {
				t.Errorf("Clean(%.20q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("status 503, want 2xx")
	f.Add(strings.Repeat("ä\x1b", 400))
	f.Add(strings.Repeat("\xf0\x9f", 1500))
	f.Fuzz(func(t *testing.T, in string) {
		got := Clean(in)
		if len(got) > MaxMessage || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid %v: %q", len(got), utf8.ValidString(got), got)
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("not printable at %d: %q", i, got)
		}
		if again := Clean(got); again != got {
			t.Errorf("cleaned again: %q, want %q", again, got)
		}
	})
}
