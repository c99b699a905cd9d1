package account

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iampolicy"
)

// Bounds of a session in seconds, those of sts.
const (
	minSession     = 900
	maxSession     = 43200
	defaultSession = 3600
)

// Role is what a session can be taken in by whom its trust policy names.
type Role struct {
	Name, ID, ARN, Description string
	CreatedAt                  time.Time
	// Trust is the document that says who may take the role.
	Trust string
	// MaxSession is the longest session in seconds.
	MaxSession        int
	Policies, Inline  []string
	SessionsRevokedAt time.Time
}

// roleOf describes a record.
func roleOf(account fleet.Account, r *roleRecord) Role {
	return Role{
		Name: r.Name, ID: r.ID, ARN: iamARN(account, kindRole, r.Name), Description: r.Description, CreatedAt: r.CreatedAt,
		Trust: r.Trust, MaxSession: r.MaxSession, Policies: r.Policies, Inline: inlineNames(r.Inline), SessionsRevokedAt: r.RevokedAt,
	}
}

// RoleSpec is what a role is made of or changed to; zero fields of a change
// leave what there is.
type RoleSpec struct {
	Description string
	Trust       string
	MaxSession  int
}

// check refuses a specification that breaks a rule.
func (r *RoleSpec) check() error {
	if len(r.Description) > maxDescription {
		return fault.New(fault.InvalidRequest, "The description is longer than %d bytes", maxDescription)
	}
	if r.MaxSession != 0 && (r.MaxSession < defaultSession || r.MaxSession > maxSession) {
		return fault.New(fault.InvalidRequest, "The longest session of a role must be from %d to %d seconds", defaultSession, maxSession)
	}
	if r.Trust == "" {
		return nil
	}
	if _, err := iampolicy.ParseTrust(r.Trust); err != nil {
		return malformed(err)
	}
	return nil
}

// CreateRole makes a role that may do nothing yet.
func (s *Service) CreateRole(ctx context.Context, account fleet.Account, name string, spec RoleSpec) (Role, error) {
	if spec.MaxSession == 0 {
		spec.MaxSession = defaultSession
	}
	if spec.Trust == "" {
		return Role{}, fault.New(fault.MalformedPolicy, "A role needs a trust policy, which says who may take it")
	}
	if err := spec.check(); err != nil {
		return Role{}, err
	}
	var made Role
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		o, err := a.create(ctx, kindRole, name, prefixRole, maxRoles)
		if err != nil {
			return err
		}
		record := &roleRecord{owner: o, Description: spec.Description, Trust: spec.Trust, MaxSession: spec.MaxSession}
		made = roleOf(account, record)
		a.emit(event.OperatorRole, name, "CREATED")
		return a.save(kindRole, name, record)
	})
	return made, err
}

// UpdateRole changes who may take a role and for how long. Sessions go on.
func (s *Service) UpdateRole(ctx context.Context, account fleet.Account, name string, spec RoleSpec) (Role, error) {
	if err := spec.check(); err != nil {
		return Role{}, err
	}
	var made Role
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := find[roleRecord](ctx, s.options.Store, account, kindRole, name)
		if err != nil {
			return err
		}
		if spec.Description != "" {
			record.Description = spec.Description
		}
		if spec.Trust != "" {
			record.Trust = spec.Trust
		}
		if spec.MaxSession != 0 {
			record.MaxSession = spec.MaxSession
		}
		made = roleOf(account, record)
		a.emit(event.OperatorRole, name, "UPDATED")
		return a.save(kindRole, name, record)
	})
	return made, err
}

// Role describes one role.
func (s *Service) Role(ctx context.Context, account fleet.Account, name string) (Role, error) {
	record, err := find[roleRecord](ctx, s.options.Store, account, kindRole, name)
	if err != nil {
		return Role{}, err
	}
	return roleOf(account, record), nil
}

// Roles lists roles in order of their names, after one of them.
func (s *Service) Roles(ctx context.Context, account fleet.Account, after string, limit int) ([]Role, string, error) {
	records, next, err := list[roleRecord](ctx, s.options.Store, account, kindRole, after, limit)
	roles := make([]Role, len(records))
	for i, r := range records {
		roles[i] = roleOf(account, r)
	}
	return roles, next, err
}

// DeleteRole removes a role with its attachments. Its sessions are void.
func (s *Service) DeleteRole(ctx context.Context, account fleet.Account, name string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := find[roleRecord](ctx, s.options.Store, account, kindRole, name)
		if err != nil {
			return err
		}
		a.unlink(&record.owner, kindRole)
		a.remove(operatorKey(account, kindRole, name))
		a.emit(event.OperatorRole, name, "DELETED")
		return nil
	})
}

// RevokeSessions voids all sessions of a user or role that began until now.
// Access keys stay good.
func (s *Service) RevokeSessions(ctx context.Context, account fleet.Account, of Owner) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		a.emit(event.OperatorSession, of.Kind+"/"+of.Name, "REVOKED")
		if of.Kind == kindUser {
			u, err := find[userRecord](ctx, s.options.Store, account, kindUser, of.Name)
			if err != nil {
				return err
			}
			u.RevokedAt = a.now
			return a.save(kindUser, of.Name, u)
		}
		if of.Kind != kindRole {
			return fault.New(fault.InvalidRequest, "Users and roles have sessions, a %s has none", of.Kind)
		}
		r, err := find[roleRecord](ctx, s.options.Store, account, kindRole, of.Name)
		if err != nil {
			return err
		}
		r.RevokedAt = a.now
		return a.save(kindRole, of.Name, r)
	})
}
