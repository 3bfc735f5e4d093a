package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestTheShopShowsItsBooks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, l) }()
	base := "http://" + l.Addr().String()
	for range 150 {
		resp, err := http.Post(base+"/order?item=tea", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	for path, wants := range map[string][]string{
		"/metrics": {
			`outrider_pipeline_balance{pipeline="orders",unit="orders"} 0`,
			`outrider_pipeline_in_total{pipeline="orders",unit="orders"} 150`,
			`outrider_pipeline_drops_total{pipeline="orders",reason="full",unit="orders"} `,
			"# TYPE shop_order_seconds histogram",
		},
		"/healthz?format=text":           {"[+]runner ok"},
		"/debug/status":                  {"service shop", "orders   -      orders"},
		"/debug/pprof/goroutine?debug=1": {"goroutine profile"},
	} {
		got := get(t, base+path)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: want %q in it:\n%s", path, want, got)
			}
		}
	}
	rest := `outrider_pipeline_queued{pipeline="orders",unit="orders"} 0`
	for deadline := time.After(30 * time.Second); !strings.Contains(get(t, base+"/metrics"), rest); {
		select {
		case <-deadline:
			t.Fatal("orders still wait after 30 s")
		case <-time.After(50 * time.Millisecond):
		}
	}
	if got := get(t, base+"/metrics"); !strings.Contains(got, `outrider_pipeline_balance{pipeline="orders",unit="orders"} 0`) {
		t.Errorf("the books do not balance at rest:\n%s", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d (%v), want 200\n%s", url, resp.StatusCode, err, body)
	}
	return string(body)
}
