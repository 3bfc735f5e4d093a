package collectors

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/outrider-agent/outrider/metrics"
)

// captured is what a program said, as the scraper reads it.
func captured(t *testing.T, preset string) []metrics.Family {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "presets", preset+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	if about, _, _ := strings.Cut(string(text), "\n"); !strings.HasPrefix(about, "# ") || strings.HasPrefix(about, "# HELP") || strings.HasPrefix(about, "# TYPE") {
		t.Errorf("%s: got %q, want a first line that says which program, which version, and what it did", preset, about)
	}
	table := newPromTable(scrapeSampleLimit, promRelabeler{})
	if err := table.scan(bytes.NewReader(text), bytes.HasSuffix(text, []byte("# EOF\n"))); err != nil {
		t.Fatal(err)
	}
	if table.read.bad > 0 {
		t.Fatalf("%d lines could not be read: %v", table.read.bad, table.read.first)
	}
	return table.result()
}

func TestPresetsAgreeWithWhatTheProgramsDid(t *testing.T) {
	const outQueued = metrics.InTerm | metrics.RetriesTerm | metrics.DroppedTerm
	at := time.Unix(1_700_000_000, 0)
	none := map[string]int64{}
	tests := map[string][]metrics.PipelineSnapshot{
		"celery": {
			{
				Target: "celery", Unit: "tasks", In: 12 + 3*3 + 2 + 20, Out: 12 + 3*3, Queued: 20, Unknown: metrics.OldestTerm,
				Retries: map[string]int64{"unspecified": 6}, Dropped: map[string]int64{"ValueError": 2, "failed": 0, "rejected": 0, "revoked": 0},
			},
			{
				Target: "mail", Unit: "tasks", In: 5 + 1 + 5, Out: 5, Queued: 5, Unknown: metrics.OldestTerm,
				Retries: map[string]int64{"unspecified": 0}, Dropped: map[string]int64{"KeyError": 1, "failed": 0, "rejected": 0, "revoked": 0},
			},
		},
		"java_executor": {
			{Target: "mail", Unit: "tasks", Out: 1, Retries: none, Dropped: none, Unknown: outQueued | metrics.OldestTerm},
			{Target: "orders", Unit: "tasks", Out: 20, Queued: 7, Retries: none, Dropped: none, Unknown: outQueued | metrics.OldestTerm},
		},
		"kafka_consumer": {
			{Target: "mail", Unit: "records", Out: 10, Retries: none, Dropped: none, Unknown: outQueued | metrics.OldestTerm},
			{Target: "orders", Unit: "records", Out: 40, Queued: 60, Retries: none, Dropped: none, Unknown: outQueued | metrics.OldestTerm},
		},
		"sidekiq": {
			{Unit: "jobs", Out: 20, Queued: 8 + 2 + 3 + 4, Oldest: at.Add(-6024 * time.Millisecond), Retries: none, Dropped: none, Unknown: outQueued},
		},
		"workqueue": {
			{Target: "nodes", Unit: "keys", In: 2, Out: 1, Queued: 1, Retries: map[string]int64{"unspecified": 0}, Dropped: none, Unknown: metrics.OldestTerm},
			{Target: "orders", Unit: "keys", In: 107, Out: 60, Queued: 44 + 3, Retries: map[string]int64{"unspecified": 7}, Dropped: none, Unknown: metrics.OldestTerm},
		},
	}
	if got, want := slices.Sorted(maps.Keys(presets)), slices.Sorted(maps.Keys(tests)); !slices.Equal(got, want) {
		t.Fatalf("the presets are %v, want %v: each has a capture", got, want)
	}
	for preset, want := range tests {
		for i := range want {
			want[i].Service, want[i].Name = "worker", "work"
		}
		m := &mapping{Pipeline: Pipeline{Name: "work", Neighbour: "worker", Preset: preset}.whole()}
		m.take(at, captured(t, preset))
		if diff := cmp.Diff(want, m.pipelines()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", preset, diff)
		}
		// What was carried is found by the balance; here it is known to be nothing.
		for _, s := range m.pipelines() {
			if b, known := s.Balance(); known != s.Has(outQueued) || b != 0 && known {
				t.Errorf("%s of %s: balance %d (%t), want 0 where in and drops are known", preset, s.Target, b, known)
			}
		}
	}
}

func TestWhatIsGivenBesideAPresetCounts(t *testing.T) {
	own := Pipeline{Name: "work", Neighbour: "worker", Preset: "celery", Unit: "mails", Target: "name", Carried: &Term{none: true}, In: &Term{unknown: true}, Oldest: ofSeries("age_seconds")}
	got := own.whole()
	preset := presets["celery"]
	want := Pipeline{
		Name: "work", Neighbour: "worker", Preset: "celery", Unit: "mails", Target: "name", Carried: own.Carried, In: own.In, Oldest: own.Oldest,
		Out: preset.Out, Queued: preset.Queued, Retries: preset.Retries, Drops: preset.Drops,
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(), cmp.AllowUnexported(Term{}, Selection{})); diff != "" {
		t.Errorf("pipeline (-want +got):\n%s", diff)
	}
	if got := (Pipeline{}).whole().Unit; got != "items" {
		t.Errorf("without a preset the unit is %q, want items", got)
	}
}

func TestCeleryThatDoesNotTellWhatWasSent(t *testing.T) {
	fams := slices.Clone(captured(t, "celery"))
	i := slices.IndexFunc(fams, func(f metrics.Family) bool { return f.Desc.Name == "celery_task_sent_total" })
	sent := fams[i]
	m := &mapping{Pipeline: Pipeline{Name: "work", Neighbour: "worker", Preset: "celery"}.whole()}
	for name, points := range map[string][]metrics.Point{
		"no series":  nil,
		"a series 0": {{Tags: slices.Clone(sent.Points[0].Tags)}},
	} {
		fams[i].Points = points
		m.take(time.Now(), fams)
		for _, s := range m.pipelines() {
			if _, known := s.Balance(); s.Has(metrics.InTerm) || known || !s.Has(metrics.OutTerm|metrics.QueuedTerm) {
				t.Errorf("%s, %s: unknown are %b, want only what came in, the balance and ages", name, s.Target, s.Unknown)
			}
		}
	}
}
