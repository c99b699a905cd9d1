package registry

import (
	"context"
	"fmt"
	"testing"

	"github.com/muster-iot/muster/internal/store"
)

// countingReader counts the scans of a list and their rows.
type countingReader struct {
	store.Store

	scans, rows int
}

func (c *countingReader) Scan(ctx context.Context, within store.Range, fn func(store.Record) error) error {
	c.scans++
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

// A page for which many rows are looked at takes few looks, however small it
// is, and ends where it is full.
func TestListThingsLooksFarther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	counting := &countingReader{Store: r.store}
	r.Service.store = counting
	for _, name := range []string{"Odd", "Even"} {
		must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: name}))
	}
	var lines []ThingImport
	for i := range 1000 {
		lines = append(lines, line(fmt.Sprintf("t%04d", i), []string{"Even", "Odd"}[i/900], map[string]string{"site": "x"}))
	}
	for i := range 1000 { // both are common
		lines = append(lines, line(fmt.Sprintf("u%04d", i), "Odd", map[string]string{"site": "y"}))
	}
	r.outcomes(t, ImportCreate, lines[:1000]...)
	r.outcomes(t, ImportCreate, lines[1000:]...)
	site := "x"
	list := func(p Page) Listed[Thing] {
		return must[Listed[Thing]](t)(r.ListThings(t.Context(), acct, ListThingsFilter{TypeName: "Odd", AttributeName: "site", AttributeValue: &site}, p))
	}
	counting.scans = 0
	page := list(Page{Limit: 1})
	wantEqual(t, len(page.Items), 1)
	wantEqual(t, page.Items[0].Name, "t0900")
	if counting.scans > 25 {
		t.Errorf("%d scans", counting.scans)
	}
	page = list(Page{Limit: 2, After: page.Next})
	wantEqual(t, []string{page.Items[0].Name, page.Items[1].Name}, []string{"t0901", "t0902"})
}
