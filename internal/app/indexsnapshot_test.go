package app

import (
	"context"
	"os"
	"testing"

	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/registry"
)

// A start after a change of index.default-off has the index that the setting asks
// for, though the stop before left a snapshot of another one.
func TestDefaultOfIndexingChangesAtARestart(t *testing.T) {
	t.Parallel()
	s := settings(t)
	for _, off := range []bool{true, false, true} {
		s.Index.DefaultOff = off
		a := newApp(t, s)
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		account := a.settings.AccountID
		if _, err := a.registry.CreateThing(t.Context(), account, registry.CreateThingCommand{Name: "t"}); err != nil {
			t.Fatal(err)
		}
		head, err := a.store.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := a.index.WaitApplied(t.Context(), head); err != nil {
			t.Fatal(err)
		}
		config, err := a.registry.IndexingConfiguration(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		want := index.Active
		if off {
			want = ""
		}
		things, groups := a.index.StatusOf(account, &config)
		if indexed := a.index.Indexing(account); things != want || groups != want || indexed.Things.Registry == off {
			t.Errorf("with default-off %v the indexes are %q and %q, and things are indexed: %v", off, things, groups, indexed.Things.Registry)
		}
		if err := a.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(a.dir.Path(datadir.IndexDir, snapshotFile)); err != nil {
			t.Error(err)
		}
	}
}
