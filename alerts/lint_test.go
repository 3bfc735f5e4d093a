package alerts

import (
	"testing"

	"github.com/outrider-agent/outrider/metrics/catalogue"
)

func TestTheShippedRulesAreClean(t *testing.T) {
	set, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	if err := Lint(set, catalogue.Own()); err != nil {
		t.Error(err)
	}
}
