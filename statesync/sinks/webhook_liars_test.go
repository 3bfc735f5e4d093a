package sinks

// Receivers that are slow, broken or hostile, most of them below HTTP.

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A countingConn counts what is read from it.
type countingConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// count counts what a sink reads.
func count(s *webhookSink) *atomic.Int64 {
	var read atomic.Int64
	dial := s.transport.DialContext
	s.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		return countingConn{c, &read}, err
	}
	return &read
}

// liar serves whole connections. requests reads a connection's next request;
// it is false once there is none.
func liar(t *testing.T, serve func(c net.Conn, next func() bool)) (address string, requests *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests = &atomic.Int64{}
	var open sync.WaitGroup
	done, cancel := context.WithCancel(context.Background())
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer context.AfterFunc(done, func() { c.Close() })()
				defer c.Close()
				r := bufio.NewReader(c)
				serve(c, func() bool {
					req, err := http.ReadRequest(r)
					if err == nil {
						_, err = io.Copy(io.Discard, req.Body)
						requests.Add(1)
					}
					return err == nil
				})
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		open.Wait()
	})
	return "http://" + l.Addr().String(), requests
}

// drip writes text again and again, with a pause, until the other side goes.
func drip(c net.Conn, text string, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
		<-tick.C
	}
}

func TestWebhookSlowAndLyingReceivers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer string // at once
		drip   string // then this, for ever
		pause  time.Duration
		cause  string
		within time.Duration // of the start; the time limit is 500 ms
	}{
		"no answer at all":                      {"", "", 0, "timeout", 5 * time.Second},
		"a status line without an end":          {"HTTP/1.1 20", "", 0, "timeout", 5 * time.Second},
		"a byte of the header at a time":        {"HTTP/1.1 200 OK\r\nX: ", "x", time.Millisecond, "timeout", 5 * time.Second},
		"a header without end":                  {"HTTP/1.1 200 OK\r\n", strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 10), time.Millisecond, "network", 5 * time.Second},
		"hints without end":                     {"", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 100), time.Millisecond, "network", 5 * time.Second},
		"go on, go on":                          {"", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), time.Millisecond, "network", 5 * time.Second},
		"a body that never comes":               {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "", 0, "", 400 * time.Millisecond},
		"a byte of the body at a time":          {"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", "x", time.Millisecond, "", 400 * time.Millisecond},
		"chunks without end":                    {"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", time.Millisecond, "", 400 * time.Millisecond},
		"a body that is cut off":                {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi", "close", 0, "", 400 * time.Millisecond},
		"a refusal whose text never comes":      {"HTTP/1.1 500 Oh\r\nContent-Length: 10\r\n\r\n", "", 0, "status_5xx", 5 * time.Second},
		"a refusal, a byte of it at a time":     {"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n", "x", time.Millisecond, "status_5xx", 5 * time.Second},
		"another protocol, and silence":         {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "", 0, "status_other", 400 * time.Millisecond},
		"a header and no end, then it hangs up": {"HTTP/1.1 200 OK\r\nX: y\r\n", "close", 0, "network", 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stay := make(chan struct{})
			address, requests := liar(t, func(c net.Conn, next func() bool) {
				if !next() {
					return
				}
				_, _ = io.WriteString(c, tt.answer)
				switch tt.drip {
				case "close":
				case "":
					<-stay
				default:
					drip(c, tt.drip, tt.pause)
				}
			})
			defer close(stay)
			s := webhook(t, address, timeout(500*time.Millisecond))
			read := count(s)
			began := time.Now()
			err := post(t.Context(), s, delivery("a", 1))
			took := time.Since(began)
			if tt.cause == "" && err != nil {
				t.Errorf("error %v, want none: the status acknowledges", err)
			}
			if tt.cause != "" {
				refusal(t, err, tt.cause)
			}
			if took > tt.within {
				t.Errorf("after %s, want at most %s", took, tt.within)
			}
			if n := read.Load(); n > 2*maxAnswer {
				t.Errorf("%d bytes were read, want at most %d", n, 2*maxAnswer)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1: the next try is the caller's", n)
			}
			_ = s.Close() // waits for what is left of the answer
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("closed after %s", took)
			}
		})
	}
}

