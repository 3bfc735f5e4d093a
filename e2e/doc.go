// Package e2e tests the built command against real servers: a real API server, scheduler and controllers, with a stand-in for the kubelets.
//
// `make e2e` builds what it needs and sets DEVCLUSTER to the binary of
// e2e/cluster. Without it the tests are skipped, in CI they fail.
package e2e
