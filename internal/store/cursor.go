package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Cursor marks how far a reader has come in each partition of the event log.
// The zero value is the beginning. It is a value: methods return new ones.
type Cursor struct {
	// at is ordered by partition and holds no zero sequence.
	at []Position
}

// CursorAt returns a cursor that covers exactly the given positions.
func CursorAt(positions ...Position) Cursor {
	var c Cursor
	for _, p := range positions {
		c = c.Advance(p)
	}
	return c
}

// Seq returns the last covered sequence of a partition, 0 for none.
func (c Cursor) Seq(partition uint32) uint64 {
	for _, p := range c.at {
		if p.Partition == partition {
			return p.Seq
		}
	}
	return 0
}

// Covers reports whether the reader has seen the position.
func (c Cursor) Covers(p Position) bool { return c.Seq(p.Partition) >= p.Seq }

// CoversAll reports whether the reader has seen everything that o has.
func (c Cursor) CoversAll(o Cursor) bool {
	for _, p := range o.at {
		if !c.Covers(p) {
			return false
		}
	}
	return true
}

// Advance returns the cursor moved up to p; it never moves back.
func (c Cursor) Advance(p Position) Cursor {
	if c.Covers(p) {
		return c
	}
	at := slices.Clone(c.at)
	i, found := slices.BinarySearchFunc(at, p.Partition, func(e Position, id uint32) int {
		return int(int64(e.Partition) - int64(id))
	})
	if found {
		at[i].Seq = p.Seq
	} else {
		at = slices.Insert(at, i, p)
	}
	return Cursor{at: at}
}

// String returns the durable form, "partition:sequence" pairs with commas.
func (c Cursor) String() string {
	parts := make([]string, len(c.at))
	for i, p := range c.at {
		parts[i] = strconv.FormatUint(uint64(p.Partition), 10) + ":" + strconv.FormatUint(p.Seq, 10)
	}
	return strings.Join(parts, ",")
}

// ParseCursor reverses String.
func ParseCursor(text string) (Cursor, error) {
	var c Cursor
	if text == "" {
		return c, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		id, seq, ok := strings.Cut(pair, ":")
		if !ok {
			return Cursor{}, fmt.Errorf("parse cursor: %q is not partition:sequence", pair)
		}
		partition, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return Cursor{}, fmt.Errorf("parse cursor: %w", err)
		}
		n, err := strconv.ParseUint(seq, 10, 64)
		if err != nil {
			return Cursor{}, fmt.Errorf("parse cursor: %w", err)
		}
		c = c.Advance(Position{Partition: uint32(partition), Seq: n})
	}
	return c, nil
}

// Behind returns how many events c has still to see to come as far as o.
func (c Cursor) Behind(o Cursor) uint64 {
	var total uint64
	for _, p := range o.at {
		if seen := c.Seq(p.Partition); seen < p.Seq {
			total += p.Seq - seen
		}
	}
	return total
}
