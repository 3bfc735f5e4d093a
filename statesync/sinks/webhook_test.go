package sinks

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync"
)

// token is the secret part of the address in these tests.
const token = "T0PSECRET"

// A request is what a receiver saw.
type request struct {
	method, uri string
	header      http.Header
	body        []byte
}

// A receiver is a server that writes requests down.
type receiver struct {
	*httptest.Server
	connections atomic.Int64 // opened, ever

	mu       sync.Mutex
	requests []request
}

// receive answers each try, from 1, with answer; nil answers 204.
func receive(t testing.TB, answer func(w http.ResponseWriter, r *http.Request, try int)) *receiver {
	t.Helper()
	rec := &receiver{}
	rec.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		rec.mu.Lock()
		rec.requests = append(rec.requests, request{r.Method, r.RequestURI, r.Header.Clone(), body})
		try := len(rec.requests)
		rec.mu.Unlock()
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, r, try)
	}))
	rec.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			rec.connections.Add(1)
		}
	}
	rec.Start()
	t.Cleanup(rec.Close)
	return rec
}

func (r *receiver) seen() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]request{}, r.requests...)
}

// webhook opens a sink for an address; edits change its configuration.
func webhook(t testing.TB, address string, edits ...func(*WebhookConfig)) *webhookSink {
	t.Helper()
	c := &WebhookConfig{URL: config.NewSecret(address), Timeout: 10 * time.Second, Concurrency: 32, Batch: 1}
	for _, edit := range edits {
		edit(c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := c.Open("outrider/1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.(*webhookSink).Close() })
	return s.(*webhookSink)
}

func key(secret string) func(*WebhookConfig) {
	return func(c *WebhookConfig) { c.SecretFile = config.NewSecretFile("key", []byte(secret)) }
}

func oldKey(secret string) func(*WebhookConfig) {
	return func(c *WebhookConfig) { c.OldSecretFile = config.NewSecretFile("old.key", []byte(secret)) }
}

func batchOf(n int) func(*WebhookConfig) {
	return func(c *WebhookConfig) { c.Batch = n }
}

func timeout(d time.Duration) func(*WebhookConfig) {
	return func(c *WebhookConfig) { c.Timeout = d }
}

func post(ctx context.Context, s *webhookSink, d statesync.Delivery) error {
	return s.Deliver(ctx, []statesync.Delivery{d})
}

// refusal wants a SinkError that is fit to be shown.
func refusal(t *testing.T, err error, cause string) *statesync.SinkError {
	t.Helper()
	var s *statesync.SinkError
	if !errors.As(err, &s) {
		t.Fatalf("error %v, want a SinkError of cause %s", err, cause)
	}
	if s.Cause != cause {
		t.Errorf("cause %s, want %s (%v)", s.Cause, cause, err)
	}
	text := err.Error()
	for _, secret := range []string{token, "http://", "https://", "Post "} {
		if strings.Contains(text, secret) {
			t.Errorf("the error holds %q: %s", secret, text)
		}
	}
	if len(text) > 512 || strings.ContainsAny(text, "\n\r\x1b\x00") || !strings.HasPrefix(text, "webhook: ") {
		t.Errorf("error of %d bytes, want webhook: and one short line: %.600q", len(text), text)
	}
	return s
}

func TestWebhookRequest(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	s := webhook(t, rec.URL+"/changes?token="+token)
	d := delivery("a", 3)
	before := time.Now().Unix()
	if err := post(t.Context(), s, d); err != nil {
		t.Fatal(err)
	}
	after := time.Now().Unix()
	if len(rec.seen()) != 1 {
		t.Fatalf("%d requests, want 1", len(rec.seen()))
	}
	r := rec.seen()[0]
	if r.method != http.MethodPost || r.uri != "/changes?token="+token {
		t.Errorf("%s %s", r.method, r.uri)
	}
	want, err := statesync.MarshalEvent(d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(r.body)); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/cloudevents+json; charset=utf-8", "User-Agent": "outrider/1.2.3",
		"Webhook-Id": "a-3", "Idempotency-Key": "a-3",
	} {
		if got := r.header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if n, err := strconv.ParseInt(r.header.Get("Webhook-Timestamp"), 10, 64); err != nil || n < before || n > after {
		t.Errorf("timestamp %q, want seconds from %d to %d", r.header.Get("Webhook-Timestamp"), before, after)
	}
	if got := r.header.Get("Accept-Encoding"); got != "" {
		t.Errorf("accepts an answer in %s, want as it is: a small one can be large", got)
	}
	if r.header.Get("Webhook-Signature") != "" {
		t.Error("signed without a key")
	}
}

// TestWebhookAnswers goes through every status: what acknowledges, what refuses
// the change, what ends it all, and what is tried again.
func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	elsewhere := receive(t, nil)
	var status atomic.Int64
	rec := receive(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Location", elsewhere.URL+"/stolen")
		w.WriteHeader(int(status.Load()))
	})
	s := webhook(t, rec.URL)
	for code := 200; code < 1000; code++ {
		cause := "status_other"
		switch {
		case code == 429:
			cause = "status_429"
		case code < 400:
			cause = "redirect"
		case code < 500:
			cause = "status_4xx"
		case code < 600:
			cause = "status_5xx"
		}
		status.Store(int64(code))
		err := post(t.Context(), s, delivery("a", 1))
		if code < 300 {
			if err != nil {
				t.Errorf("status %d: %v", code, err)
			}
			continue
		}
		e := refusal(t, err, cause)
		if want := code == 400 || code == 413 || code == 422; e.Rejected != want {
			t.Errorf("status %d: rejected %t, want %t", code, e.Rejected, want)
		}
		if want := code == 410; e.Gone != want {
			t.Errorf("status %d: gone %t, want %t", code, e.Gone, want)
		}
		if !strings.Contains(e.Error(), fmt.Sprintf("status %d, want 2xx", code)) {
			t.Errorf("status %d: error %v", code, e)
		}
	}
	if n := len(elsewhere.seen()); n != 0 {
		t.Errorf("%d redirects were followed: a signed request could be led anywhere", n)
	}
	if n := len(rec.seen()); n != 800 {
		t.Errorf("%d requests for 800 deliveries, want one each", n)
	}
}

func TestWebhookRetryAfter(t *testing.T) {
	t.Parallel()
	var header atomic.Value
	var status atomic.Int64
	rec := receive(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Retry-After", header.Load().(string))
		w.WriteHeader(int(status.Load()))
	})
	s := webhook(t, rec.URL)
	for code, cause := range map[int64]string{429: "status_429", 503: "status_5xx", 404: "status_4xx", 302: "redirect"} {
		status.Store(code)
		for value, want := range map[string]time.Duration{"120": 2 * time.Minute, "86400": 15 * time.Minute, "": 0} {
			header.Store(value)
			if e := refusal(t, post(t.Context(), s, delivery("a", 1)), cause); e.After != want {
				t.Errorf("status %d, Retry-After %q: %s, want %s", code, value, e.After, want)
			}
		}
	}
	status.Store(429)
	header.Store(time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat))
	if e := refusal(t, post(t.Context(), s, delivery("a", 1)), "status_429"); e.After < 9*time.Minute || e.After > 10*time.Minute {
		t.Errorf("a date in ten minutes: %s", e.After)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"1":                              time.Second,
		"900":                            15 * time.Minute,
		"901":                            15 * time.Minute,
		"9223372036854775807":            15 * time.Minute,
		"99999999999999999999999":        15 * time.Minute,
		"-5":                             0,
		"-99999999999999999999999":       0,
		"1.5":                            0,
		"soon":                           0,
		"Sun, 01 Mar 2026 12:00:30 GMT":  30 * time.Second,
		"Sunday, 01-Mar-26 12:00:30 GMT": 30 * time.Second,
		"Sun, 01 Mar 2026 13:00:00 GMT":  15 * time.Minute,
		"Sun, 01 Mar 2026 11:00:00 GMT":  0,
		"Fri, 31 Dec 9999 23:59:59 GMT":  15 * time.Minute,
		"Mon, 01 Jan 0001 00:00:00 GMT":  0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "0", "120", "-1", "99999999999999999999", "Sun, 01 Mar 2026 12:00:30 GMT", "1e3", "0x10", "+7"} {
		f.Add(seed, int64(1_800_000_000))
	}
	f.Fuzz(func(t *testing.T, header string, unix int64) {
		got := retryAfter(header, time.Unix(unix%(1<<40), 0))
		if got < 0 || got > 15*time.Minute {
			t.Fatalf("%q: %s, want 0 to 15 minutes", header, got)
		}
		digits := header != "" && strings.Trim(header, "0123456789") == ""
		if n, err := strconv.Atoi(header); digits && err == nil && n <= 900 && got != time.Duration(n)*time.Second {
			t.Fatalf("%q: %s, want %d seconds", header, got, n)
		}
		if digits && len(strings.TrimLeft(header, "0")) > 3 && got != 15*time.Minute {
			t.Fatalf("%q: %s, want the most a receiver can ask for", header, got)
		}
	})
}

