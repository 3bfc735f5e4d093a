// Package neighbours tests that programs of others become pipelines without a line of code in them.
//
// Run `e2e/neighbours/install.sh` once: it fetches what the tests start. Without it
// they are skipped; in CI, and with OUTRIDER_E2E set, they fail.
package neighbours
