package main

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/statesync/controller"
	"github.com/outrider-agent/outrider/statesync/sinks"
	"github.com/outrider-agent/outrider/statesync/workload/custom"
)

// TestEveryKeyIsDocumented wants a line in docs/config.md for every key that
// the configuration takes.
func TestEveryKeyIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	structs := []any{config.File{}, config.Listen{}, controller.Config{}, controller.KindConfig{}, controller.KindName{}, controller.SinkConfig{}, controller.FilterConfig{}, custom.Rules{}}
	for _, kind := range sinks.Kinds() {
		structs = append(structs, kind())
	}
	for _, s := range structs {
		typ := reflect.TypeOf(s)
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		for field := range typ.Fields() {
			key := field.Tag.Get("yaml")
			if key == "" || key == "listen" || key == "log" || key == "ledger" { // their keys have lines of their own
				continue
			}
			if !strings.Contains(string(b), "| `"+key+"` |") {
				t.Errorf("docs/config.md has no line for %s of %s", key, typ)
			}
		}
	}
}
