//go:build !race

package index_test

// slowdown is none without the race detector.
const slowdown = 1
