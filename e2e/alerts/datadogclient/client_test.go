package datadogclient

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/DataDog/datadog-api-client-go/v2/api/datadog"
	"github.com/DataDog/datadog-api-client-go/v2/api/datadogV1"
)

// The client is patient: what has a wrong type, or a value that is none of an enum's,
// it keeps as an unparsed object, and a field that it does not know as an additional
// property. Here both are errors, and so is what it would not send as it is written.

func monitor(data []byte) error {
	var m datadogV1.Monitor
	return strict(data, &m)
}

func dashboard(data []byte) error {
	var d datadogV1.Dashboard
	return strict(data, &d)
}

func strict(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return err
	}
	if found, what := datadog.ContainsUnparsedObject(into); found {
		return fmt.Errorf("not understood: %v", what)
	}
	if errs := additional("", reflect.ValueOf(into)); len(errs) > 0 {
		return errors.Join(errs...)
	}
	sent, err := json.Marshal(into)
	if err != nil {
		return err
	}
	var want, got any
	if err := errors.Join(json.Unmarshal(data, &want), json.Unmarshal(sent, &got)); err != nil {
		return err
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("sent as %s, want %s", sent, bytes.TrimSpace(data))
	}
	return nil
}

// additional finds fields that the client does not know, wherever they are.
func additional(place string, v reflect.Value) (errs []error) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			errs = additional(place, v.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			errs = append(errs, additional(fmt.Sprintf("%s[%d]", place, i), v.Index(i))...)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			errs = append(errs, additional(fmt.Sprintf("%s.%v", place, k), v.MapIndex(k))...)
		}
	case reflect.Struct:
		if get := v.MethodByName("Get"); get.IsValid() && get.Type().NumIn() == 0 { // what may be null
			return additional(place, get.Call(nil)[0])
		}
		for f, value := range v.Fields() {
			switch {
			case !f.IsExported() || f.Name == "UnparsedObject":
			case f.Name == "AdditionalProperties" && value.Len() > 0:
				errs = append(errs, fmt.Errorf("%s: got %v, which the client does not know", place, value))
			default:
				errs = append(errs, additional(place+"."+f.Name, value)...)
			}
		}
	}
	return errs
}

// rendered are the files of a folder: there must be some.
func rendered(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "..", filepath.FromSlash(folder), "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("got no file in %s, want those that were rendered", folder)
	}
	return files
}

func TestTheClientKnowsWhatIsRendered(t *testing.T) {
	for _, tt := range []struct {
		folder string
		check  func([]byte) error
	}{
		{"alerts/generated/datadog", monitor},
		{"dashboards/generated/datadog", dashboard},
	} {
		for _, path := range rendered(t, tt.folder) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.check(data); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// TestWhatIsBrokenIsFound breaks a monitor and a dashboard that ship, each way by itself.
func TestWhatIsBrokenIsFound(t *testing.T) {
	monitors := rendered(t, "alerts/generated/datadog")
	at := max(0, slices.IndexFunc(monitors, func(path string) bool { return strings.HasSuffix(path, "ledger-space.json") }))
	whole, err := os.ReadFile(monitors[at])
	if err != nil {
		t.Fatal(err)
	}
	board, err := os.ReadFile(rendered(t, "dashboards/generated/datadog")[0])
	if err != nil {
		t.Fatal(err)
	}
	options := func(m map[string]any) map[string]any { return m["options"].(map[string]any) }
	for name, tt := range map[string]struct {
		check func([]byte) error
		of    []byte
		by    func(map[string]any)
	}{
		"a monitor without a type":                {monitor, whole, func(m map[string]any) { delete(m, "type") }},
		"a monitor without a query":               {monitor, whole, func(m map[string]any) { delete(m, "query") }},
		"a type that there is not":                {monitor, whole, func(m map[string]any) { m["type"] = "metrics alert" }},
		"a priority in words":                     {monitor, whole, func(m map[string]any) { m["priority"] = "high" }},
		"tags in one text":                        {monitor, whole, func(m map[string]any) { m["tags"] = "a:b" }},
		"a field that there is not":               {monitor, whole, func(m map[string]any) { m["mesage"] = "a" }},
		"an option that there is not":             {monitor, whole, func(m map[string]any) { options(m)["no_data_timefarme"] = 10 }},
		"an option of another type":               {monitor, whole, func(m map[string]any) { options(m)["no_data_timeframe"] = "10m" }},
		"a threshold that there is not":           {monitor, whole, func(m map[string]any) { options(m)["thresholds"] = map[string]any{"critcal": 1} }},
		"a threshold in words":                    {monitor, whole, func(m map[string]any) { options(m)["thresholds"] = map[string]any{"critical": "1"} }},
		"a recovery in words":                     {monitor, whole, func(m map[string]any) { options(m)["thresholds"].(map[string]any)["critical_recovery"] = "1" }},
		"a status that there is not":              {monitor, whole, func(m map[string]any) { options(m)["renotify_statuses"] = []any{"alarm"} }},
		"missing data in a way that there is not": {monitor, whole, func(m map[string]any) { options(m)["on_missing_data"] = "ignore" }},
		"a dashboard without widgets":             {dashboard, board, func(d map[string]any) { delete(d, "widgets") }},
		"a layout that there is not":              {dashboard, board, func(d map[string]any) { d["layout_type"] = "grid" }},
		"a widget that there is not": {dashboard, board, func(d map[string]any) {
			d["widgets"].([]any)[0].(map[string]any)["definition"] = map[string]any{"type": "graph"}
		}},
		"a widget with a field too many":    {dashboard, board, func(d map[string]any) { d["widgets"].([]any)[0].(map[string]any)["colour"] = "red" }},
		"a dashboard with a field too many": {dashboard, board, func(d map[string]any) { d["colour"] = "red" }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tt.check(tt.of); err != nil {
				t.Fatalf("before it is broken: %v", err)
			}
			var m map[string]any
			if err := json.Unmarshal(tt.of, &m); err != nil {
				t.Fatal(err)
			}
			tt.by(m)
			broken, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.check(broken); err == nil {
				t.Error("got nothing wrong, want it found")
			}
		})
	}
}
