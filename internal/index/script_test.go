package index_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery/fleetquerytest"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// TestLanguage runs the scripts of the query language against the index.
func TestLanguage(t *testing.T) {
	t.Parallel()
	fleetquerytest.Run(t, "../fleetquery/testdata", true, func(t *testing.T, s fleetquerytest.Suite) fleetquerytest.Search {
		t.Helper()
		x := scripted(t, s)
		if len(s.Groups) > 0 {
			return func(text string) ([]string, error) {
				q, err := x.ParseGroups(text)
				if err != nil {
					return nil, err
				}
				names, _, err := x.SearchGroups(account, q, "", 1000)
				return names, err
			}
		}
		return func(text string) ([]string, error) {
			q, err := x.ParseThings(text)
			if err != nil {
				return nil, err
			}
			names, _, err := x.Search(account, q, "", 1000)
			return names, err
		}
	})
}

// scripted builds an index of a script's documents.
func scripted(t *testing.T, s fleetquerytest.Suite) *index.Index {
	t.Helper()
	x := index.New(index.Options{Committer: &discard{}, Source: &discard{}, Logger: slog.New(slog.DiscardHandler)})
	b := x.Build()
	config := fleet.DefaultIndexing()
	config.Things.GeoLocations = s.Places
	b.PutIndexing(account, config)
	for _, g := range s.Groups {
		b.PutGroup(account, index.Group{Name: g.Name, ID: g.ID, Description: g.Description, Attributes: g.Attributes, Ancestors: g.Parents, Version: 1})
	}
	for _, thing := range s.Things {
		v := index.Thing{Name: thing.Name, ID: thing.ID, TypeName: thing.TypeName, Attributes: thing.Attributes, Version: 1}
		if err := b.PutThing(account, v, thing.Groups, stateOf(&thing)); err != nil {
			t.Fatal(err)
		}
		for _, c := range thing.Certificates {
			b.PutCertificate(account, thing.Name, index.Certificate{Status: c.Status, NotAfter: time.UnixMilli(c.NotAfter)})
		}
	}
	if err := b.Finish(t.Context(), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	return x
}

// stateOf is a thing's state in the index's form.
func stateOf(thing *fleetquerytest.Thing) index.State {
	var state index.State
	add := func(name string, s fleetquerytest.Shadow) {
		state.Shadows = append(state.Shadows, index.Shadow{
			Name: name, Version: 1, Desired: s.Desired, Reported: s.Reported, Delta: s.Delta, Metadata: s.Metadata,
		})
	}
	if s := thing.Shadow; s != nil {
		if s.Desired != nil || s.Reported != nil {
			add("", *s)
		}
		for name, named := range s.Named {
			add(name, named)
		}
	}
	if c := thing.Connectivity; c != nil {
		state.Connectivity = &index.Connectivity{
			Connected: c.Connected, TimestampMS: c.Timestamp, Version: 1, Reason: c.Reason,
			KeepAlive: c.KeepAlive, CleanSession: c.CleanSession, SessionExpiry: c.SessionExpiry,
		}
	}
	return state
}
