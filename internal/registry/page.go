package registry

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/store"
)

// DefaultPage is the number of items of a page when the caller names none.
const DefaultPage = 25

// maxRowsPerPage bounds the rows that one page looks at when few of them match
// its filters. The page is then shorter than asked for and not the last.
const maxRowsPerPage = 10_000

// maxLook bounds the rows of one look.
const maxLook = 1000

// Page asks for a part of a list.
type Page struct {
	// After is the Next of the previous page, empty for the first.
	After string
	// Limit is the most items to return; DefaultPage when 0.
	Limit int
}

// size is the limit in force.
func (p Page) size() int {
	if p.Limit <= 0 {
		return DefaultPage
	}
	return p.Limit
}

// Listed is one page of a list.
type Listed[T any] struct {
	Items []T
	// Next goes into the After of the next page; empty on the last one.
	Next string
}

// keysOf scans up to limit keys of a range behind the page's start and tells
// whether there are more.
func keysOf(ctx context.Context, r store.Reader, within store.Range, after string, limit int) (keys []store.Key, more bool, err error) {
	if after != "" {
		within = within.After(store.Key(after))
	}
	err = r.Scan(ctx, within, func(record store.Record) error {
		if len(keys) == limit {
			more = true
			return store.Stop
		}
		keys = append(keys, record.Key)
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("scan %s: %w", within.From, err)
	}
	return keys, more, nil
}

// listKeys returns one page of a range, one item for each key.
func listKeys[T any](ctx context.Context, r store.Reader, within store.Range, p Page, item func(store.Key) T) (Listed[T], error) {
	keys, more, err := keysOf(ctx, r, within, p.After, p.size())
	if err != nil {
		return Listed[T]{}, err
	}
	listed := Listed[T]{Items: make([]T, len(keys))}
	for i, k := range keys {
		listed.Items[i] = item(k)
	}
	if more {
		listed.Next = string(keys[len(keys)-1])
	}
	return listed, nil
}

// listRecords returns one page of the records that the keys of a range lead
// to. recordOf names the record's key; item turns key and record into an item,
// or says that the filters leave it out.
func listRecords[R, T any, P stored[R]](
	ctx context.Context, r store.Reader, within store.Range, p Page,
	recordOf func(store.Key) store.Key, item func(store.Key, *R) (T, bool),
) (Listed[T], error) {
	listed, after, seen := Listed[T]{}, p.After, 0
	// Where few rows match, ever more of them are read at once: each look is a
	// round trip or two where the store is another server.
	for look := p.size(); ; look = min(2*look, max(maxLook, p.size())) {
		keys, more, err := keysOf(ctx, r, within, after, look)
		if err != nil {
			return Listed[T]{}, err
		}
		owners := make([]store.Key, len(keys))
		for i, k := range keys {
			owners[i] = recordOf(k)
		}
		records, _, err := getMany[R, P](ctx, r, owners)
		if err != nil {
			return Listed[T]{}, err
		}
		for i, k := range keys {
			after = string(k)
			if records[i] == nil {
				continue
			}
			made, ok := item(k, records[i])
			if !ok {
				continue
			}
			listed.Items = append(listed.Items, made)
			if len(listed.Items) == p.size() && (more || i < len(keys)-1) {
				listed.Next = after
				return listed, nil
			}
		}
		seen += len(keys)
		if !more {
			return listed, nil
		}
		if seen >= maxRowsPerPage {
			listed.Next = after
			return listed, nil
		}
	}
}

// listNames returns one page of an ordered list held in memory.
func listNames(names []string, p Page) Listed[string] {
	start := 0
	for start < len(names) && p.After != "" && names[start] <= p.After {
		start++
	}
	rest := names[start:]
	if len(rest) <= p.size() {
		return Listed[string]{Items: rest}
	}
	rest = rest[:p.size()]
	return Listed[string]{Items: rest, Next: rest[len(rest)-1]}
}
