//go:build race

package index_test

// slowdown shortens the random runs under the race detector.
const slowdown = 10
