package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The example of the Standard Webhooks libraries.
const (
	specKey       = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	specID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	specBody      = `{"test": 2432232314}`
	specStamp     = "1614265330"
	specSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func keyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook.key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVerify(t *testing.T) {
	key, err := readKey(keyFile(t, specKey+"\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	sent := time.Unix(1614265330, 0)
	another := []byte("another")
	for name, tt := range map[string]struct {
		keys      [][]byte
		signature string
		stamp     string
		body      string
		now       time.Time
		want      string
	}{
		"right":                        {},
		"the second key":               {keys: [][]byte{another, key}},
		"the second signature":         {signature: "v1,AAAA v1a,xx " + specSignature},
		"4:59 old":                     {now: sent.Add(5*time.Minute - time.Second)},
		"4:59 early":                   {now: sent.Add(time.Second - 5*time.Minute)},
		"5:01 old":                     {now: sent.Add(5*time.Minute + time.Second), want: "5m1s off"},
		"5:01 early":                   {now: sent.Add(-5*time.Minute - time.Second), want: "5m1s off"},
		"another key":                  {keys: [][]byte{another}, want: "none is right"},
		"another body":                 {body: specBody + " ", want: "none is right"},
		"no signature":                 {signature: " ", want: "none is right"},
		"no base64":                    {signature: "v1,%%", want: "none is right"},
		"another version":              {signature: strings.Replace(specSignature, "v1", "v2", 1), want: "none is right"},
		"a part of it":                 {signature: specSignature[:20], want: "none is right"},
		"a timestamp that is no time":  {stamp: "now", want: "no webhook-id or webhook-timestamp"},
		"a timestamp beyond all times": {stamp: "9223372036854775807", want: "off"},
	} {
		t.Run(name, func(t *testing.T) {
			or := func(s, otherwise string) string {
				if s == "" {
					return otherwise
				}
				return s
			}
			if tt.keys == nil {
				tt.keys = [][]byte{key}
			}
			if tt.now.IsZero() {
				tt.now = sent
			}
			h := http.Header{}
			h.Set("webhook-id", specID)
			h.Set("webhook-timestamp", or(tt.stamp, specStamp))
			h.Set("webhook-signature", or(tt.signature, specSignature))
			err := verify(tt.keys, h, []byte(or(tt.body, specBody)), tt.now)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestReadKey(t *testing.T) {
	if key, err := readKey(keyFile(t, "a plain key\n")); err != nil || string(key) != "a plain key" {
		t.Errorf("key %q, error %v; want the text without the line's end", key, err)
	}
	for text, want := range map[string]string{"": "an empty one", "whsec_": "an empty one", "whsec_%": "no base64"} {
		if _, err := readKey(keyFile(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	if _, err := readKey(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a key that is not there was read")
	}
}
