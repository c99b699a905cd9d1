package authorizer

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// resource names an authorizer among all that can have tags.
func (s *Service) resource(account fleet.Account, name string) fleet.ARN {
	return fleet.ARN{Scope: s.scope(account), Kind: fleet.ARNAuthorizer, Name: name}
}

// TagFinders prove the existence of authorizers, which can have tags.
func (s *Service) TagFinders() map[string]tag.Finder {
	return map[string]tag.Finder{fleet.ARNAuthorizer: func(ctx context.Context, account fleet.Account, name string) (store.Expect, error) {
		found, err := s.Describe(ctx, account, name)
		return store.Expect{Key: authorizerKey(account, name), Version: found.version}, err
	}}
}