// TestWebhookAcknowledgesAtOnce: a body that never comes is waited for when its
// change is acknowledged.
func TestWebhookAcknowledgesAtOnce(t *testing.T) {
	t.Parallel()
	stay := make(chan struct{})
	address, _ := liar(t, func(c net.Conn, next func() bool) {
		if next() {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
			<-stay
		}
	})
	defer close(stay)
	s := webhook(t, address)
	fastest := time.Hour
	for i := range int64(5) {
		began := time.Now()
		if err := post(t.Context(), s, delivery("a", i+1)); err != nil {
			t.Fatal(err)
		}
		fastest = min(fastest, time.Since(began))
	}
	if fastest > drainTime/2 {
		t.Errorf("%s at best, want about %s", fastest, drainWait)
	}
}

// TestWebhookRefusalThatStalls: what came of its text is told, and the rest not
// waited for.
func TestWebhookRefusalThatStalls(t *testing.T) {
	t.Parallel()
	rec := receive(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "some of it")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	began := time.Now()
	e := refusal(t, post(t.Context(), webhook(t, rec.URL, timeout(time.Minute)), delivery("a", 1)), "status_5xx")
	if took := time.Since(began); took > 20*time.Second || !strings.Contains(e.Error(), "some of it") {
		t.Errorf("after %s: %v, want what came of the answer in about %s", took, e, quoteTime)
	}
}

// TestWebhookOneTryIsOneRequest: net/http would send it again over each of its
// connections when the receiver hangs up, and all of them would be gone.
func TestWebhookOneTryIsOneRequest(t *testing.T) {
	t.Parallel()
	var hangUp atomic.Bool
	var all sync.WaitGroup
	all.Add(8)
	rec := receive(t, func(w http.ResponseWriter, _ *http.Request, try int) {
		if try <= 8 { // all connections open at once
			all.Done()
			all.Wait()
			return
		}
		if hangUp.Load() {
			panic(http.ErrAbortHandler)
		}
	})
	s := webhook(t, rec.URL)
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			if err := post(t.Context(), s, delivery(fmt.Sprint("w", w), 1)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	hangUp.Store(true)
	refusal(t, post(t.Context(), s, delivery("poison", 1)), "network")
	if n := len(rec.seen()); n != 9 {
		t.Errorf("%d requests for 9 tries", n)
	}
	hangUp.Store(false)
	if err := post(t.Context(), s, delivery("a", 1)); err != nil {
		t.Error(err)
	}
	if n := rec.connections.Load(); n != 8 {
		t.Errorf("%d connections, want the 7 that are left of 8 to be used", n)
	}
}

// TestWebhookDoesNotReadALongAnswer, over neither protocol.
func TestWebhookDoesNotReadALongAnswer(t *testing.T) {
	t.Parallel()
	page := make([]byte, 1<<20)
	for _, http2 := range []bool{false, true} {
		for _, status := range []int{200, 500} {
			t.Run(fmt.Sprintf("http2 %t, status %d", http2, status), func(t *testing.T) {
				t.Parallel()
				var protocol atomic.Int64
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					protocol.Store(int64(r.ProtoMajor))
					w.WriteHeader(status)
					for range 1 << 10 { // 1 GiB
						if _, err := w.Write(page); err != nil {
							return
						}
					}
				}))
				start(t, server, http2)
				s := trusting(t, server)
				read := count(s)
				began := time.Now()
				if err := post(t.Context(), s, delivery("a", 1)); (err == nil) != (status == 200) {
					t.Error(err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("after %s", took)
				}
				_ = s.Close()
				if want := map[bool]int64{false: 1, true: 2}[http2]; protocol.Load() != want {
					t.Errorf("HTTP/%d, want HTTP/%d", protocol.Load(), want)
				}
				if n := read.Load(); n > 4*maxAnswer {
					t.Errorf("%d bytes of 1 GiB were read, want at most %d", n, 4*maxAnswer)
				}
			})
		}
	}
}

