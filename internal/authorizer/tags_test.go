package authorizer

import (
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// Tags come with an authorizer, in its commit, and go with it.
func TestTagsOfAnAuthorizer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	service, err := tag.New(tag.Options{
		Store: r.engine, Region: "eu-local-1", Now: func() time.Time { return r.now }, Finders: r.TagFinders(),
	})
	if err != nil {
		t.Fatal(err)
	}
	const arn = "arn:aws:iot:eu-local-1:000000000001:authorizer/gate"
	c := CreateCommand{Name: "gate", FunctionARN: functionARN, SigningDisabled: true, Tags: []tag.Tag{{Key: "aws:a"}}}
	_, err = r.Create(ctx, account, c)
	wantCode(t, err, fault.InvalidRequest)
	wantCode(t, service.Put(ctx, account, arn, []tag.Tag{{Key: "a"}}), fault.ResourceNotFound)
	c.Tags = []tag.Tag{{Key: "a", Value: "1"}}
	if _, err := r.Create(ctx, account, c); err != nil {
		t.Fatal(err)
	}
	if err := service.Put(ctx, account, arn, []tag.Tag{{Key: "b", Value: "2"}}); err != nil {
		t.Fatal(err)
	}
	page, _, err := service.List(ctx, account, arn, "")
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, page, []tag.Tag{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}})
	envelopes, _, err := r.engine.Events(ctx, store.Cursor{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(envelopes) != 3 || envelopes[1].Account != account || !envelopes[1].At.Equal(r.now) {
		t.Fatal(envelopes)
	}
	wantEqual(t, envelopes[1].Event, event.Event(event.TagsChanged{ResourceARN: arn, Set: map[string]string{"a": "1"}}))
	if err := r.Delete(ctx, account, "gate"); err != nil {
		t.Fatal(err)
	}
	_, _, err = service.List(ctx, account, arn, "")
	wantCode(t, err, fault.ResourceNotFound)
	c.Tags = nil
	if _, err := r.Create(ctx, account, c); err != nil {
		t.Fatal(err)
	}
	if page, _, err = service.List(ctx, account, arn, ""); err != nil || len(page) > 0 {
		t.Fatal("the old authorizer's tags are back", page, err)
	}
}
