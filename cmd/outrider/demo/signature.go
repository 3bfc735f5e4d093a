package demo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tolerance is how far a request's timestamp may be off, as Standard Webhooks
// has it.
const tolerance = 5 * time.Minute

// verify checks a request's signature, as the example of a receiver does.
func verify(key []byte, h http.Header, body []byte, now time.Time) error {
	id, stamp := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if id == "" || err != nil {
		return errors.New("signature: no webhook-id or webhook-timestamp")
	}
	if off := now.Sub(time.Unix(seconds, 0)).Abs(); off > tolerance {
		return fmt.Errorf("signature: the timestamp is %s off, want at most %s", off.Truncate(time.Second), tolerance)
	}
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
			return nil
		}
	}
	return errors.New("signature: none is right")
}