// TestWebhookSlowAnswersDoNotHoldUpTheNext: what is left of them has its own
// time, and a bound.
func TestWebhookSlowAnswersDoNotHoldUpTheNext(t *testing.T) {
	t.Parallel()
	stay := make(chan struct{})
	address, requests := liar(t, func(c net.Conn, next func() bool) {
		if next() {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
			<-stay
		}
	})
	defer close(stay)
	s := webhook(t, address, func(c *WebhookConfig) { c.Concurrency = 2 })
	began := time.Now()
	for i := range int64(6) {
		if err := post(t.Context(), s, delivery("a", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second || requests.Load() != 6 {
		t.Errorf("%d requests in %s, want 6 in about %s", requests.Load(), took, 2*drainTime)
	}
}

// TestWebhookUsesAConnectionAgainAfterTheCaller has gone: the rest of an answer
// is read once the change is acknowledged.
func TestWebhookUsesAConnectionAgainAfterTheCaller(t *testing.T) {
	t.Parallel()
	var rec *receiver
	acknowledged := make(chan struct{}, 1)
	rec = receive(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Content-Length", "2")
		w.(http.Flusher).Flush()
		<-acknowledged
		_, _ = io.WriteString(w, "ok")
	})
	s := webhook(t, rec.URL, func(c *WebhookConfig) { c.Concurrency = 1 })
	for i := range int64(5) {
		ctx, cancel := context.WithCancel(t.Context())
		if err := post(ctx, s, delivery("a", i+1)); err != nil {
			t.Fatal(err)
		}
		cancel()
		acknowledged <- struct{}{}
	}
	if n := rec.connections.Load(); n != 1 {
		t.Errorf("%d connections for 5 deliveries one after another, want 1", n)
	}
}

func TestWebhookRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var rec *receiver
	var to atomic.Value
	rec = receive(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Location", to.Load().(string))
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	s := webhook(t, rec.URL+"/"+token)
	for i, location := range []string{
		"http://169.254.169.254/latest/meta-data/", "http://[fe80::1%25lo]/", rec.URL + "/" + token, "/", "file:///etc/passwd", "gopher://h/" + token,
	} {
		to.Store(location)
		refusal(t, post(t.Context(), s, delivery("a", 1)), "redirect")
		if n := len(rec.seen()); n != i+1 {
			t.Errorf("to %s: %d requests, want one a delivery", location, n-i)
		}
	}
}

// TestWebhookReceiverThatDoesNotRead the request is given up in time.
func TestWebhookReceiverThatDoesNotRead(t *testing.T) {
	t.Parallel()
	stay := make(chan struct{})
	address, _ := liar(t, func(net.Conn, func() bool) { <-stay })
	defer close(stay)
	d := delivery("a", 1)
	d.Message = string(bytes.Repeat([]byte("x"), 32<<20))
	refusal(t, post(t.Context(), webhook(t, address, timeout(300*time.Millisecond)), d), "timeout")
}

// TestWebhookOverHTTP2 sends what it has over few connections, and uses them
// again after an error.
func TestWebhookOverHTTP2(t *testing.T) {
	t.Parallel()
	var connections, tries, wrong atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.ProtoMajor != 2 || r.Header.Get("Idempotency-Key") == "" {
			wrong.Add(1)
		}
		if tries.Add(1)%5 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(make([]byte, 30_000))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	start(t, server, true)
	s := trusting(t, server, func(c *WebhookConfig) { c.Concurrency = 4 })
	var group sync.WaitGroup
	var refused atomic.Int64
	for w := range 4 {
		group.Go(func() {
			for i := range int64(25) {
				if post(t.Context(), s, delivery(fmt.Sprint("w", w), i+1)) != nil {
					refused.Add(1)
				}
			}
		})
	}
	group.Wait()
	if tries.Load() != 100 || refused.Load() != 20 || wrong.Load() != 0 {
		t.Errorf("%d tries, %d refused, %d not over HTTP/2 or without their key, want 100, 20, 0", tries.Load(), refused.Load(), wrong.Load())
	}
	if n := connections.Load(); n > 4 {
		t.Errorf("%d connections, want at most 4", n)
	}
}

func start(t *testing.T, server *httptest.Server, http2 bool) {
	t.Helper()
	server.EnableHTTP2 = http2
	if http2 {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
}
