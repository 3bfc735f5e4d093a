package verdicts

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/checks/verdict"
)

// anyStatus is where the verdict depends on the machine.
const anyStatus = verdict.Status(-1)

// A pluginRun is one call of a plugin, and what must come of it.
type pluginRun struct {
	plugin, args string
	want         verdict.Status
	figures      int // at least, in its performance data
}

// record runs a plugin once, and notes what it printed and its exit code: a second
// run would print other figures.
const record = `to=$1; shift; "$@" >"$to"; code=$?; cat "$to"; echo $code >"$to.code"; exit $code`

// TestPlugins has kind exec run Debian's plugins, and holds its verdict against the
// exit code, and its measures against what was printed, read in another way.
func TestPlugins(t *testing.T) {
	t.Parallel()
	need(t, installed)
	runs := append(localRuns(t), serverRuns(t)...)
	different := map[string]bool{}
	for n, run := range runs {
		different[run.plugin] = true
		t.Run(fmt.Sprintf("%d %s", n, run.plugin), func(t *testing.T) {
			t.Parallel()
			run.test(t)
		})
	}
	if len(different) < 20 {
		t.Errorf("%d different plugins, want 20", len(different))
	}
}

func (r pluginRun) test(t *testing.T) {
	to := filepath.Join(t.TempDir(), "printed")
	c := &checks.ExecConfig{Command: append([]string{"/bin/sh", "-c", record, "sh", to, need(t, plugins+r.plugin)}, strings.Fields(r.args)...)}
	check, err := c.Build(checks.Env{Name: r.plugin})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := check.Check(ctx)
	printed, err := os.ReadFile(to)
	if err != nil {
		t.Fatalf("%v: %v %q", err, got.Status, got.Message)
	}
	exit, err := os.ReadFile(to + ".code")
	if err != nil {
		t.Fatalf("%v: %v %q", err, got.Status, got.Message)
	}
	t.Logf("%s: exit code %s%s", r.args, exit, printed)
	code, err := strconv.Atoi(strings.TrimSpace(string(exit)))
	if err != nil {
		t.Fatal(err)
	}
	if int(got.Status) != code {
		t.Errorf("verdict %v, exit code %d", got.Status, code)
	}
	if r.want != anyStatus && got.Status != r.want {
		t.Errorf("verdict %v, want %v", got.Status, r.want)
	}
	text, _, _ := strings.Cut(string(printed), "\n")
	text, _, _ = strings.Cut(text, "|")
	if want := strings.Join(strings.Fields(text), " "); got.Message != want {
		t.Errorf("message %q, want %q", got.Message, want)
	}
	want := figures(t, string(printed))
	if len(want) < r.figures {
		t.Errorf("printed %d figures, want %d", len(want), r.figures)
	}
	if diff := cmp.Diff(want, got.Measures, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("measures (-printed +got):\n%s", diff)
	}
}

var figure = regexp.MustCompile(`('(?:[^']|'')+'|[^\s'=]+)=(U|[-0-9.]+)([^\s;]*)(?:;([^\s;]*))?(?:;([^\s;]*))?(?:;([^\s;]*))?(?:;([^\s;]*))?`)

// figures reads all that is behind the first bar.
func figures(t *testing.T, printed string) (out []verdict.Measure) {
	t.Helper()
	_, perf, _ := strings.Cut(printed, "|")
	if rest := figure.ReplaceAllString(perf, ""); strings.TrimSpace(rest) != "" {
		t.Errorf("the test does not understand %q", rest)
	}
	number := func(text string) *float64 {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Errorf("the test does not understand %q", text)
		}
		return &v
	}
	for _, m := range figure.FindAllStringSubmatch(perf, -1) {
		label := m[1]
		if label[0] == '\'' {
			label = strings.ReplaceAll(label[1:len(label)-1], "''", "'")
		}
		one := verdict.Measure{Label: label, Value: math.NaN(), Unit: m[3], Warn: m[4], Crit: m[5]}
		if m[2] != "U" {
			one.Value = *number(m[2])
		}
		if m[6] != "" {
			one.Min = number(m[6])
		}
		if m[7] != "" {
			one.Max = number(m[7])
		}
		out = append(out, one)
	}
	return out
}

