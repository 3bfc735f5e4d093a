package collectors

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

func TestNumber(t *testing.T) {
	for text, want := range map[string]float64{
		"0": 0, "12": 12, "-1": -1, "18446744073709551615": math.MaxUint64, "007": 7,
	} {
		if got, ok := number([]byte(text)); !ok || got != want {
			t.Errorf("%s is %v, %t", text, got, ok)
		}
	}
	for _, text := range []string{"", "-", "1.5", "0x1", "1_0", "18446744073709551616", "NaN", "1e3", "+1", "--1"} {
		if got, ok := number([]byte(text)); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestParsersSayWhatIsWrong(t *testing.T) {
	ignorePair := func([]byte, float64) {}
	ignoreCell := func(_, _ []byte, _ float64) {}
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"pair without a value", parsePairs([]byte("a 1\nb\n"), ignorePair), `line 2: got "b", want a name and a whole number`},
		{"pair with a word", parsePairs([]byte("a x\n"), ignorePair), `line 1: got "a x", want a name and a whole number`},
		{"table without values", parseTable([]byte("Ip: a b\n"), ignoreCell), `line 2: got the end of the file, want the values of "Ip:"`},
		{"table of another protocol", parseTable([]byte("Ip: a\nTcp: 1\n"), ignoreCell), `line 2: got "Tcp: 1", want the values of "Ip:"`},
		{"table with too few values", parseTable([]byte("Ip: a b\nIp: 1\n"), ignoreCell), `line 2: got "Ip: 1", want one whole number for each name, such as "b"`},
		{"table with too many", parseTable([]byte("Ip: a\nIp: 1 2\n"), ignoreCell), `line 2: got "Ip: 1 2", want one whole number for each name, such as ""`},
		{"pressure without a total", second(parsePressure([]byte("some avg10=1\n"))), `line 1: got "some avg10=1", want some or full, and total= with microseconds`},
		{"a PID that is none", second(parsePIDFile([]byte("abc\n"))), `line 1: got "abc", want a PID`},
		{"a PID that is too large", second(parsePIDFile([]byte("99999999999\n"))), `line 1: got "99999999999", want a PID`},
		{"process without a name", second(parseProcessStat([]byte("1 web S"))), `line 1: got "1 web S", want a PID and a name in brackets`},
		{"process that ends early", second(parseProcessStat([]byte("1 (web)"))), `line 1: got "1 (web)", want a letter for the state behind the name`},
		{"process with few fields", second(parseProcessStat([]byte("1 (web) S 1 2"))), `line 1: got "1 (web) S 1 2", want a whole number as field 3 behind the name`},
		{"a socket without a state", parseTCP(strings.NewReader("names\n 0: a b zz c\n"), make([]byte, 64), &tcpStates{}), `line 2: got " 0: a b zz c", want a socket, with its state as the fourth field`},
		{"a line that does not fit", parseTCP(strings.NewReader(strings.Repeat("x", 100)), make([]byte, 64), &tcpStates{}), "line 1: got more than 64 bytes, want a socket"},
		{"sockets that end early", parseTCP(strings.NewReader("names\n 0: a b 0A"), make([]byte, 64), &tcpStates{}), `line 2: got " 0: a b 0A", want a whole line`},
		{"a limit that is a word", third(parseLimit([]byte("maximum\n"))), `line 1: got "maximum", want a whole number or max`},
		{"CPUs without a period", third(parseCPUMax([]byte("100\n"))), `line 1: got "100", want a quota or max, and a period`},
		{"a period of nothing", third(parseCPUMax([]byte("100 0\n"))), `line 1: got "100 0", want a quota or max, and a period`},
		{"no device", parseIOStat([]byte("vda rbytes=1\n"), nil), `line 1: got "vda rbytes=1", want a device such as 254:0`},
		{"a device with a word", parseIOStat([]byte("8:0 rbytes=x\n"), nil), `line 1: got "8:0 rbytes=x", want a whole number after rbytes=`},
		{"no control group", second(parseCgroups([]byte("0::\n"))), `line 1: got "0::", want a number, controllers and a path`},
		{"uptime that is none", second(parseUptime([]byte("NaN 1\n"))), `line 1: got "NaN 1", want the seconds since the start`},
	} {
		if got := fmt.Sprint(tt.err); got != tt.want {
			t.Errorf("%s: got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	long := fmt.Sprint(parsePairs([]byte(strings.Repeat("x", 10_000)), ignorePair))
	if len(long) > 200 {
		t.Errorf("an error of %d bytes: %.100s", len(long), long)
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }
func statesOf(s tcpStates) (text string, sum int) {
	for i, n := range s {
		if n > 0 {
			text += fmt.Sprintf(" %s=%d", tcpStateNames[i], n)
		}
		sum += n
	}
	return text, sum
}

// TestTCPInPieces reads a list a byte at a time, with a buffer of a line.
func TestTCPInPieces(t *testing.T) {
	const list = "  sl  local rem   st\n 0: a b 0A c\n 1: a b 01 c\n 2: a b 0C c\n 3: a b 01 c\n"
	var s tcpStates
	if err := parseTCP(iotest.OneByteReader(strings.NewReader(list)), make([]byte, 24), &s); err != nil {
		t.Fatal(err)
	}
	if got, _ := statesOf(s); got != " established=2 listen=1 new_syn_recv=1" {
		t.Errorf("got%s", got)
	}
}

// FuzzKernelFiles gives every parser anything: none may panic, and what it takes
// must be in what it read.
func FuzzKernelFiles(f *testing.F) {
	for _, text := range []string{
		"", "a 1\n", "MemTotal: 12 kB\n", "Ip: a b\nIp: 1 -2\n", "some avg10=0.00 total=12\nfull total=1\n", "123\n", "max\n",
		"100 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22\n", "max 100000\n", "50000 100000",
		"254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n", "4:cpu,cpuacct:/a\n0::/b\n", "names\n 0: a b 0A c\n",
		"VmSwap:\t 1 kB\nvoluntary_ctxt_switches:\t3\n", "12.5 3\n", `/mnt/a\040b\\134`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			t.Skip("what a byte at a time takes grows with the square")
		}
		text := string(data)
		count := 0
		if err := parsePairs(data, func(name []byte, _ float64) { count++ }); err == nil && count != bytes.Count(data, []byte("\n"))+tail(data) {
			t.Errorf("%d pairs of %q", count, data)
		}
		_ = parseTable(data, func(_, name []byte, _ float64) {
			if !bytes.Contains(data, name) {
				t.Errorf("%q is not in %q", name, data)
			}
		})
		if p, err := parsePressure(data); err == nil && (p.some < -1 || p.full < -1) {
			t.Errorf("pressure %v", p)
		}
		if pid, err := parsePIDFile(data); err == nil && (pid < 0 || pid > math.MaxInt32) {
			t.Errorf("PID %d", pid)
		}
		if one, err := parseProcessStat(data); err == nil && (!strings.Contains(text, one.name) || one.threads < 0 || one.state >= len(processStateNames)) {
			t.Errorf("process %+v", one)
		}
		_ = new(oneProcess).addStatus(data)
		if cpus, limited, err := parseCPUMax(data); err == nil && limited && !(cpus >= 0) {
			t.Errorf("%v CPUs", cpus)
		}
		_, _, _ = parseLimit(data)
		_ = parseIOStat(data, func(device []byte, _ ioStat) {
			if !bytes.Contains(data, device) {
				t.Errorf("%q is not in %q", device, data)
			}
		})
		_, _ = parseCgroups(data)
		_ = inUnit(data, "web.service")
		if up, err := parseUptime(data); err == nil && !(up >= 0) {
			t.Errorf("up for %v", up)
		}
		if got := unescape(text); len(got) > len(text) {
			t.Errorf("%q became %q", text, got)
		}
		var whole, pieces tcpStates
		errWhole := parseTCP(bytes.NewReader(data), make([]byte, len(data)+1), &whole)
		errPieces := parseTCP(iotest.OneByteReader(bytes.NewReader(data)), make([]byte, len(data)+1), &pieces)
		if whole != pieces || fmt.Sprint(errWhole) != fmt.Sprint(errPieces) {
			t.Errorf("whole: %v %v, in pieces: %v %v", whole, errWhole, pieces, errPieces)
		}
		if _, sum := statesOf(whole); sum > bytes.Count(data, []byte("\n")) {
			t.Errorf("%d sockets in %q", sum, data)
		}
	})
}

// tail is 1 where the last line has no end.
func tail(data []byte) int {
	if len(data) == 0 || data[len(data)-1] == '\n' {
		return 0
	}
	return 1
}
