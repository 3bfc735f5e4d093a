// Package verdicts tests the agent's checks and its digest against the programs that run and poll such things: Nagios, its plugins, and Datadog's OpenMetrics check.
//
// `make e2e` runs install.sh, which gets them. Where one is missing its tests are
// skipped; in CI, and with OUTRIDER_E2E set, they fail.
package verdicts