// localRuns ask the machine, and files.
func localRuns(t *testing.T) []pluginRun {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	now := time.Now().Unix()
	mrtg := write("mrtg", fmt.Sprintf("%d 1 2\n%d 100 200 300 400\n%d 100 200 300 400\n", now, now, now-300))
	log, seen := write("log", "fine\nERROR: out of cheese\n"), write("seen", "fine\n")
	return []pluginRun{
		{"check_dummy", "0 all_is_well", verdict.Pass, 0},
		{"check_dummy", "1", verdict.Warn, 0},
		{"check_dummy", "2", verdict.Fail, 0},
		{"check_dummy", "3", verdict.Unknown, 0},
		{"check_dummy", "4", verdict.Unknown, 0},
		{"check_load", "-w 10000,10000,10000 -c 20000,20000,20000", verdict.Pass, 3},
		{"check_load", "-r -w 0,0,0 -c 20000,20000,20000", anyStatus, 3},
		{"check_procs", "-w 1:100000 -c 1:200000", verdict.Pass, 1},
		{"check_procs", "-w 0:0 -c @1:200000", verdict.Fail, 1},
		{"check_procs", "-C no-such-command -w 1: -c 0:", verdict.Warn, 1},
		{"check_disk", "-w 0% -c 0% -p / -p /tmp", verdict.Pass, 1},
		{"check_disk", "-w 100% -c 0% -p /", verdict.Warn, 1},
		{"check_disk", "-w 10 -c 5 -p /no/such/folder", anyStatus, 0},
		{"check_swap", "-w 1 -c 1 -n ok", anyStatus, 1},
		{"check_users", "-w 10000 -c 20000", verdict.Pass, 1},
		{"check_file_age", "-w 1000000 -c 2000000 -f " + log, verdict.Pass, 2},
		{"check_file_age", "-w 1000000 -c 2000000 -f " + dir + "/nosuch", verdict.Fail, 0},
		{"check_file_age", "-W 1000 -C 10 -f " + log, verdict.Warn, 2},
		{"check_log", "-F " + log + " -O " + seen + " -q ERROR", anyStatus, 0},
		{"check_mrtg", "-F " + mrtg + " -a AVG -v 1 -w 10 -c 1000 -l load -u percent", verdict.Warn, 1},
		{"check_mrtgtraf", "-F " + mrtg + " -a MAX -w 1000,1000 -c 2000,2000", verdict.Pass, 2},
		{"check_cluster", "--service -l things -d 0,2,0 -w 0 -c 5", verdict.Warn, 0},
		{"check_icmp", "-H 127.0.0.1", anyStatus, 0}, // who is not root may not
		{"check_host", "-H 127.0.0.1", anyStatus, 0},
		{"check_sensors", "", anyStatus, 0},
		{"check_nagios", "-F " + log + " -e 5 -C no-such-command", anyStatus, 0},
	}
}

