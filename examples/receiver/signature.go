package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// tolerance is how far a request's timestamp may be off, as Standard Webhooks
// has it: an older one may be somebody's recording.
const tolerance = 5 * time.Minute

// readKey reads a key as the agent does: the file's text without the line's
// end, or what its base64 says after whsec_.
func readKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if encoded, ok := bytes.CutPrefix(text, []byte("whsec_")); ok {
		if text, err = base64.StdEncoding.DecodeString(string(encoded)); err != nil {
			return nil, fmt.Errorf("read key %s: no base64 after whsec_", path)
		}
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, fmt.Errorf("read key %s: got an empty one", path)
	}
	return text, nil
}

// verify checks a request's signature: one of its signatures must be right,
// with one of the keys.
func verify(keys [][]byte, h http.Header, body []byte, now time.Time) error {
	id, stamp := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	switch {
	case id == "" || err != nil:
		return errors.New("signature: no webhook-id or webhook-timestamp")
	case time.Unix(seconds, 0).Before(now.Add(-tolerance)) || time.Unix(seconds, 0).After(now.Add(tolerance)):
		return fmt.Errorf("signature: the timestamp is %s off, want at most %s", now.Sub(time.Unix(seconds, 0)).Abs().Truncate(time.Second), tolerance)
	}
	right := false
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		for _, part := range []string{id, ".", stamp, "."} {
			mac.Write([]byte(part))
		}
		mac.Write(body)
		want := mac.Sum(nil)
		for signature := range strings.FieldsSeq(h.Get("Webhook-Signature")) {
			encoded, ok := strings.CutPrefix(signature, "v1,")
			if !ok {
				continue // of a version that is not known
			}
			if got, err := base64.StdEncoding.DecodeString(encoded); err == nil && hmac.Equal(got, want) {
				right = true
			}
		}
	}
	if !right {
		return errors.New("signature: none is right")
	}
	return nil
}
