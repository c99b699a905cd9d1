package registry

import (
	"context"
	"fmt"
	"testing"

	"github.com/muster-iot/muster/internal/store"
)

// countingReader counts the rows of a list's scans.
type countingReader struct {
	store.Store

	rows int
}

func (c *countingReader) Scan(ctx context.Context, within store.Range, fn func(store.Record) error) error {
	return c.Store.Scan(ctx, within, func(r store.Record) error {
		c.rows++
		return fn(r)
	})
}

// A rare type is found without a look at all things with a common attribute,
// and the pages hang together although the type becomes common meanwhile.
func TestListThingsByRareType(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	counting := &countingReader{Store: r.store}
	r.Service.store = counting
	for _, name := range []string{"Rare", "Common"} {
		must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: name}))
	}
	var lines []ThingImport
	for i := range 1000 {
		typeName := "Common"
		if i%100 == 7 {
			typeName = "Rare"
		}
		lines = append(lines, line(fmt.Sprintf("t%04d", i), typeName, map[string]string{"site": "x"}))
	}
	r.outcomes(t, ImportCreate, lines...)
	site := "x"
	list := func(p Page) Listed[Thing] {
		return must[Listed[Thing]](t)(r.ListThings(t.Context(), acct, ListThingsFilter{TypeName: "Rare", AttributeName: "site", AttributeValue: &site}, p))
	}
	counting.rows = 0
	first := list(Page{Limit: 4})
	if len(first.Items) != 4 || counting.rows > 200 {
		t.Errorf("%d things after a look at %d rows", len(first.Items), counting.rows)
	}
	for i := range lines {
		lines[i].TypeName = "Rare"
	}
	r.outcomes(t, ImportUpsert, lines...)
	names, after := []string{}, first.Next
	for after != "" {
		page := list(Page{After: after, Limit: 100})
		for _, thing := range page.Items {
			names = append(names, thing.Name)
		}
		after = page.Next
	}
	// Behind t0307, all that have the type by now.
	wantEqual(t, len(names), 1000-308)
	wantEqual(t, names[0], "t0308")
	wantEqual(t, names[len(names)-1], "t0999")
}
