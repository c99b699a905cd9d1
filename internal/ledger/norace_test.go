//go:build !race

package ledger

// slowdown is none without the race detector.
const slowdown = 1
