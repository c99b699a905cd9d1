package registry

import (
	"context"
	"maps"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// resource names one of the account's resources.
func (a *attempt) resource(kind, name string) fleet.ARN {
	return fleet.ARN{Scope: a.scope, Kind: kind, Name: name}
}

// attachTags puts the tags of a new resource into its batch.
func (a *attempt) attachTags(kind, name string, tags tag.Set) error {
	origin := event.Envelope{Account: a.account, At: a.now, Actor: a.actor}
	return tag.Attach(&a.batch, origin, a.resource(kind, name), tags)
}

// removeTags takes the tags of a deleted resource along.
func (a *attempt) removeTags(kind, name string) { tag.Remove(&a.batch, a.resource(kind, name)) }

// hasTags tells whether a resource has these tags and no others, for a
// creation that is repeated. That makes no change, so nothing is expected.
func (a *attempt) hasTags(ctx context.Context, kind, name string, tags tag.Set) (bool, error) {
	present, _, err := tag.Read(ctx, a.reader, a.resource(kind, name))
	return maps.Equal(present, tags), err
}

// TagFinders prove the existence of the registry's resources that can have
// tags: thing types, groups, billing groups, policies and authorities.
func (s *Service) TagFinders() map[string]tag.Finder {
	return map[string]tag.Finder{
		fleet.ARNThingType:    s.finder(kindThingType, "thing type", fleet.ValidName),
		fleet.ARNThingGroup:   s.finder(kindGroup, "thing group", fleet.ValidName),
		fleet.ARNBillingGroup: s.finder(kindBillingGroup, "billing group", fleet.ValidName),
		fleet.ARNPolicy:       s.finder(kindPolicy, "policy", fleet.ValidPolicyName),
		fleet.ARNCACert:       s.finder(kindCACertificate, "CA certificate", fleet.ValidCertificateID),
	}
}

// finder finds resources of one kind; word is what people call it.
func (s *Service) finder(kind, word string, valid func(string) bool) tag.Finder {
	return func(ctx context.Context, account fleet.Account, name string) (store.Expect, error) {
		if !valid(name) {
			return store.Expect{}, fault.New(fault.InvalidRequest, "resourceArn: %q cannot be the name of a %s", name, word)
		}
		k := key(kind, account, name)
		found, err := s.store.GetMany(ctx, []store.Key{k})
		if err != nil {
			return store.Expect{}, store.Fault(err)
		}
		if found[0].Version == 0 {
			return store.Expect{}, notFound(word, name)
		}
		return store.Expect{Key: k, Version: found[0].Version}, nil
	}
}
