package collectors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/metrics/metricstest"
)

func statsdFrame(data string) string {
	return string(binary.LittleEndian.AppendUint32(nil, uint32(len(data)))) + data
}

func streamStatsD(t *testing.T) *statsdRun {
	t.Helper()
	return runStatsD(t, statsdConfig(t, "unixstream://"+t.TempDir()+"/s"))
}

func TestStreams(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		sent string
		want []string
		out  int64
		drop map[string]int64
	}{
		{"packets", statsdFrame("a:1|c\na:2|c") + statsdFrame("") + statsdFrame("a:3|c\n"), []string{"counter a_total{} 6"}, 2, nil},
		{"lines", "a:1|c\na:2|c\n\na:3|c\n", []string{"counter a_total{} 6"}, -1, nil},
		{"a last line without its newline", "a:1|c\na:2|c", []string{"counter a_total{} 3"}, -1, nil},
		{"a packet that breaks off", statsdFrame("a:1|c") + statsdFrame("a:2|c")[:6], []string{"counter a_total{} 1"}, 1, map[string]int64{"incomplete": 1}},
		{"too little to tell", "a:1", nil, 0, map[string]int64{"incomplete": 1}},
		{"a packet that is too long", statsdFrame(strings.Repeat("x", 70_000)) + statsdFrame("a:1|c"), []string{"counter a_total{} 1"}, 1, map[string]int64{"too_long": 1}},
		{"a line that is too long", "a:1|c\n" + strings.Repeat("x", 200_000) + "\na:1|c\n", []string{"counter a_total{} 2"}, -1, map[string]int64{"too_long": 1}},
		{"a length without sense", "\xff\xff\xff\xff" + statsdFrame("a:1|c"), nil, 0, map[string]int64{"too_long": 1}},
	}
	for _, tt := range tests {
		r := streamStatsD(t)
		conn := statsdDial(t, "unix", r.address())
		var err error
		for data := []byte(tt.sent); len(data) > 0 && err == nil; { // in pieces of all sizes
			n := min(len(data), 1+rand.IntN(30))
			if len(tt.sent) > 1000 {
				n = min(len(data), 1+rand.IntN(9000))
			}
			_, err = conn.Write(data[:n])
			data = data[n:]
		}
		if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		conn.(*net.UnixConn).CloseWrite()
		if _, err := conn.Read(make([]byte, 1)); err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", tt.name, err) // it is closed when all of it was read
		}
		r.quit()
		fams, _ := r.Collect(t.Context())
		if diff := cmp.Diff(tt.want, statsdShow(fams)); diff != "" {
			t.Errorf("%s: series (-want +got):\n%s", tt.name, diff)
		}
		s := r.packets()
		if s.TotalDropped() > 0 || tt.drop != nil {
			if diff := cmp.Diff(tt.drop, s.Dropped); diff != "" {
				t.Errorf("%s: dropped (-want +got):\n%s", tt.name, diff)
			}
		}
		if tt.out >= 0 && s.Out != tt.out {
			t.Errorf("%s: %d packets, want %d", tt.name, s.Out, tt.out)
		}
	}
}

