package datadog

import (
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/google/go-cmp/cmp"

	"github.com/outrider-agent/outrider/checks/verdict"
	"github.com/outrider-agent/outrider/exporters"
)

func TestVerdictsBecomeServiceChecks(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var offered []exporters.Point
	e, err := (&Config{Address: "127.0.0.1:8125"}).Build(exporters.Env{
		Tags: map[string]string{"service": "payments"}, Now: func() time.Time { return now },
		Offer: func(p exporters.Point) { offered = append(offered, p) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []verdict.Status{verdict.Pass, verdict.Warn, verdict.Fail, verdict.Unknown} {
		e.(exporters.Teller).Tell(exporters.Verdict{Name: "outrider.check", Status: status, Message: "refused", Tags: []exporters.Tag{{Name: "check", Value: "db"}}})
	}
	for i, want := range []statsd.ServiceCheckStatus{statsd.Ok, statsd.Warn, statsd.Critical, statsd.Unknown} {
		got := offered[i].Ref.(*statsd.ServiceCheck)
		one := &statsd.ServiceCheck{Name: "outrider.check", Status: want, Timestamp: now, Message: "refused", Tags: []string{"check:db", "service:payments"}}
		if diff := cmp.Diff(one, got); diff != "" {
			t.Errorf("service check (-want +got):\n%s", diff)
		}
	}
}
