//go:build race

package history

// underRace says that the race detector makes everything ten times as slow.
const underRace = true
