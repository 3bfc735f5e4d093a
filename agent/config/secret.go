package config

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
)

// Redacted is what every secret prints as.
const Redacted = "<redacted>"

// maxSecretBytes is far above any key or token, and keeps a path such as
// /dev/zero from filling the memory.
const maxSecretBytes = 64 << 10

// A Secret is secret text, inline or from ${NAME}. It prints as <redacted>
// however it is printed: the text sits behind a pointer, because fmt reads
// unexported fields without asking their methods.
type Secret struct{ text *string }

// NewSecret returns a secret that holds text.
func NewSecret(text string) Secret { return Secret{&text} }

// Text is the secret itself; empty when none was given.
func (s Secret) Text() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Equal compares in constant time.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Text()), []byte(o.Text())) == 1
}

// String hides the secret, as the methods below do for the other printers.
func (s Secret) String() string { return Redacted }

// Format hides the secret from every verb of fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return Redacted }

// MarshalJSON hides the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(Redacted) }

// MarshalYAML hides the secret.
func (s Secret) MarshalYAML() (any, error) { return Redacted, nil }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// A SecretFile is a secret that a file holds. The file is read when the
// configuration is loaded, and one trailing newline is cut off.
type SecretFile struct {
	Path Path // empty when none was given

	secret *string // behind a pointer for the reason given at Secret
}

// NewSecretFile returns a secret as if it had been read from path.
func NewSecretFile(path Path, secret []byte) SecretFile {
	text := string(secret)
	return SecretFile{Path: path, secret: &text}
}

// Bytes is a copy of the secret itself; nil when none was given.
func (s SecretFile) Bytes() []byte {
	if s.secret == nil {
		return nil
	}
	return []byte(*s.secret)
}

// Equal compares in constant time.
func (s SecretFile) Equal(o SecretFile) bool {
	return s.Path == o.Path && subtle.ConstantTimeCompare(s.Bytes(), o.Bytes()) == 1
}

// String hides the secret, as the methods below do for the other printers.
func (s SecretFile) String() string { return Redacted }

// Format hides the secret from every verb of fmt.
func (s SecretFile) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// GoString hides the secret from %#v.
func (s SecretFile) GoString() string { return Redacted }

// MarshalJSON hides the secret.
func (s SecretFile) MarshalJSON() ([]byte, error) { return json.Marshal(Redacted) }

// MarshalYAML hides the secret.
func (s SecretFile) MarshalYAML() (any, error) { return Redacted, nil }

// LogValue hides the secret from slog.
func (s SecretFile) LogValue() slog.Value { return slog.StringValue(Redacted) }

// readSecret reads a secret. worldReadable is a warning and no error, because
// Kubernetes mounts secrets with mode 0644 unless told otherwise.
func readSecret(path Path) (s SecretFile, worldReadable bool, err error) {
	// A pipe without a writer would block the start: ask before opening.
	info, err := os.Stat(string(path))
	if err != nil {
		return s, false, err
	}
	if !info.Mode().IsRegular() {
		return s, false, errors.New("not a regular file")
	}
	f, err := os.Open(string(path))
	if err != nil {
		return s, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	switch {
	case err != nil:
		return s, false, err
	case len(data) > maxSecretBytes:
		return s, false, fmt.Errorf("more than %d bytes", maxSecretBytes)
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	data = bytes.TrimSuffix(data, []byte("\r"))
	if len(bytes.TrimSpace(data)) == 0 {
		return s, false, errors.New("an empty file")
	}
	return NewSecretFile(path, data), info.Mode().Perm()&0o004 != 0, nil
}

// reason is an error about a file without the path, which the message already
// names as it was written.
func reason(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such file"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}
