package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/outrider-agent/outrider/agent/config"
	"github.com/outrider-agent/outrider/alerts"
	"github.com/outrider-agent/outrider/checks"
	"github.com/outrider-agent/outrider/collectors"
	"github.com/outrider-agent/outrider/exporters"
	"github.com/outrider-agent/outrider/history"
	"github.com/outrider-agent/outrider/metrics/catalogue"
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
	structs = append(structs, seriesConfig{}, history.Config{}, collectors.Neighbour{}, collectors.Item{}, collectors.Pipeline{}, collectors.Term{}, collectors.Selection{}, collectors.PipelineSelection{}, exporters.Config{}, checks.Item{}, alertsConfig{})
	for _, table := range []config.Kinds{sinks.Kinds(), collectors.Kinds(), exporterKinds(), checks.Kinds()} {
		for _, kind := range table {
			structs = append(structs, kind())
		}
	}
	for _, s := range structs {
		typ := reflect.TypeOf(s)
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		for _, field := range reflect.VisibleFields(typ) {
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

// TestTheSidecarOfTheREADMEIsGood reads the configuration that it shows.
func TestTheSidecarOfTheREADMEIsGood(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "```yaml\nservice: payments\n")
	text, _, whole := strings.Cut(text, "```")
	if !found || !whole {
		t.Fatal("README.md shows no configuration of a service payments")
	}
	path := filepath.Join(t.TempDir(), "sidecar.yaml")
	if err := os.WriteFile(path, []byte("service: payments\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.series.Pipelines) != 1 || len(s.series.Exporters) != 2 {
		t.Errorf("%d pipelines and %d exporters, want 1 and 2", len(s.series.Pipelines), len(s.series.Exporters))
	}
}

// TestTheRulesOfTheREADMEAreGood reads the rules that it shows.
func TestTheRulesOfTheREADMEAreGood(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "```yaml\n# payments.yaml\n")
	text, _, whole := strings.Cut(text, "```")
	if !found || !whole {
		t.Fatal("README.md shows no rules payments.yaml")
	}
	path := filepath.Join(t.TempDir(), "payments.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := loadRules(false, []string{path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alerts.Render(set, catalogue.Own(), alerts.Backends()...); err != nil || len(set.Rules) != 1 {
		t.Errorf("%d rules, %v, want 1 that every back end takes", len(set.Rules), err)
	}
}
