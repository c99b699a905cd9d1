package shadow

import (
	"encoding/json"

	"github.com/muster-iot/muster/internal/store"
)

// DesiredBefore and DesiredAfter are the desired state around the update, {}
// for none.
func (u *Updated) DesiredBefore() json.RawMessage { return appendMembers(nil, u.before.desired) }

// DesiredAfter is the desired state that the update left.
func (u *Updated) DesiredAfter() json.RawMessage { return appendMembers(nil, u.after.desired) }

// joining returns what adds another domain's part to the batch, nil for none.
func (u *Updated) joining(joined func(*Updated) (store.Batch, error)) func(*store.Batch) error {
	if joined == nil {
		return nil
	}
	return func(b *store.Batch) error {
		more, err := joined(u)
		if err != nil {
			return err
		}
		b.Expect = append(b.Expect, more.Expect...)
		b.Writes = append(b.Writes, more.Writes...)
		return nil
	}
}
