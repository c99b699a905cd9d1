package registry

import (
	"context"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// ListThingsFilter selects things; conditions that are set must all hold.
type ListThingsFilter struct {
	TypeName      string
	AttributeName string
	// AttributeValue is nil to select every thing that has the attribute.
	AttributeValue *string
	// ValueIsPrefix makes AttributeValue match the start of the value.
	ValueIsPrefix bool
}

// ListThings returns one page of things. Without a filter on attributes they
// are in order of name, with one in order of value and name, or of name where
// few things have the type that is asked for as well.
func (s *Service) ListThings(ctx context.Context, account fleet.Account, f ListThingsFilter, p Page) (Listed[Thing], error) {
	if err := checkListThings(f); err != nil {
		return Listed[Thing]{}, err
	}
	item := func(k store.Key, r *thingRecord) (Thing, bool) {
		if f.TypeName != "" && r.TypeName != f.TypeName {
			return Thing{}, false
		}
		if f.AttributeName != "" && !f.matches(r) {
			return Thing{}, false
		}
		return s.thing(account, k.Last(), r), true
	}
	owner := func(k store.Key) store.Key { return key(kindThing, account, k.Last()) }
	within, err := f.narrowest(ctx, s.store, account, p)
	if err != nil {
		return Listed[Thing]{}, store.Fault(err)
	}
	listed, err := listRecords[thingRecord](ctx, s.store, within, p, owner, item)
	return listed, store.Fault(err)
}

// narrowProbe and narrowProbes are how many rows are counted at first, and at
// most, to find the narrower range.
const (
	narrowProbe  = 50
	narrowProbes = 1000
)

// narrowest is a range of rows that has every match. With filters on type and
// attribute it is that of the type if that has few rows and fewer than the
// attribute; a page that follows another one stays with the range of that.
func (f ListThingsFilter) narrowest(ctx context.Context, r store.Reader, account fleet.Account, p Page) (store.Range, error) {
	rows := f.rows(account)
	if f.AttributeName == "" || f.TypeName == "" {
		return rows, nil
	}
	ofType := under(kindThingByType, account, f.TypeName)
	if after := store.Key(p.After); after != "" {
		if ofType.From <= after && after < ofType.To {
			return ofType, nil
		}
		return rows, nil
	}
	for limit := narrowProbe; limit <= narrowProbes; limit *= 4 {
		_, more, err := keysOf(ctx, r, rows, "", limit)
		if err != nil || !more {
			return rows, err
		}
		if _, more, err = keysOf(ctx, r, ofType, "", limit); err != nil || !more {
			return ofType, err
		}
	}
	return rows, nil
}

// checkListThings refuses filters that do not say what to match.
func checkListThings(f ListThingsFilter) error {
	if f.AttributeName == "" && f.AttributeValue != nil {
		return fault.New(fault.InvalidRequest, "attributeValue needs an attributeName")
	}
	if f.ValueIsPrefix && f.AttributeValue == nil {
		return fault.New(fault.InvalidRequest, "usePrefixAttributeValue needs an attributeValue")
	}
	if f.AttributeName != "" && !attributeNamePattern.MatchString(f.AttributeName) {
		return fault.New(fault.InvalidRequest, "attributeName must have 1 to 128 characters and match [a-zA-Z0-9_.,@/:#-]+")
	}
	if f.AttributeValue != nil && !attributeValuePattern.MatchString(*f.AttributeValue) {
		return fault.New(fault.InvalidRequest, `attributeValue must match [a-zA-Z0-9_.,@/:#=\[\]-]*`)
	}
	if f.TypeName != "" {
		return checkName("thingTypeName", f.TypeName)
	}
	return nil
}

// rows is the narrowest range of rows that has every match.
func (f ListThingsFilter) rows(account fleet.Account) store.Range {
	switch {
	case f.AttributeName != "" && f.AttributeValue == nil:
		return under(kindThingByAttribute, account, f.AttributeName)
	case f.AttributeName != "" && f.ValueIsPrefix:
		return withPrefix(kindThingByAttribute, account, *f.AttributeValue, f.AttributeName)
	case f.AttributeName != "":
		return under(kindThingByAttribute, account, f.AttributeName, *f.AttributeValue)
	case f.TypeName != "":
		return under(kindThingByType, account, f.TypeName)
	}
	return under(kindThing, account)
}

// matches reports whether the attribute still has a wanted value; the row was
// read a moment earlier than the record.
func (f ListThingsFilter) matches(r *thingRecord) bool {
	value, ok := r.Attributes[f.AttributeName]
	switch {
	case !ok || f.AttributeValue == nil:
		return ok
	case f.ValueIsPrefix:
		return strings.HasPrefix(value, *f.AttributeValue)
	}
	return value == *f.AttributeValue
}
