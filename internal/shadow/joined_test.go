package shadow

import (
	"errors"
	"testing"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// What another domain keeps is in the commit of the update; when it refuses, or
// when what it expects is not so, there is no update.
func TestUpdateWithWhatAnotherDomainKeeps(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	f := New(Options{Store: m, Now: fixed})
	update := func(body string, joined func(*Updated) (store.Batch, error)) error {
		_, err := f.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: "pump", Body: []byte(body), Joined: joined})
		return err
	}
	k := store.K("beside", "1")
	joined := func(u *Updated) (store.Batch, error) {
		return store.Batch{
			Expect: []store.Expect{{Key: k}},
			Writes: []store.Write{{Key: k, Value: []byte(string(u.DesiredBefore()) + ">" + string(u.DesiredAfter()))}},
		}, nil
	}
	if err := update(`{"state":{"desired":{"a":1.50}}}`, nil); err != nil {
		t.Fatal(err)
	}
	if err := update(`{"state":{"desired":{"a":null,"b":2}}}`, joined); err != nil {
		t.Fatal(err)
	}
	if kept, err := m.Get(t.Context(), k); err != nil || string(kept.Value) != `{"a":1.50}>{"b":2}` {
		t.Errorf("kept %s, %v", kept.Value, err)
	}
	if err := update(`{"state":{"desired":{"b":3}}}`, joined); fault.CodeOf(err) != fault.Throttling {
		t.Errorf("an expectation that never holds: %v", err)
	}
	refused := errors.New("refused")
	if err := update(`{"state":{"desired":{"b":4}}}`, func(*Updated) (store.Batch, error) { return store.Batch{}, refused }); !errors.Is(err, refused) {
		t.Errorf("refused: %v", err)
	}
	d, err := f.Get(t.Context(), scriptAccount, "pump", "")
	if err != nil || d.Version != 2 || string(d.Desired()) != `{"b":2}` {
		t.Errorf("version %d, desired %s, %v", d.Version, d.Desired(), err)
	}
}

// Who decides by a document that a shared store no longer has is asked again about
// the one that it has.
func TestAnotherDomainDecidesByWhatIsStored(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed, Shared: true})
	other := New(Options{Store: m, Now: fixed, Shared: true})
	update(t, s, "pump-7", "", `{"state":{"desired":{"a":1}}}`)
	update(t, other, "pump-7", "", `{"state":{"desired":{"a":2}}}`)
	asked := 0
	_, err := s.Update(t.Context(), UpdateCommand{
		Account: scriptAccount, Thing: "pump-7", Body: []byte(`{"state":{"desired":{"b":1}}}`),
		Joined: func(u *Updated) (store.Batch, error) {
			asked++
			if string(u.DesiredBefore()) != `{"a":2}` {
				return store.Batch{}, errors.New("not what is stored")
			}
			return store.Batch{}, nil
		},
	})
	if err != nil || asked != 2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}
