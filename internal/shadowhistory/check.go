package shadowhistory

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// Check compares the newest version that the history has of each shadow with
// the shadow itself, in the state that r shows: the consumer must have come as
// far. A shadow without history is no difference, for it may be trimmed; nor is
// a document that cannot be told. It returns how many documents it made.
func (s *Service) Check(ctx context.Context, r store.Reader, report func(of shadow.Document, detail string)) (compared int, err error) {
	err = shadow.EachShadow(ctx, r, "", func(d shadow.Document) error {
		of := subject{d.Account, d.Thing, d.Shadow}
		newest, err := newestIn(ctx, r, of)
		if err != nil || newest == nil {
			return err
		}
		if newest.Deleted || newest.Version != d.Version {
			report(d, fmt.Sprintf("the shadow has version %d, the newest in its history is %d, deleted: %t", d.Version, newest.Version, newest.Deleted))
			return nil
		}
		was, err := s.find(ctx, r, of, d.Version)
		if err != nil || was.document == nil {
			return err
		}
		compared++
		if have, want := was.document.GetDocument("", 0), d.GetDocument("", 0); string(have) != string(want) {
			report(d, fmt.Sprintf("the history makes %s of version %d, the shadow is %s", have, d.Version, want))
		}
		return nil
	})
	if err != nil {
		return compared, fmt.Errorf("check shadow history: %w", err)
	}
	return compared, nil
}
