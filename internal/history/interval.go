package history

import (
	"math/bits"
	"time"
)

// Ended connections are found by time through a binary tree over the
// milliseconds since 1970 that exists in arithmetic only: a number's level is
// its count of trailing zero bits, and below a number of level k lie all that
// are closer to it than 2^k. A connection is filed under the highest number
// of its interval. Whatever interval holds an instant is then filed under one
// of the at most levels numbers above that instant.

// levels is the height of the tree; it reaches to the year 2109.
const levels = 42

// maxMillis is the end of the tree.
const maxMillis = int64(1)<<levels - 1

// millis is a time in the tree's unit, kept within it.
func millis(t time.Time) int64 { return min(max(t.UnixMilli(), 1), maxMillis) }

// fork is the highest number in [first, last].
func fork(first, last int64) int64 {
	k := bits.Len64(uint64((first-1)^last)) - 1
	return last >> k << k
}

// path lists the numbers under which intervals with the instant can be filed,
// from the instant up.
func path(instant int64) []int64 {
	var nodes []int64
	for k := bits.TrailingZeros64(uint64(instant)); k < levels; k++ {
		nodes = append(nodes, instant>>(k+1)<<(k+1)|int64(1)<<k)
	}
	return nodes
}
