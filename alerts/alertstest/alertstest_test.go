package alertstest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestTheAgentSeesTheHistories plays them through the agent's evaluator.
func TestTheAgentSeesTheHistories(t *testing.T) {
	for _, h := range Histories(t) {
		t.Run(h.Name, func(t *testing.T) {
			if diff := cmp.Diff(h.Want, Play(t, h), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("episodes (-want +got)\n%s", diff)
			}
		})
	}
}

func TestValues(t *testing.T) {
	for text, want := range map[string][]string{
		"7":            {"7"},
		"0+10x2":       {"0", "10", "20"},
		"5-2x2":        {"5", "3", "1"},
		"3x1 _ _x2 1":  {"3", "3", "_", "_", "_", "1"},
		"1 stale -1.5": {"1", "NaN", "-1.5"},
		"1e3+1e3x1":    {"1000", "2000"},
		"0x0":          {"0"},
		"  1   2  ":    {"1", "2"},
		"":             nil,
	} {
		values, err := Values(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := written(values); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"x", "1+x2", "1x", "stale2", "1,2"} {
		if values, err := Values(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, written(values))
		}
	}
}

func written(values []*float64) (out []string) {
	for _, v := range values {
		if v == nil {
			out = append(out, "_")
			continue
		}
		out = append(out, fmt.Sprint(*v))
	}
	return out
}