func TestAGibibyteWithoutANewline(t *testing.T) { // alone: it looks at all of the memory
	for name, head := range map[string]string{"a line": "a:1|c\n", "a packet": statsdFrame("a:1|c") + "\x00\x00\x00\x40"} {
		r := streamStatsD(t)
		conn := statsdDial(t, "unix", r.address())
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		statsdWrite(t, conn, head)
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for range 1 << 10 {
			if _, err := conn.Write(chunk); err != nil {
				t.Fatal(err)
			}
		}
		if name == "a line" {
			statsdWrite(t, conn, "\na:1|c\n")
		} else {
			statsdWrite(t, conn, statsdFrame("a:1|c"))
		}
		statsdUntil(t, name+": what came after it", func() bool { return r.lineBook().Out == 2 })
		runtime.ReadMemStats(&after)
		if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 32<<20 {
			t.Errorf("%s: %d bytes were allocated", name, grown)
		}
		r.quit()
		if s := r.packets(); s.Dropped["too_long"] != 1 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	c := statsdConfig(t, "unixstream://"+t.TempDir()+"/s")
	c.Connections = 2
	r := runStatsD(t, c)
	one, two := statsdDial(t, "unix", r.address()), statsdDial(t, "unix", r.address())
	three := statsdDial(t, "unix", r.address())
	if _, err := three.Read(make([]byte, 1)); err == nil {
		t.Error("the third connection was served")
	}
	statsdWrite(t, one, "a:1|c\n")
	statsdWrite(t, two, "a:1|c\n")
	statsdUntil(t, "the others go on", func() bool { return r.lineBook().Out == 2 })
	if n := r.intake.(*streamIntake).refused.Load(); n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
	one.Close()
	statsdUntil(t, "a place is free", func() bool { return len(r.intake.(*streamIntake).open()) == 1 })
	four := statsdDial(t, "unix", r.address())
	statsdWrite(t, four, "a:1|c\n")
	statsdUntil(t, "the fourth is served", func() bool { return r.lineBook().Out == 3 })
	r.quit()
}

// TestNothingIsLostAcrossReloads sends while collectors take each other's places.
func TestNothingIsLostAcrossReloads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct{ network, listen string }{
		{"udp", "127.0.0.1:0"}, {"unixgram", "unix://" + dir + "/gram"}, {"unix", "unixstream://" + dir + "/stream"},
	} {
		reg := metricstest.Registry(t)
		r := buildStatsD(t, reg, statsdConfig(t, tt.listen)).run()
		const reloads = 10
		conn := statsdDial(t, tt.network, r.address())
		stop, sent := make(chan struct{}), make(chan int64)
		go func() {
			n := int64(0)
			for {
				select {
				case <-stop:
					sent <- n
					return
				default:
				}
				data := "reload:1|c"
				if tt.network == "unix" {
					data = statsdFrame(data)
				}
				for len(data) > 0 { // packets on a stream in two pieces
					piece := data
					if tt.network == "unix" {
						piece = data[:min(len(data), 9)]
					}
					if _, err := conn.Write([]byte(piece)); err != nil {
						t.Error(err)
					}
					data = data[len(piece):]
				}
				n++
			}
		}()
		for i := range reloads {
			seen := r.packets().In
			statsdUntil(t, "some more came", func() bool { return r.packets().In > seen+100 })
			c := statsdConfig(t, tt.listen)
			c.Series += i
			next := buildStatsD(t, reg, c)
			if !next.Adopt(r.dogstatsd) {
				t.Fatalf("%s: the collector took nothing over", tt.network)
			}
			if err := <-r.end; err != nil {
				t.Error(err)
			}
			r.stop()
			r.own.Close()
			r = next.run()
		}
		close(stop)
		want := <-sent
		statsdUntil(t, tt.network+": all counted", func() bool { return r.packets().In == want && r.packets().Queued == 0 })
		s := r.packets()
		if s.Out+s.Dropped["kernel"] != want {
			t.Errorf("%s: %d counted + %d dropped, want %d", tt.network, s.Out, s.Dropped["kernel"], want)
		}
		if tt.network != "udp" && s.Dropped["kernel"] != 0 {
			t.Errorf("%s: %+v", tt.network, s.Dropped)
		}
		fams, _ := r.Collect(t.Context())
		if len(fams) != 1 || fams[0].Points[0].Value != float64(s.Out) {
			t.Errorf("%s: %v, want one counter of %d", tt.network, statsdShow(fams), s.Out)
		}
		r.quit()
	}
}

func TestAdoptOfWhatIsNotTheSame(t *testing.T) {
	t.Parallel()
	reg := metricstest.Registry(t)
	dir := t.TempDir()
	never := buildStatsD(t, metricstest.Registry(t), statsdConfig(t, "127.0.0.1:0"))
	next := buildStatsD(t, reg, statsdConfig(t, "unix://"+dir+"/b"))
	if next.Adopt(never.dogstatsd) || next.Adopt(next.dogstatsd) || next.Adopt(nil) {
		t.Error("something was taken over from what does not run")
	}
	if err := never.Run(t.Context()); err != nil { // its place is taken
		t.Error(err)
	}
	old := buildStatsD(t, reg, statsdConfig(t, "unix://"+dir+"/a")).run()
	statsdWrite(t, statsdDial(t, "unixgram", old.address()), "a:1|c")
	if !next.Adopt(old.dogstatsd) { // at another address: the series, not the socket
		t.Fatal("nothing was taken over")
	}
	if err := <-old.end; err != nil {
		t.Error(err)
	}
	old.own.Close()
	next.run()
	if !strings.HasSuffix(next.address(), "/b") {
		t.Errorf("listens on %s", next.address())
	}
	statsdWrite(t, statsdDial(t, "unixgram", next.address()), "a:1|c")
	statsdUntil(t, "both counted", func() bool { return next.lineBook().Out == 2 })
	fams, _ := next.Collect(t.Context())
	if diff := cmp.Diff([]string{"counter a_total{} 2"}, statsdShow(fams)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	next.quit()
}

// TestNoiseOnEverySocket sends what is no metric, and wants the books to balance.
func TestNoiseOnEverySocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct{ network, listen string }{
		{"udp", "127.0.0.1:0"}, {"unixgram", "unix://" + dir + "/gram"}, {"unix", "unixstream://" + dir + "/stream"},
	} {
		r := runStatsD(t, statsdConfig(t, tt.listen))
		rng := rand.NewChaCha8([32]byte{7})
		noise := make([]byte, 2000)
		for range 500 {
			conn, err := net.Dial(tt.network, r.address())
			if err != nil {
				t.Fatal(err)
			}
			rng.Read(noise)
			_, _ = conn.Write(noise) // a stream may close in between
			conn.Close()
		}
		statsdWrite(t, statsdDial(t, tt.network, r.address()), "alive:1|c\n")
		statsdUntil(t, tt.network+": what is no noise counts", func() bool {
			r.balanced()
			return r.lineBook().Out >= 1
		})
		r.quit()
	}
}
