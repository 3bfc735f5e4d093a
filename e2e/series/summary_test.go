package series

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// TestDatadogsCheckNamesTheSummaryOfANeighbourAsWeDo has the check read a neighbour
// that has one, and the agent send what it read there: so a dashboard made for the
// one shows the other.
func TestDatadogsCheckNamesTheSummaryOfANeighbourAsWeDo(t *testing.T) {
	t.Parallel()
	need(t, "venv")
	took := prometheus.NewSummaryVec(prometheus.SummaryOpts{
		Name: "pay_seconds", Help: "From the order to the money.", Objectives: map[float64]float64{0.5: 0.05, 0.99: 0.001},
	}, []string{"by"})
	reg := prometheus.NewRegistry()
	reg.MustRegister(took)
	observe := func() {
		for i := range 100 {
			took.WithLabelValues("card").Observe(float64(i%10) / 10)
		}
	}
	observe()
	server := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)

	l := listen(t)
	a := assemble(t, &shop{url: server.URL}, freeAddress(t, "udp"), l.path)
	waitFor(t, patience, "the neighbour's series", func() bool { return len(a.shop.Gather()) > 0 })
	l.exported(a)
	observe() // counts are sent of what came since the first look
	l.exported(a)

	kinds := func(figures map[figure]float64) map[string]string {
		out := map[string]string{}
		for f := range figures {
			if strings.HasPrefix(f.name, "pay_seconds") {
				out[f.name] = strings.TrimSpace(f.kind + " " + ofSummary(f.tags))
			}
		}
		return out
	}
	want := map[string]string{"pay_seconds.count": "counter by:card", "pay_seconds.sum": "counter by:card", "pay_seconds.quantile": "gauge by:card quantile"}
	direct := submits(t, server.URL, map[string]string{"pay_seconds": "pay_seconds"}, nil)
	if diff := cmp.Diff(want, kinds(direct)); diff != "" {
		t.Errorf("the check of the neighbour (-want +got):\n%s", diff)
	}
	sent := l.sums()
	if diff := cmp.Diff(want, kinds(sent)); diff != "" {
		t.Errorf("DogStatsD got (-want +got):\n%s", diff)
	}
	for f, v := range direct {
		if f.kind == "counter" {
			v /= 2 // there were as many before the agent looked
		}
		if got, found := sent[f]; !found || !near(got, v) {
			t.Errorf("%v: DogStatsD got %v (%t), want %v", f, got, found, v)
		}
	}
}

// ofSummary are the tags of a figure that came with the neighbour's summary, the
// quantile without its value.
func ofSummary(tags string) string {
	var out []string
	for tag := range strings.SplitSeq(tags, ",") {
		switch name, _, _ := strings.Cut(tag, ":"); name {
		case "by":
			out = append(out, tag)
		case "quantile":
			out = append(out, name)
		}
	}
	return strings.Join(out, " ")
}