func TestWebhookTimeout(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	rec := receive(t, func(_ http.ResponseWriter, r *http.Request, _ int) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	s := webhook(t, rec.URL+"/"+token, timeout(50*time.Millisecond))
	began := time.Now()
	e := refusal(t, post(t.Context(), s, delivery("a", 1)), "timeout")
	if took := time.Since(began); took > 5*time.Second || !strings.Contains(e.Error(), "50ms") {
		t.Errorf("after %s: %v, want the time limit named", took, e)
	}

	patient := webhook(t, rec.URL+"/"+token)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- post(ctx, patient, delivery("a", 1)) }()
	for len(rec.seen()) < 2 {
		select {
		case err := <-result:
			t.Fatalf("returned %v before its answer", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	refusal(t, <-result, "network")
}

// TestWebhookFailuresAreFitToBeShown meets what can go wrong below HTTP.
func TestWebhookFailuresAreFitToBeShown(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	strange := httptest.NewUnstartedServer(http.NotFoundHandler())
	strange.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	strange.StartTLS()
	t.Cleanup(strange.Close)
	raw := func(answer string) string {
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
				_, _ = c.Read(make([]byte, 64<<10))
				_, _ = io.WriteString(c, answer)
				c.Close()
			}
		}()
		return "http://" + l.Addr().String()
	}
	long := strings.Repeat("x", 20_000)
	for name, tt := range map[string]struct{ address, cause, says string }{
		"nobody listens":                {gone.URL, "network", "refused"},
		"a certificate of no authority": {strange.URL, "tls", "certificate"},
		"a receiver without TLS":        {strings.Replace(raw("HTTP/1.1 200 OK\r\n\r\n"), "http:", "https:", 1), "tls", "TLS handshake"},
		"it hangs up":                   {raw(""), "network", "EOF"},
		"it does not speak HTTP":        {raw("220 smtp " + token + long + "\r\n"), "network", "malformed HTTP"},
		"a broken header":               {raw("HTTP/1.1 200 OK\r\n" + token + long + "\r\n\r\n"), "network", "malformed"},
		"a redirect to nowhere":         {raw("HTTP/1.1 302 Found\r\nLocation: //%zz/" + token + long + "\r\n\r\n"), "redirect", "not followed"},
		"it speaks another protocol":    {raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "status_other", "status 101"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := webhook(t, tt.address+"/hooks/"+token+"?key="+token, timeout(5*time.Second))
			e := refusal(t, post(t.Context(), s, delivery("a", 1)), tt.cause)
			if !strings.Contains(e.Error(), tt.says) {
				t.Errorf("error %v, want it to say %q", e, tt.says)
			}
		})
	}
}

