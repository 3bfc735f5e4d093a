package main

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatOfTheStartIsForgotten(t *testing.T) {
	const smaps = `00400000-01a00000 r-xp 00000000 08:01 131 /bin/outrider
Size:              22528 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
01a00000-03500000 r--p 01600000 08:01 131 /bin/outrider
Anonymous:             0 kB
03500000-03600000 rw-p 03100000 08:01 131 /bin/outrider
Anonymous:             0 kB
03600000-03700000 r-xp 03100000 08:01 131 /bin/outrider
Anonymous:             4 kB
7f0000000000-7f0000021000 r-xp 00000000 08:01 77 /lib/x86_64-linux-gnu/libc.so.6
Anonymous:             0 kB
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
Anonymous:            12 kB
`
	for _, tt := range []struct {
		fixed bool
		want  []span
	}{
		{true, []span{{0x400000, 0x1a00000, true}, {0x1a00000, 0x3500000, false}}},
		{false, []span{{0x400000, 0x1a00000, true}}},
	} {
		got, err := untouched(strings.NewReader(smaps), "/bin/outrider", tt.fixed)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(span{})); diff != "" || err != nil {
			t.Errorf("fixed %t: %v (-want +got):\n%s", tt.fixed, err, diff)
		}
	}
	if _, err := untouched(strings.NewReader("x-y r-xp 0 08:01 1 /bin/outrider\n"), "/bin/outrider", true); err == nil {
		t.Error("a line that is none: no error")
	}
}

func TestAProgramGoesOnWithoutItsStart(t *testing.T) {
	if err := forgetStart(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Repeat("ab", 2); got != "abab" { // code and constants come back
		t.Errorf("got %s", got)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer smaps.Close()
	parts, err := untouched(smaps, path, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		// Elsewhere programs may be built so that they can be anywhere: those keep
		// their constants as they are.
		if size := p.end - p.start; !p.code && size > 2*pieceSize && runtime.GOARCH == "amd64" {
			t.Errorf("%d bytes of constants come back at once, want %d at most", size, 2*pieceSize)
		}
	}
	if err := forgetStart(); err != nil {
		t.Errorf("once more: %v", err)
	}
}
