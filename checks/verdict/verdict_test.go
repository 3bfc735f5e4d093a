package verdict

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWorse(t *testing.T) {
	t.Parallel()
	order := []Status{Pass, Warn, Unknown, Fail}
	for i, a := range order {
		for j, b := range order {
			if got, want := Worse(a, b), order[max(i, j)]; got != want {
				t.Errorf("Worse(%v, %v) = %v, want %v", a, b, got, want)
			}
		}
	}
	shuffled := []Status{Fail, Pass, Unknown, Warn}
	slices.SortFunc(shuffled, Compare)
	if diff := cmp.Diff(order, shuffled); diff != "" {
		t.Errorf("sorted by Compare (-want +got):\n%s", diff)
	}
	if got := Worse(Status(9), Warn); got != Status(9) {
		t.Errorf("a status that is none of the four counts as unknown: Worse = %v", got)
	}
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	for want, text := range map[Status]string{Pass: "pass", Warn: "warn", Fail: "fail", Unknown: "unknown"} {
		b, err := json.Marshal(want)
		if err != nil || string(b) != `"`+text+`"` {
			t.Errorf("marshal %d = %s, %v; want %q", want, b, err, text)
		}
		var got Status
		if err := json.Unmarshal(b, &got); err != nil || got != want {
			t.Errorf("unmarshal %s = %v, %v; want %v", b, got, err, want)
		}
	}
	if _, err := Status(4).MarshalText(); err == nil || err.Error() != "status(4), want pass, warn, fail or unknown" {
		t.Errorf("marshal of status 4: %v", err)
	}
	got := Warn
	if err := got.UnmarshalText([]byte("OK")); err == nil || err.Error() != `status "OK", want pass, warn, fail or unknown` {
		t.Errorf("unmarshal of OK: %v", err)
	}
	if got != Warn {
		t.Errorf("a refused text changed the status to %v", got)
	}
}

// The numbers are an interface: Nagios exit codes and a metric's values.
func TestStatusNumbers(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]Status{0, 1, 2, 3}, []Status{Pass, Warn, Fail, Unknown}); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
}
