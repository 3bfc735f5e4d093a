package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// A schema checks documents against docs/healthz.schema.json, as far as that uses
// JSON schema, and more strictly: what it does not name is wrong. It remembers
// which properties it met.
type schema struct {
	root map[string]any
	met  map[string]bool
}

func (s *schema) check(at, def string, rule map[string]any, v any) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, at+": "+fmt.Sprintf(format, args...)) }
	if ref, ok := rule["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/$defs/")
		return s.check(at, name, s.root["$defs"].(map[string]any)[name].(map[string]any), v)
	}
	if enum, ok := rule["enum"].([]any); ok && !slices.Contains(enum, v) {
		bad("%v, want one of %v", v, enum)
	}
	if types := typesOf(rule["type"]); types != nil && !slices.ContainsFunc(types, func(name string) bool { return isType(name, v) }) {
		bad("%v, want %v", v, types)
		return wrong
	}
	switch v := v.(type) {
	case string:
		if p, ok := rule["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
			bad("%q, want %s", v, p)
		}
		if n, ok := rule["maxLength"].(float64); ok && utf8.RuneCountInString(v) > int(n) {
			bad("%d characters, want at most %v", utf8.RuneCountInString(v), n)
		}
	case float64:
		if least, ok := rule["minimum"].(float64); ok && v < least {
			bad("%v, want at least %v", v, least)
		}
	case []any:
		if n, ok := rule["minItems"].(float64); ok && len(v) < int(n) {
			bad("%d items, want at least %v", len(v), n)
		}
		if n, ok := rule["maxItems"].(float64); ok && len(v) > int(n) {
			bad("%d items, want at most %v", len(v), n)
		}
		for i, item := range v {
			wrong = append(wrong, s.check(fmt.Sprintf("%s[%d]", at, i), def+"[]", rule["items"].(map[string]any), item)...)
		}
	case map[string]any:
		wrong = append(wrong, s.object(at, def, rule, v)...)
	}
	return wrong
}

func (s *schema) object(at, def string, rule, v map[string]any) (wrong []string) {
	properties, _ := rule["properties"].(map[string]any)
	for key, value := range v {
		of, ok := properties[key].(map[string]any)
		switch {
		case ok:
			s.met[path.Join(def, key)] = true
		default:
			if of, ok = rule["additionalProperties"].(map[string]any); !ok {
				wrong = append(wrong, at+": has "+key+", which the schema does not name")
				continue
			}
		}
		wrong = append(wrong, s.check(at+"."+key, path.Join(def, key), of, value)...)
	}
	required, _ := rule["required"].([]any)
	for _, key := range required {
		if _, ok := v[key.(string)]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s: has no %v", at, key))
		}
	}
	return wrong
}

func typesOf(v any) (out []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, name := range v {
			out = append(out, name.(string))
		}
	}
	return out
}

func isType(name string, v any) bool {
	switch v := v.(type) {
	case nil:
		return name == "null"
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case float64:
		return name == "number" || name == "integer" && v == math.Trunc(v)
	case []any:
		return name == "array"
	}
	return name == "object"
}

// all lists every property that the schema names.
func (s *schema) all(def string, rule map[string]any, out map[string]bool) {
	properties, _ := rule["properties"].(map[string]any)
	for key, of := range properties {
		out[path.Join(def, key)] = true
		s.all(path.Join(def, key), of.(map[string]any), out)
	}
	if items, ok := rule["items"].(map[string]any); ok {
		s.all(def+"[]", items, out)
	}
	if defs, ok := rule["$defs"].(map[string]any); ok {
		for name, of := range defs {
			s.all(name, of.(map[string]any), out)
		}
	}
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	text, err := os.ReadFile("../../docs/healthz.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	s := &schema{met: map[string]bool{}}
	if err := json.Unmarshal(text, &s.root); err != nil {
		t.Fatal(err)
	}
	return s
}

// What is served is what the schema describes, and it describes nothing that is
// never served.
func TestDigestAndSchemaAgree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := zoo(t)
		n, low := 0, 0.0
		mustAdd(t, r,
			Check{Name: "suffers", DependsOn: []string{"sink/platform"}, Run: answer(verdict.Fail, strings.Repeat("ä<\n", 1000))},
			Check{Name: "flaps", Every: time.Second, Run: func(context.Context) verdict.Result {
				n++
				return verdict.Result{Status: verdict.Status(n % 2), Measures: []verdict.Measure{
					{Label: "a", Value: 1, Unit: "s", Warn: "1", Crit: "2", Min: &low, Max: &low}, {Label: "b", Value: math.NaN()},
				}}
			}},
		)
		start(t, r)
		time.Sleep(30 * time.Second)
		for _, err := range []error{
			r.Acknowledge("sink/platform", "ann", "on it"),
			r.Maintain("disk", time.Now().Add(time.Hour), "ann", "new disk"),
			r.Heal("license", "renew", time.Now().Add(time.Minute)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		s := readSchema(t)
		for _, query := range []string{"", "?category=all", "?category=email&group=live", "?check=disk"} {
			var v any
			if err := json.Unmarshal(do(r.Healthz(everybody), "GET", "/healthz"+query).Body.Bytes(), &v); err != nil {
				t.Fatal(err)
			}
			for _, wrong := range s.check("digest"+query, "", s.root, v) {
				t.Error(wrong)
			}
		}
		all := map[string]bool{}
		s.all("", s.root, all)
		for name := range all {
			if !s.met[name] {
				t.Errorf("the schema names %s, which no digest had", name)
			}
		}
		if len(all) < 50 {
			t.Errorf("%d properties in the schema, want the 50 and more that there are", len(all))
		}
	})
}

// The validator can fail.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	good := map[string]any{}
	if err := json.Unmarshal(renderJSON(New(Options{Service: "a", Host: "h"}).Digest(Query{}), true), &good); err != nil {
		t.Fatal(err)
	}
	if wrong := s.check("d", "", s.root, good); wrong != nil {
		t.Fatalf("a digest: %q", wrong)
	}
	for key, bad := range map[string]any{
		"status": "ok", "pid": "1", "time": "now", "fingerprint": "xyz", "failing": []any{"A B"}, "checks": map[string]any{"a": []any{}}, "other": true, "host": nil,
	} {
		v := maps.Clone(good)
		v[key] = bad
		if s.check("d", "", s.root, v) == nil {
			t.Errorf("%s %v was not refused", key, bad)
		}
		delete(v, key)
		if key != "other" && s.check("d", "", s.root, v) == nil {
			t.Errorf("a digest without %s was not refused", key)
		}
	}
}