// TestWebhookQuotesTheAnswer: enough of it to help, on one line, and never the
// address back.
func TestWebhookQuotesTheAnswer(t *testing.T) {
	t.Parallel()
	var answer atomic.Value
	rec := receive(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		w.WriteHeader(http.StatusNotFound)
		text := strings.ReplaceAll(answer.Load().(string), "{uri}", r.RequestURI)
		_, _ = io.WriteString(w, strings.ReplaceAll(text, "{host}", r.Host))
	})
	s := webhook(t, strings.Replace(rec.URL, "http://", "http://user:"+token+"pw@", 1)+"/hooks/"+token+"/in%20box?key="+token+"q&x=%2B"+token)
	for name, tt := range map[string]struct{ answer, want string }{
		"nothing":                     {"", "status 404, want 2xx"},
		"a line":                      {" no such hook\n", "want 2xx: no such hook"},
		"the path":                    {"Cannot POST {uri}", "Cannot POST <redacted>"},
		"the path in JSON":            {`{"path":"\/hooks\/` + token + `"}`, "path"},
		"the whole address":           {"http://user:" + token + "pw@{host}{uri} is gone", "is gone"},
		"the query, decoded":          {"unknown key " + token + "q, x +" + token, "unknown key <redacted>, x <redacted>"},
		"the token at the border":     {strings.Repeat("x", errorQuote-4) + token, "xxx"},
		"lines and colours":           {"one\r\n\x1b[31mtwo\x00", "one [31mtwo"},
		"bytes that are not text":     {"\xff\xfebad\xff", "bad"},
		"a letter cut at the border":  {strings.Repeat("é", 500), "éé"},
		"pages of it":                 {strings.Repeat("sorry ", 5000), "sorry sorry"},
		"what looks like a directive": {"100%!d(MISSING) %s", "100%!d(MISSING) %s"},
	} {
		answer.Store(tt.answer)
		e := refusal(t, post(t.Context(), s, delivery("a", 1)), "status_4xx")
		if !strings.Contains(e.Error(), tt.want) || len(e.Error()) > errorQuote+60 {
			t.Errorf("%s: error %q, want %q in it, and %d bytes of quotation at most", name, e.Error(), tt.want, errorQuote)
		}
	}
}

