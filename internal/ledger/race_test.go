//go:build race

package ledger

// slowdown shortens the random runs under the race detector.
const slowdown = 10
