package index

import (
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
)

// page returns up to limit names of a set, in order of names, that come after
// the given one, and whether there are more.
func (c *corpus) page(set *roaring.Bitmap, after string, limit int) ([]string, bool) {
	found := int(set.GetCardinality())
	if found == 0 || limit <= 0 {
		return nil, found > 0
	}
	// Walking the ordered names passes about one hit in every live/found;
	// sorting the hits costs some steps for each of them.
	const stepsPerHit = 16
	var ids []uint32
	if walk := limit * int(c.live.GetCardinality()) / found; found*stepsPerHit < walk {
		ids = c.gather(set, after)
	} else {
		ids = c.walk(set, after, limit+1)
	}
	slices.SortFunc(ids, func(a, b uint32) int { return strings.Compare(c.names.text(a), c.names.text(b)) })
	more := len(ids) > limit
	if more {
		ids = ids[:limit]
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = strings.Clone(c.names.text(id))
	}
	return names, more
}

// gather returns all documents of a set whose names come after the given one.
func (c *corpus) gather(set *roaring.Bitmap, after string) []uint32 {
	var ids []uint32
	for it := set.Iterator(); it.HasNext(); {
		if id := it.Next(); c.names.text(id) > after {
			ids = append(ids, id)
		}
	}
	return ids
}

// probedSteps is how many names a walk looks up in the set as it is. A longer
// walk pays for a plain bit array first, in which a step costs a nanosecond or
// two instead of some twenty: hits may all stand at the end of the names.
const probedSteps = 1024

// walk returns the first hits in the order of names, and all hits among the
// names that are not in order yet.
func (c *corpus) walk(set *roaring.Bitmap, after string, limit int) []uint32 {
	ids := make([]uint32, 0, limit)
	ordered := c.names.sorted[c.names.search(after):]
	if len(ordered) > 0 && c.names.text(ordered[0]) == after {
		ordered = ordered[1:]
	}
	probed := ordered[:min(probedSteps, len(ordered))]
	for _, id := range probed {
		if set.Contains(id) {
			if ids = append(ids, id); len(ids) == limit {
				break
			}
		}
	}
	if rest := ordered[len(probed):]; len(ids) < limit && len(rest) > 0 {
		ids = walkDense(set.ToDense(), rest, ids, limit)
	}
	for _, id := range c.names.tail {
		if set.Contains(id) && c.names.text(id) > after {
			ids = append(ids, id)
		}
	}
	return ids
}

// walkDense appends the documents whose bit is set until there are limit.
func walkDense(bits []uint64, ordered, ids []uint32, limit int) []uint32 {
	for _, id := range ordered {
		if at := int(id / 64); at < len(bits) && bits[at]>>(id%64)&1 == 1 {
			if ids = append(ids, id); len(ids) == limit {
				break
			}
		}
	}
	return ids
}
