// Package series tests what the built agent does with series against real servers: Prometheus, VictoriaMetrics, statsd_exporter and Datadog's OpenMetrics check.
//
// `make e2e` runs install.sh, which gets them. Where one is missing its tests are
// skipped; in CI, and with OUTRIDER_E2E set, they fail.
package series
