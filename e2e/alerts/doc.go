// Package alerts tests rendered alerts and dashboards against the programs that read them: Prometheus, Alertmanager and Nagios.
//
// `make e2e` runs install.sh, which gets them. Where one is missing its tests are
// skipped; in CI, and with OUTRIDER_E2E set, they fail.
package alerts