// serverRuns ask servers that the test is.
func serverRuns(t *testing.T) []pluginRun {
	t.Helper()
	web, secure := httptest.NewServer(pages()), httptest.NewTLSServer(pages())
	t.Cleanup(web.Close)
	t.Cleanup(secure.Close)
	at := func(address string) string {
		return "-H 127.0.0.1 -p " + address[strings.LastIndexByte(address, ':')+1:] + " "
	}
	http, https := at(web.URL), at(secure.URL)
	refused := at(freeAddress(t, "127.0.0.1"))
	tcp := func(hello string, answer func(ask string) string) string { return at(serveTCP(t, hello, answer)) }
	ok := func(string) string { return "250 ok\r\n" }
	ups := func(ask string) string {
		ask, _, _ = strings.Cut(ask, "\n")
		variable := strings.TrimPrefix(ask, "GET VAR rack ")
		if value, known := map[string]string{"ups.status": "OL", "battery.charge": "90", "ups.load": "20", "input.voltage": "230"}[variable]; known {
			return "VAR rack " + variable + ` "` + value + "\"\n"
		}
		return "ERR VAR-NOT-SUPPORTED\n"
	}
	smtp := tcp("220 mail ESMTP\r\n", ok)
	return []pluginRun{
		{"check_http", http + "-u /", verdict.Pass, 2},
		{"check_http", http + "-u /missing", verdict.Warn, 2},
		{"check_http", http + "-u /down", verdict.Fail, 2},
		{"check_http", http + "-u / -s hello", verdict.Pass, 2},
		{"check_http", http + "-u / -s goodbye", verdict.Fail, 2},
		{"check_http", https + "-S -u /", verdict.Pass, 2},
		{"check_http", https + "-S -C 30", anyStatus, 0},
		{"check_http", refused, verdict.Fail, 0},
		{"check_tcp", http + "-w 5 -c 8", verdict.Pass, 1},
		{"check_tcp", smtp + "-e 220", verdict.Pass, 1},
		{"check_tcp", smtp + "-e 999", verdict.Warn, 1},
		{"check_tcp", refused, verdict.Fail, 0},
		{"check_udp", at(serveUDP(t, func(b []byte) []byte { return b })) + "-s ping -e ping", verdict.Pass, 1},
		{"check_ssh", tcp("SSH-2.0-OpenSSH_9.2\r\n", ok), verdict.Pass, 1},
		{"check_smtp", smtp, verdict.Pass, 1},
		{"check_ftp", tcp("220 files\r\n", ok), verdict.Pass, 1},
		{"check_imap", tcp("* OK mail\r\n", ok), verdict.Pass, 1},
		{"check_pop", tcp("+OK mail\r\n", ok), verdict.Pass, 1},
		{"check_nntp", tcp("200 news\r\n", ok), verdict.Pass, 1},
		{"check_clamd", tcp("", func(string) string { return "PONG\n" }), verdict.Pass, 1},
		{"check_time", at(serveTime(t)), verdict.Pass, 1},
		{"check_ntp_time", at(serveUDP(t, ntp)), verdict.Pass, 1},
		{"check_ups", tcp("", ups) + "-u rack", verdict.Pass, 3},
	}
}

func pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello | a=1") })
	mux.HandleFunc("/down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	return mux
}

// serveTCP says hello to whom connects, and answers what comes in one piece.
func serveTCP(t *testing.T, hello string, answer func(ask string) string) string {
	t.Helper()
	return accept(t, func(c net.Conn) {
		io.WriteString(c, hello)
		b := make([]byte, 2048)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			io.WriteString(c, answer(string(b[:n])))
		}
	})
}

const since1900 = 2_208_988_800 // seconds to 1970

// serveTime says the time as RFC 868 has it.
func serveTime(t *testing.T) string {
	t.Helper()
	return accept(t, func(c net.Conn) {
		c.Write(binary.BigEndian.AppendUint32(nil, uint32(time.Now().Unix()+since1900)))
	})
}

func accept(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				talk(c)
			}()
		}
	}()
	return l.Addr().String()
}

// serveUDP answers each packet.
func serveUDP(t *testing.T, answer func([]byte) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(answer(b[:n]), from)
		}
	}()
	return c.LocalAddr().String()
}

// ntp answers as a server of stratum 1 does (RFC 5905), with this machine's time.
func ntp(ask []byte) []byte {
	b := make([]byte, 48)
	if len(ask) < len(b) {
		return nil
	}
	const version, server = 4, 4
	b[0], b[1], b[3] = version<<3|server, 1, 0xec
	now := time.Now()
	stamp := uint64(now.Unix()+since1900)<<32 | uint64(now.Nanosecond())<<32/1e9
	binary.BigEndian.PutUint64(b[16:], stamp)
	copy(b[24:32], ask[40:48]) // when it was asked
	binary.BigEndian.PutUint64(b[32:], stamp)
	binary.BigEndian.PutUint64(b[40:], stamp)
	return b
}