// TestWebhookHidesWhatAReceiverRepeats in the form in which it came.
func TestWebhookHidesWhatAReceiverRepeats(t *testing.T) {
	t.Parallel()
	rec := receive(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		w.WriteHeader(http.StatusUnauthorized)
		_, password, _ := r.BasicAuth()
		fmt.Fprintf(w, "%s, wrong password %s, no %s", r.Header.Get("Authorization"), password, strings.ReplaceAll(r.RequestURI, "&", "&amp;"))
	})
	s := webhook(t, strings.Replace(rec.URL, "http://", "http://platform:p%2B1@", 1)+"/in?v=1&sig=abc%2FSECRET%3D&TOKENONLY")
	err := post(t.Context(), s, delivery("a", 1))
	if got, want := err.Error(), "webhook: status 401, want 2xx: Basic <redacted>, wrong password <redacted>, no /in?v=1&amp;sig=<redacted>&amp;<redacted>"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}

// TestWebhookRetryIsTheSame: same body, same ID; timestamp and signature are
// of the try, or a receiver that checks them would refuse a late one.
func TestWebhookRetryIsTheSame(t *testing.T) {
	t.Parallel()
	rec := receive(t, func(w http.ResponseWriter, _ *http.Request, try int) {
		if try < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	s := webhook(t, rec.URL, key("secret"))
	d := delivery("a", 1)
	d.Workload.Labels = map[string]string{"c": "3", "a": "1", "b": "2", "d": "4"}
	for range 2 {
		refusal(t, post(t.Context(), s, d), "status_5xx")
	}
	if err := post(t.Context(), s, d); err != nil {
		t.Fatal(err)
	}
	first := rec.seen()[0]
	for i, r := range rec.seen() {
		if diff := cmp.Diff(string(first.body), string(r.body)); diff != "" {
			t.Errorf("try %d (-first +this):\n%s", i+1, diff)
		}
		if r.header.Get("Webhook-Id") != "a-1" || r.header.Get("Idempotency-Key") != "a-1" {
			t.Errorf("try %d: id %q, key %q", i+1, r.header.Get("Webhook-Id"), r.header.Get("Idempotency-Key"))
		}
		if err := verify([]byte("secret"), r); err != nil {
			t.Errorf("try %d: %v", i+1, err)
		}
	}
}

// verify checks a request as the specification of Standard Webhooks tells
// receivers to, and shares no code with the sink.
func verify(key []byte, r request) error {
	id, timestamp := r.header.Get("webhook-id"), r.header.Get("webhook-timestamp")
	signed := fmt.Sprintf("%s.%s.%s", id, timestamp, r.body)
	mac := hmac.New(sha256.New, key)
	_, _ = io.WriteString(mac, signed)
	for signature := range strings.SplitSeq(r.header.Get("webhook-signature"), " ") {
		version, encoded, _ := strings.Cut(signature, ",")
		given, err := base64.StdEncoding.DecodeString(encoded)
		if version == "v1" && err == nil && hmac.Equal(given, mac.Sum(nil)) {
			return nil
		}
	}
	return fmt.Errorf("signature %q is not of %q", r.header.Get("webhook-signature"), signed)
}

func TestWebhookSignature(t *testing.T) {
	t.Parallel()
	bytes32 := "\x00\x01\xfe\xff0123456789abcdef0123456789ab"
	for name, tt := range map[string]struct {
		file string
		key  string
	}{
		"a plain key":     {"correct horse battery staple", "correct horse battery staple"},
		"a key in base64": {"whsec_" + base64.StdEncoding.EncodeToString([]byte(bytes32)), bytes32},
		"a plain key that could be base64": {
			"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		},
	} {
		rec := receive(t, nil)
		if err := post(t.Context(), webhook(t, rec.URL, key(tt.file)), delivery("a", 1)); err != nil {
			t.Fatal(err)
		}
		r := rec.seen()[0]
		if err := verify([]byte(tt.key), r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.body[10] ^= 1
		if verify([]byte(tt.key), r) == nil {
			t.Errorf("%s: the signature does not cover the body", name)
		}
	}
}

// TestWebhookSignsWithBothKeys: a receiver that knows one of them, whichever it
// is, takes the request.
func TestWebhookSignsWithBothKeys(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	if err := post(t.Context(), webhook(t, rec.URL, key("new"), oldKey("old")), delivery("a", 1)); err != nil {
		t.Fatal(err)
	}
	r := rec.seen()[0]
	for _, k := range []string{"new", "old"} {
		if err := verify([]byte(k), r); err != nil {
			t.Errorf("%s key: %v", k, err)
		}
	}
	if verify([]byte("other"), r) == nil {
		t.Error("any key verifies")
	}
	first, _, _ := strings.Cut(r.header.Get("Webhook-Signature"), " ")
	if want := sign([]byte("new"), "a-1", r.header.Get("Webhook-Timestamp"), r.body); first != want {
		t.Errorf("first signature %s, want the new key's %s: many a receiver looks at no other", first, want)
	}
}

// TestSignatureOfTheSpecification is the example of the Standard Webhooks
// libraries.
func TestSignatureOfTheSpecification(t *testing.T) {
	t.Parallel()
	k, err := signingKey(config.NewSecretFile("key", []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")))
	if err != nil {
		t.Fatal(err)
	}
	got := sign(k, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWebhookUsesItsConnectionsAgain(t *testing.T) {
	t.Parallel()
	rec := receive(t, func(w http.ResponseWriter, _ *http.Request, try int) {
		if try%3 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(make([]byte, 30_000))
	})
	s := webhook(t, rec.URL)
	for i := range int64(30) {
		_ = post(t.Context(), s, delivery("a", i+1))
	}
	if n := rec.connections.Load(); n != 1 {
		t.Errorf("%d connections for 30 deliveries one after another, want 1", n)
	}
}

func TestWebhookBoundsItsConnections(t *testing.T) {
	t.Parallel()
	const concurrency = 4
	var now, most atomic.Int64
	rec := receive(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		w.WriteHeader(http.StatusAccepted)
	})
	s := webhook(t, rec.URL, func(c *WebhookConfig) { c.Concurrency = concurrency })
	if s.Concurrency() != concurrency {
		t.Errorf("concurrency %d, want %d", s.Concurrency(), concurrency)
	}
	var group sync.WaitGroup
	for w := range 12 {
		group.Go(func() {
			for i := range int64(20) {
				if err := post(t.Context(), s, delivery(fmt.Sprintf("w%d", w), i+1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if m, c := most.Load(), rec.connections.Load(); m > concurrency || c > concurrency {
		t.Errorf("%d requests at once over %d connections, want at most %d", m, c, concurrency)
	}
	if n := len(rec.seen()); n != 240 {
		t.Errorf("%d requests, want 240", n)
	}
}
