package iot

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
)

const (
	// defaultFound and mostFound bound the page of a search; older clients ask
	// for up to 500.
	defaultFound = 100
	mostFound    = 500
)

// search is a checked search request.
type search struct {
	groups bool
	query  fleetquery.Query
	after  string
	limit  int
	filter []string
}

// searchRequest checks the members that do not depend on the index.
func (a *api) searchRequest(c *awsapi.Call, in *iotwire.SearchIndexInput) (search, error) {
	s := search{limit: defaultFound, filter: []string{value(in.IndexName), in.QueryString, value(in.QueryVersion)}}
	if in.QueryVersion != nil && *in.QueryVersion != registry.QueryVersion {
		return search{}, fault.New(fault.InvalidRequest, "queryVersion must be %s", registry.QueryVersion)
	}
	if in.MaxResults != nil {
		if s.limit = int(*in.MaxResults); s.limit > mostFound {
			return search{}, fault.New(fault.InvalidRequest, "maxResults must be at most %d", mostFound)
		}
	}
	var err error
	if s.after, err = c.PageKey(in.NextToken, s.filter...); err != nil {
		return search{}, err
	}
	switch name := value(in.IndexName); name {
	case "", registry.ThingIndex:
		s.query, err = a.Index.ParseThings(in.QueryString)
	case groupIndex:
		s.groups = true
		s.query, err = a.Index.ParseGroups(in.QueryString)
	default:
		err = noIndex(name)
	}
	return s, err
}

func (a *api) searchIndex(ctx context.Context, c *awsapi.Call, in *iotwire.SearchIndexInput) (*iotwire.SearchIndexOutput, error) {
	s, err := a.searchRequest(c, in)
	if err != nil {
		return nil, err
	}
	if s.groups {
		return a.searchGroups(ctx, c, s)
	}
	names, next, err := a.Index.Search(c.Account, s.query, s.after, s.limit)
	if err != nil {
		return nil, err
	}
	things, err := a.Registry.Things(ctx, c.Account, names)
	if err != nil {
		return nil, err
	}
	out := &iotwire.SearchIndexOutput{NextToken: c.NextToken(next, s.filter...), Things: make([]iotwire.ThingDocument, len(things))}
	shown := a.Index.Indexing(c.Account)
	reading, ctx := errgroup.WithContext(ctx)
	reading.SetLimit(searchReaders)
	for i, thing := range things {
		reading.Go(func() (err error) {
			out.Things[i], err = a.thingDocument(ctx, c, &shown.Things, thing)
			return err
		})
	}
	if err := reading.Wait(); err != nil {
		return nil, err //nolint:wrapcheck // as thingDocument says it
	}
	return out, nil
}

// searchReaders is how many documents of an answer are read at a time: each is
// two round trips where the store is another server.
const searchReaders = 4

// thingDocument reads what the answer shows of one thing, which is what is
// indexed. It is read after the search, so it may be newer than what matched.
func (a *api) thingDocument(ctx context.Context, c *awsapi.Call, shown *fleet.ThingIndexing, thing registry.Thing) (iotwire.ThingDocument, error) {
	var shadows []shadow.Document
	if shown.Shadows || shown.NamedShadows {
		all, err := a.Shadows.Documents(ctx, c.Account, thing.Name)
		if err != nil {
			return iotwire.ThingDocument{}, fmt.Errorf("read shadows of %q: %w", thing.Name, err)
		}
		shadows = slices.DeleteFunc(all, func(d shadow.Document) bool { return !shown.HasShadow(d.Shadow) })
	}
	d := document(thing, shadows)
	if shown.Connectivity {
		found, err := a.Connections.Connectivity(ctx, c.Account, thing.Name)
		if err != nil {
			return iotwire.ThingDocument{}, fmt.Errorf("read connectivity of %q: %w", thing.Name, err)
		}
		d.Connectivity = connectivity(found)
	}
	if shown.Violations {
		d.DeviceDefender = new(noViolations)
	}
	return d, nil
}

// noViolations is what a document says as long as nothing detects violations.
const noViolations = `{"violationCount":0}`

// searchGroups answers a search for groups.
func (a *api) searchGroups(ctx context.Context, c *awsapi.Call, s search) (*iotwire.SearchIndexOutput, error) {
	names, next, err := a.Index.SearchGroups(c.Account, s.query, s.after, s.limit)
	if err != nil {
		return nil, err
	}
	groups, err := a.Registry.Groups(ctx, c.Account, names)
	if err != nil {
		return nil, err
	}
	return &iotwire.SearchIndexOutput{
		NextToken: c.NextToken(next, s.filter...),
		ThingGroups: each(groups, func(g registry.Group) iotwire.ThingGroupDocument {
			return iotwire.ThingGroupDocument{
				ThingGroupName: &g.Name, ThingGroupID: &g.ID, ThingGroupDescription: optional(g.Description),
				Attributes: filled(g.Attributes), ParentGroupNames: each(g.Ancestors, func(name string) string { return name }),
			}
		}),
	}, nil
}
