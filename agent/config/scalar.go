package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// scalar decodes one text. Errors show it as it is written in the file, never
// with the environment's values in it: those may be secret.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, k key) {
	want := wantOf(v.Type())
	if n.Kind != yaml.ScalarNode {
		d.fail(k, describe(n), want)
		return
	}
	text, err := expand(n.Value, d.getenv)
	if err != nil {
		d.fail(k, err.Error(), "a set variable, or ${NAME:-default}")
		return
	}
	if isSecret(v.Type()) {
		d.secret(n.Value, text, v, k)
		return
	}
	if t, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		if err := t.UnmarshalText([]byte(text)); err != nil {
			d.fail(k, show(n.Value), textWant(err, want))
		}
		return
	}
	if v.Type() == reflect.TypeFor[Path]() {
		v.SetString(string(Path(text).in(d.dir)))
		return
	}
	if want, ok := setBasic(v, text, want); !ok {
		d.fail(k, show(n.Value), want)
	}
}

// secret decodes what must not be shown.
func (d *decoder) secret(raw, text string, v reflect.Value, k key) {
	if v.Type() == reflect.TypeFor[Secret]() {
		v.Set(reflect.ValueOf(NewSecret(text)))
		return
	}
	if text == "" {
		d.fail(k, "an empty path", "a readable file")
		return
	}
	s, worldReadable, err := readSecret(Path(text).in(d.dir))
	if err != nil {
		shown := show(raw)
		if strings.HasPrefix(raw, "whsec_") { // the secret itself, by mistake
			shown = Redacted
		}
		d.fail(k, shown+": "+reason(err), "a readable file")
		return
	}
	if worldReadable {
		w := Error{File: d.file, Line: k.line, Key: k.path, Got: show(raw) + ": readable by everyone", Want: "mode 0600 or 0640"}
		d.warnings = append(d.warnings, w.Error())
	}
	v.Set(reflect.ValueOf(s))
}

// setBasic sets v, which has a basic type. When it cannot, it says what it wants.
func setBasic(v reflect.Value, text, want string) (string, bool) {
	if v.Type() == reflect.TypeFor[time.Duration]() {
		dur, err := time.ParseDuration(text)
		v.SetInt(int64(dur))
		return want, err == nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(text == "true")
		return want, text == "true" || text == "false"
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return want, false
		}
		v.SetFloat(f)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if errors.Is(err, strconv.ErrRange) {
			want = fmt.Sprintf("a whole number of %d bits", v.Type().Bits())
		}
		v.SetInt(i)
		return want, err == nil
	default:
		u, err := strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(u)
		return fmt.Sprintf("a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-v.Type().Bits())), err == nil
	}
	return want, true
}

// textWant is what a text unmarshaler's error wants, when it says so in the
// house's form: got this, want that.
func textWant(err error, want string) string {
	if _, after, ok := strings.Cut(err.Error(), "want "); ok {
		return show(after)
	}
	return want + " (" + show(err.Error()) + ")"
}

func isSecret(t reflect.Type) bool {
	return t == reflect.TypeFor[Secret]() || t == reflect.TypeFor[SecretFile]()
}

// expand replaces ${NAME}, ${NAME:-default} and $$. A variable that is empty
// counts as set, except where a default is given: so does the shell.
func expand(s string, getenv func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			s = after[1:]
			continue
		case !strings.HasPrefix(after, "{"):
			b.WriteByte('$')
			s = after
			continue
		}
		inside, rest, closed := strings.Cut(after[1:], "}")
		if !closed {
			return "", errors.New("${ without }")
		}
		variable, def, hasDefault := strings.Cut(inside, ":-")
		if !validVariable(variable) {
			return "", fmt.Errorf("${%s}, which is no name of a variable", strings.Trim(show(inside), `"`))
		}
		value, set := getenv(variable)
		switch {
		case hasDefault && value == "":
			value = def
		case !set:
			return "", fmt.Errorf("${%s}, which is not set", variable)
		}
		b.WriteString(value)
		s = rest
	}
}

func validVariable(s string) bool {
	return s != "" && (s[0] < '0' || s[0] > '9') && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	})
}
