package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestSecretsNeverPrint(t *testing.T) {
	type holder struct {
		Inline  Secret
		File    SecretFile
		private Secret
		hidden  SecretFile
	}
	const secret = "hunter2"
	h := holder{NewSecret(secret), NewSecretFile("p", []byte(secret)), NewSecret(secret), NewSecretFile("p", []byte(secret))}
	if h.private.Text() != secret || string(h.hidden.Bytes()) != secret {
		t.Fatal("the secret itself is lost")
	}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", h)
		fmt.Fprintf(&out, verb+verb+"\n", h.Inline, h.File)
		fmt.Fprintf(&out, verb+verb+"\n", &h.Inline, &h.File)
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		b, err := marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "a", h.Inline, "b", h.File, "c", h)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "a", h.Inline, "b", h.File, "c", h)
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the output shows %s:\n%s", form, out.String())
		}
	}
	if n := strings.Count(out.String(), "redacted"); n < 40 {
		t.Errorf("got %d times redacted, want 40 or more:\n%s", n, out.String())
	}
}

func TestSecretsCompare(t *testing.T) {
	a, b := NewSecret("a"), NewSecret("b")
	if !a.Equal(NewSecret("a")) || a.Equal(b) || a.Equal(Secret{}) {
		t.Error("Secret.Equal is wrong")
	}
	fa, fb := NewSecretFile("p", []byte("a")), NewSecretFile("p", []byte("b"))
	if !fa.Equal(NewSecretFile("p", []byte("a"))) || fa.Equal(fb) || fa.Equal(SecretFile{}) {
		t.Error("SecretFile.Equal is wrong")
	}
	fa.Bytes()[0] = 'x'
	if !bytes.Equal(fa.Bytes(), []byte("a")) {
		t.Error("Bytes gives the secret's own memory away")
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0B", "4096": "4KiB", "1000 B": "1000B", "2GiB": "2GiB", "64MB": "62500KiB", "1kB": "1000B",
		"3 TiB": "3TiB", "-1": "", "1.5GiB": "", "GiB": "", "9223372036854775807": "9223372036854775807B", "9000000TiB": "", "2 gib": "",
	} {
		var b Bytes
		err := b.UnmarshalText([]byte(text))
		if want == "" && err == nil || want != "" && (err != nil || b.String() != want) {
			t.Errorf("%q: got %v (%v), want %q", text, b, err, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"url", "secret_file", "namespaces", "kinds"}
	for word, want := range map[string]string{
		"namespace": " (did you mean namespaces?)", "Kinds": " (did you mean kinds?)", "secretfile": " (did you mean secret_file?)",
		"uri": " (did you mean url?)", "colour": "", "": "", strings.Repeat("kinds", 100): "",
	} {
		if got := didYouMean(word, known); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}
