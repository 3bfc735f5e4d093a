// Package house tests the rules of the house: what docs/design.md and the contributor's guide promise about the code itself.
//
// A rule is a function from a tree to what breaks it, so that every rule is
// seen to fail on a small tree written for it (TestEveryRuleCanFail) before
// TestHouse holds the real one to it. What a linter can find is left to
// .golangci.yml.
package house
