package account

import (
	"context"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// User is an operator with a name.
type User struct {
	Name, ID, ARN string
	CreatedAt     time.Time
	Groups        []string
	Policies      []string
	// Inline are the names of its inline policies.
	Inline []string
	Keys   []string
	// HasPassword says whether the user can sign in, MustChangePassword whether
	// the next sign-in needs a new one.
	HasPassword, MustChangePassword bool
	SessionsRevokedAt               time.Time
}

// userOf describes a record.
func userOf(account fleet.Account, r *userRecord) User {
	return User{
		Name: r.Name, ID: r.ID, ARN: iamARN(account, kindUser, r.Name), CreatedAt: r.CreatedAt,
		Groups: r.Groups, Policies: r.Policies, Inline: inlineNames(r.Inline), Keys: r.Keys,
		HasPassword: r.Password != nil, MustChangePassword: r.Password != nil && r.Password.MustChange, SessionsRevokedAt: r.RevokedAt,
	}
}

// CreateUser makes a user that may do nothing yet.
func (s *Service) CreateUser(ctx context.Context, account fleet.Account, name string) (User, error) {
	var made User
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		o, err := a.create(ctx, kindUser, name, prefixUser, maxUsers)
		if err != nil {
			return err
		}
		record := &userRecord{owner: o}
		made = userOf(account, record)
		a.emit(event.OperatorUser, name, "CREATED")
		return a.save(kindUser, name, record)
	})
	return made, err
}

// User describes one user.
func (s *Service) User(ctx context.Context, account fleet.Account, name string) (User, error) {
	record, err := find[userRecord](ctx, s.options.Store, account, kindUser, name)
	if err != nil {
		return User{}, err
	}
	return userOf(account, record), nil
}

// Users lists users in order of their names, after one of them.
func (s *Service) Users(ctx context.Context, account fleet.Account, after string, limit int) ([]User, string, error) {
	records, next, err := list[userRecord](ctx, s.options.Store, account, kindUser, after, limit)
	users := make([]User, len(records))
	for i, r := range records {
		users[i] = userOf(account, r)
	}
	return users, next, err
}

// DeleteUser removes a user with its keys, memberships and attachments. Its
// sessions are void.
func (s *Service) DeleteUser(ctx context.Context, account fleet.Account, name string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := find[userRecord](ctx, s.options.Store, account, kindUser, name)
		if err != nil {
			return err
		}
		for _, id := range record.Keys {
			a.remove(store.K(keyAccessKey, id))
			a.remove(store.K(keyUsed, id))
			a.emit(event.OperatorAccessKey, id, "DELETED")
		}
		for _, group := range record.Groups {
			a.remove(store.K(keyMember, string(account), group, name))
		}
		a.unlink(&record.owner, kindUser)
		a.remove(operatorKey(account, kindUser, name))
		a.emit(event.OperatorUser, name, "DELETED")
		return nil
	})
}

// Group is a set of users that share policies.
type Group struct {
	Name, ID, ARN    string
	CreatedAt        time.Time
	Policies, Inline []string
	// Users are the members; lists leave them out.
	Users []string
}

// groupOf describes a record.
func groupOf(account fleet.Account, r *groupRecord) Group {
	return Group{
		Name: r.Name, ID: r.ID, ARN: iamARN(account, kindGroup, r.Name), CreatedAt: r.CreatedAt,
		Policies: r.Policies, Inline: inlineNames(r.Inline),
	}
}

// CreateGroup makes an empty group.
func (s *Service) CreateGroup(ctx context.Context, account fleet.Account, name string) (Group, error) {
	var made Group
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		o, err := a.create(ctx, kindGroup, name, prefixGroup, maxGroups)
		if err != nil {
			return err
		}
		record := &groupRecord{owner: o}
		made = groupOf(account, record)
		a.emit(event.OperatorGroup, name, "CREATED")
		return a.save(kindGroup, name, record)
	})
	return made, err
}

// Group describes one group with its members.
func (s *Service) Group(ctx context.Context, account fleet.Account, name string) (Group, error) {
	record, err := find[groupRecord](ctx, s.options.Store, account, kindGroup, name)
	if err != nil {
		return Group{}, err
	}
	g := groupOf(account, record)
	g.Users, err = names(ctx, s.options.Store, keyMember, string(account), name)
	return g, err
}

// Groups lists groups in order of their names, after one of them.
func (s *Service) Groups(ctx context.Context, account fleet.Account, after string, limit int) ([]Group, string, error) {
	records, next, err := list[groupRecord](ctx, s.options.Store, account, kindGroup, after, limit)
	groups := make([]Group, len(records))
	for i, r := range records {
		groups[i] = groupOf(account, r)
	}
	return groups, next, err
}

// DeleteGroup removes a group that has no members.
func (s *Service) DeleteGroup(ctx context.Context, account fleet.Account, name string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := find[groupRecord](ctx, s.options.Store, account, kindGroup, name)
		if err != nil {
			return err
		}
		members, err := names(ctx, s.options.Store, keyMember, string(account), name)
		if err != nil {
			return err
		}
		if len(members) > 0 {
			return fault.New(fault.DeleteConflict, "The group %q has %d users; remove them from it first", name, len(members))
		}
		a.unlink(&record.owner, kindGroup)
		a.remove(operatorKey(account, kindGroup, name))
		a.emit(event.OperatorGroup, name, "DELETED")
		return nil
	})
}

// AddUserToGroup makes a user a member; again it changes nothing.
func (s *Service) AddUserToGroup(ctx context.Context, account fleet.Account, group, user string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		if _, err := find[groupRecord](ctx, s.options.Store, account, kindGroup, group); err != nil {
			return err
		}
		u, err := find[userRecord](ctx, s.options.Store, account, kindUser, user)
		if err != nil {
			return err
		}
		if slices.Contains(u.Groups, group) {
			return nil
		}
		if len(u.Groups) >= maxGroupsPerUser {
			return fault.New(fault.LimitExceeded, "The user %q is in %d groups, which is the limit", user, maxGroupsPerUser)
		}
		u.Groups = append(u.Groups, group)
		slices.Sort(u.Groups)
		if err := a.separateUser(ctx, u, nil); err != nil {
			return err
		}
		a.row(store.K(keyMember, string(account), group, user))
		a.emit(event.OperatorGroup, group, "USER_ADDED")
		return a.save(kindUser, user, u)
	})
}

// RemoveUserFromGroup ends a membership; without one it changes nothing.
func (s *Service) RemoveUserFromGroup(ctx context.Context, account fleet.Account, group, user string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		u, err := find[userRecord](ctx, s.options.Store, account, kindUser, user)
		if err != nil {
			return err
		}
		if !slices.Contains(u.Groups, group) {
			_, err := find[groupRecord](ctx, s.options.Store, account, kindGroup, group)
			return err
		}
		u.Groups = without(u.Groups, group)
		a.remove(store.K(keyMember, string(account), group, user))
		a.emit(event.OperatorGroup, group, "USER_REMOVED")
		return a.save(kindUser, user, u)
	})
}
