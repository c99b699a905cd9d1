package tag

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Finder proves that a resource of one kind exists: it returns the version of
// the record that is gone when the resource is, or a ResourceNotFound fault.
type Finder func(ctx context.Context, account fleet.Account, name string) (store.Expect, error)

// Options are what a Service needs; all are required.
type Options struct {
	Store store.Store
	// Region is the one region of this installation, a part of every ARN.
	Region string
	Now    func() time.Time
	// Finders say which kinds of resources can have tags, by the kind in their
	// ARNs.
	Finders map[string]Finder
}

// Service changes and lists the tags of resources that there are. It is safe
// for concurrent use.
type Service struct {
	store   store.Store
	region  string
	now     func() time.Time
	finders map[string]Finder
	kinds   string
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Region == "" || o.Now == nil || len(o.Finders) == 0 {
		return nil, errors.New("tag options need Store, Region, Now and Finders")
	}
	return &Service{
		store: o.Store, region: o.Region, now: o.Now, finders: o.Finders,
		kinds: strings.Join(slices.Sorted(maps.Keys(o.Finders)), ", "),
	}, nil
}

// DefaultPage is the number of tags of a page.
const DefaultPage = 25

// Put sets tags on a resource; others stay as they are.
func (s *Service) Put(ctx context.Context, account fleet.Account, arn string, list []Tag) error {
	tags, err := Check(list)
	if err != nil {
		return err
	}
	return s.change(ctx, account, arn, func(present Set) (Set, event.TagsChanged, error) {
		after, changed := maps.Clone(present), event.TagsChanged{}
		if after == nil {
			after = Set{}
		}
		for key, value := range tags {
			if had, ok := after[key]; ok && had == value {
				continue
			}
			if changed.Set == nil {
				changed.Set = map[string]string{}
			}
			after[key], changed.Set[key] = value, value
		}
		if len(after) > MaxTags {
			return nil, changed, fault.New(fault.LimitExceeded, "a resource may have at most %d tags", MaxTags)
		}
		return after, changed, nil
	})
}

// Remove takes tags away; it is no error when they are not there.
func (s *Service) Remove(ctx context.Context, account fleet.Account, arn string, keys []string) error {
	if len(keys) > MaxTags {
		return fault.New(fault.InvalidRequest, "tagKeys must have at most %d entries", MaxTags)
	}
	for _, key := range keys {
		if err := checkKey("tagKeys", key); err != nil {
			return err
		}
	}
	return s.change(ctx, account, arn, func(present Set) (Set, event.TagsChanged, error) {
		after, changed := maps.Clone(present), event.TagsChanged{}
		for _, key := range keys {
			if _, had := after[key]; had {
				delete(after, key)
				changed.Removed = append(changed.Removed, key)
			}
		}
		slices.Sort(changed.Removed)
		return after, changed, nil
	})
}

// change decides on the tags of a resource and commits the answer with its
// event. A decision without a difference commits nothing.
func (s *Service) change(
	ctx context.Context, account fleet.Account, arn string, decide func(Set) (Set, event.TagsChanged, error),
) error {
	resource, find, err := s.resolve(account, arn)
	if err != nil {
		return err
	}
	return store.Attempt(ctx, s.store, func(ctx context.Context) (store.Batch, error) {
		exists, err := find(ctx, account, resource.Name)
		if err != nil {
			return store.Batch{}, err
		}
		present, version, err := Read(ctx, s.store, resource)
		if err != nil {
			return store.Batch{}, store.Fault(err)
		}
		after, changed, err := decide(present)
		if err != nil || len(changed.Set)+len(changed.Removed) == 0 {
			return store.Batch{}, err
		}
		changed.ResourceARN = text(resource)
		b := store.Batch{
			Expect: []store.Expect{exists, version},
			Events: []event.Envelope{{Account: account, At: s.now(), Actor: fleet.ActorFrom(ctx), Event: changed}},
		}
		return b, write(&b, resource, after)
	})
}

// List returns one page of a resource's tags in order of their keys, and the
// key that the next page begins after, empty on the last one.
func (s *Service) List(ctx context.Context, account fleet.Account, arn, after string) (page []Tag, next string, err error) {
	resource, find, err := s.resolve(account, arn)
	if err != nil {
		return nil, "", err
	}
	if _, err := find(ctx, account, resource.Name); err != nil {
		return nil, "", err
	}
	present, _, err := Read(ctx, s.store, resource)
	if err != nil {
		return nil, "", store.Fault(err)
	}
	for _, key := range slices.Sorted(maps.Keys(present)) {
		if after != "" && key <= after {
			continue
		}
		if len(page) == DefaultPage {
			return page, page[DefaultPage-1].Key, nil
		}
		page = append(page, Tag{Key: key, Value: present[key]})
	}
	return page, "", nil
}

// resolve returns the resource that an ARN names and how to find it.
func (s *Service) resolve(account fleet.Account, text string) (fleet.ARN, Finder, error) {
	resource, ok := fleet.ParseARN(text)
	if !ok || resource.Scope != (fleet.Scope{Region: s.region, Account: account}) {
		return fleet.ARN{}, nil, fault.New(fault.InvalidRequest, "resourceArn must be an ARN of this account and region")
	}
	find := s.finders[resource.Kind]
	if find == nil {
		return fleet.ARN{}, nil, fault.New(fault.InvalidRequest, "resourceArn: a resource of kind %s has no tags; these have: %s", resource.Kind, s.kinds)
	}
	return resource, find, nil
}
