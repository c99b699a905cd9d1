package registry

import (
	"context"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/tag"
)

// tagged is a kind of resource that has tags.
type tagged struct {
	kind   string
	create func(ctx context.Context, r *rig, tags []tag.Tag) error
	delete func(ctx context.Context, r *rig) error
	// once says that a creation cannot be repeated.
	once bool
}

func taggedKinds() []tagged {
	return []tagged{
		{
			kind: fleet.ARNThingType,
			create: func(ctx context.Context, r *rig, tags []tag.Tag) error {
				_, err := r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "x", Tags: tags})
				return err
			},
			delete: func(ctx context.Context, r *rig) error {
				if err := r.DeprecateThingType(ctx, acct, "x", false); err != nil {
					return err
				}
				r.pass(DefaultLimits().TypeDeletionDelay)
				return r.DeleteThingType(ctx, acct, "x")
			},
		},
		{
			kind: fleet.ARNThingGroup,
			create: func(ctx context.Context, r *rig, tags []tag.Tag) error {
				_, err := r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "x", Tags: tags})
				return err
			},
			delete: func(ctx context.Context, r *rig) error { return r.DeleteThingGroup(ctx, acct, "x", nil) },
		},
		{
			kind: fleet.ARNThingGroup,
			create: func(ctx context.Context, r *rig, tags []tag.Tag) error {
				_, err := r.CreateDynamicThingGroup(ctx, acct, CreateDynamicThingGroupCommand{Name: "x", Query: "*", Tags: tags})
				return err
			},
			delete: func(ctx context.Context, r *rig) error { return r.DeleteDynamicThingGroup(ctx, acct, "x", nil) },
		},
		{
			kind: fleet.ARNBillingGroup,
			create: func(ctx context.Context, r *rig, tags []tag.Tag) error {
				_, err := r.CreateBillingGroup(ctx, acct, CreateBillingGroupCommand{Name: "x", Tags: tags})
				return err
			},
			delete: func(ctx context.Context, r *rig) error { return r.DeleteBillingGroup(ctx, acct, "x", nil) },
		},
		{
			kind: fleet.ARNPolicy, once: true,
			create: func(ctx context.Context, r *rig, tags []tag.Tag) error {
				_, err := r.CreatePolicy(ctx, acct, "x", "{}", tags...)
				return err
			},
			delete: func(ctx context.Context, r *rig) error { return r.DeletePolicy(ctx, acct, "x") },
		},
	}
}

// Tags come with the creation, in its commit, decide whether it is repeated,
// and go with the resource.
func TestTagsOfTheRegistry(t *testing.T) {
	t.Parallel()
	for _, k := range taggedKinds() {
		r := newRig(t)
		ctx := t.Context()
		arn := r.scope(acct).ARN(k.kind, "x")
		service, err := tag.New(tag.Options{Store: r.store, Region: "us-east-1", Now: r.now, Finders: r.TagFinders()})
		if err != nil {
			t.Fatal(err)
		}
		tags := []tag.Tag{{Key: "a", Value: "1"}}
		wantCode(t, service.Put(ctx, acct, arn, tags), fault.ResourceNotFound)
		wantCode(t, k.create(ctx, r, []tag.Tag{{Key: "aws:a"}}), fault.InvalidRequest)
		ok(t, k.create(ctx, r, tags))
		log := r.store.envelopes()
		last := log[len(log)-1]
		wantEqual(t, last.Event, event.Event(event.TagsChanged{ResourceARN: arn, Set: map[string]string{"a": "1"}}))
		wantEqual(t, last.At, start)
		if k.once {
			wantCode(t, k.create(ctx, r, tags), fault.ResourceAlreadyExists)
		} else {
			ok(t, k.create(ctx, r, tags))
			wantEqual(t, len(r.store.envelopes()), len(log))
			wantCode(t, k.create(ctx, r, nil), fault.ResourceAlreadyExists)
			wantCode(t, k.create(ctx, r, []tag.Tag{{Key: "a", Value: "2"}}), fault.ResourceAlreadyExists)
			ok(t, service.Put(ctx, acct, arn, []tag.Tag{{Key: "b"}}))
			wantCode(t, k.create(ctx, r, tags), fault.ResourceAlreadyExists)
			ok(t, k.create(ctx, r, append(tags, tag.Tag{Key: "b"})))
		}
		ok(t, k.delete(ctx, r))
		_, _, err = service.List(ctx, acct, arn, "")
		wantCode(t, err, fault.ResourceNotFound)
		for _, left := range r.store.left() {
			if strings.HasPrefix(left, "tags") {
				t.Errorf("%s: %s stayed behind", k.kind, left)
			}
		}
		wantCode(t, service.Put(ctx, acct, r.scope(acct).ARN(k.kind, "a\x00b"), tags), fault.InvalidRequest)
	}
}
