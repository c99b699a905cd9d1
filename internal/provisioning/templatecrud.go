package provisioning

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// maxPage is the most that one page of a list holds.
const maxPage = 250

// CreateTemplate adds a template with version 1 in force. It is not repeatable.
func (s *Service) CreateTemplate(ctx context.Context, account fleet.Account, c CreateTemplateCommand) (Template, error) {
	if c.Type == "" {
		c.Type = provtemplate.FleetProvisioning
	}
	hook, err := s.checkNew(c)
	if err != nil {
		return Template{}, err
	}
	tags, err := tag.Check(c.Tags)
	if err != nil {
		return Template{}, err
	}
	var made Template
	err = s.changeTemplate(ctx, account, c.Name, func(a *templateAttempt) error {
		if a.record != nil {
			taken := fault.New(fault.ResourceAlreadyExists, "provisioning template %s already exists", c.Name)
			taken.ResourceID, taken.ResourceARN = c.Name, s.scope(account).ARN(fleet.ARNProvisioningTemplate, c.Name)
			return taken
		}
		r := &templateRecord{
			Type: c.Type, Description: c.Description, Enabled: c.Enabled, RoleARN: c.RoleARN, Created: a.now.UnixMilli(),
		}
		r.setHook(hook)
		r.Default = r.add(c.Body, a.now)
		if err := a.save(account, r, event.TemplateCreated, r.Default); err != nil {
			return err
		}
		made = s.template(account, c.Name, r)
		return tag.Attach(&a.batch, event.Envelope{}, s.templateResource(account, c.Name), tags)
	})
	return made, err
}

// checkNew refuses a template that breaks a rule, and returns its hook as it is
// kept.
func (s *Service) checkNew(c CreateTemplateCommand) (*Hook, error) {
	if err := checkTemplateName(c.Name); err != nil {
		return nil, err
	}
	if err := checkTemplateType(c.Type); err != nil {
		return nil, err
	}
	if err := checkDescription(c.Description); err != nil {
		return nil, err
	}
	if err := checkRole(c.RoleARN); err != nil {
		return nil, err
	}
	if _, err := checkBody(c.Body, c.Type); err != nil {
		return nil, err
	}
	return s.checkHook(c.Type, c.Hook)
}

// DescribeTemplate returns a template with the body in force.
func (s *Service) DescribeTemplate(ctx context.Context, account fleet.Account, name string) (Template, error) {
	r, _, err := s.findTemplate(ctx, account, name)
	if err != nil {
		return Template{}, err
	}
	return s.template(account, name, r), nil
}

// ListTemplates returns a page in the order of names, and the name that the
// next one begins after, empty on the last page. Limit 0 is for a full page.
func (s *Service) ListTemplates(ctx context.Context, account fleet.Account, after string, limit int) (page []Template, next string, err error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	all := store.Under(kindTemplate, string(account))
	if after != "" {
		all = all.After(templateKey(account, after))
	}
	err = s.o.Store.Scan(ctx, all, func(found store.Record) error {
		if len(page) == limit {
			next = page[limit-1].Name
			return store.Stop
		}
		r, err := decodeTemplate(found)
		if err != nil {
			return err
		}
		page = append(page, s.template(account, found.Key.Last(), r))
		return nil
	})
	if err != nil {
		return nil, "", store.Fault(fmt.Errorf("list provisioning templates: %w", err))
	}
	return page, next, nil
}

// UpdateTemplate changes what a template says beside its versions, and which
// one of them is in force. A template whose hook's function has left the
// configuration can still be changed, for example disabled.
func (s *Service) UpdateTemplate(ctx context.Context, account fleet.Account, c UpdateTemplateCommand) (Template, error) {
	if c.Description != nil {
		if err := checkDescription(*c.Description); err != nil {
			return Template{}, err
		}
	}
	if c.RoleARN != nil {
		if err := checkRole(*c.RoleARN); err != nil {
			return Template{}, err
		}
	}
	if c.Hook != nil && c.RemoveHook {
		return Template{}, fault.New(fault.InvalidRequest, "preProvisioningHook and removePreProvisioningHook exclude each other")
	}
	var updated Template
	err := s.changeExisting(ctx, account, c.Name, func(a *templateAttempt, r *templateRecord) error {
		before := *r
		if err := s.apply(c, r); err != nil {
			return err
		}
		updated = s.template(account, c.Name, r)
		if r.equal(&before) {
			return nil
		}
		if err := a.save(account, r, event.TemplateUpdated, 0); err != nil {
			return err
		}
		updated = s.template(account, c.Name, r)
		return nil
	})
	return updated, err
}

// apply makes the changes of a command.
func (s *Service) apply(c UpdateTemplateCommand, r *templateRecord) error {
	if c.DefaultVersion != nil {
		if r.version(*c.DefaultVersion) == nil {
			return noVersion(c.Name, *c.DefaultVersion)
		}
		r.Default = *c.DefaultVersion
	}
	if c.Hook != nil {
		hook, err := s.checkHook(r.Type, c.Hook)
		if err != nil {
			return err
		}
		r.setHook(hook)
	}
	if c.RemoveHook {
		r.setHook(nil)
	}
	set(&r.Description, c.Description)
	set(&r.Enabled, c.Enabled)
	set(&r.RoleARN, c.RoleARN)
	return nil
}

// equal compares what an update can change.
func (r *templateRecord) equal(other *templateRecord) bool {
	return r.Description == other.Description && r.Enabled == other.Enabled && r.RoleARN == other.RoleARN &&
		r.HookTarget == other.HookTarget && r.Default == other.Default
}

// set takes a new value over if there is one.
func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// DeleteTemplate removes a template with all its versions. Nobody is asked who
// still names it: devices of a claim, and those under an authority whose
// registration configuration names it, are refused from then on, as on AWS.
func (s *Service) DeleteTemplate(ctx context.Context, account fleet.Account, name string) error {
	return s.changeExisting(ctx, account, name, func(a *templateAttempt, _ *templateRecord) error {
		a.batch.Writes = append(a.batch.Writes, store.Write{Key: templateKey(account, name), Delete: true})
		tag.Remove(&a.batch, s.templateResource(account, name))
		a.emit(event.ProvisioningTemplateChanged{Template: name, Change: event.TemplateDeleted})
		return nil
	})
}

// templateResource names a template among all that can have tags.
func (s *Service) templateResource(account fleet.Account, name string) fleet.ARN {
	return fleet.ARN{Scope: s.scope(account), Kind: fleet.ARNProvisioningTemplate, Name: name}
}

// TagFinders prove the existence of templates, which can have tags.
func (s *Service) TagFinders() map[string]tag.Finder {
	return map[string]tag.Finder{
		fleet.ARNProvisioningTemplate: func(ctx context.Context, account fleet.Account, name string) (store.Expect, error) {
			_, version, err := s.findTemplate(ctx, account, name)
			return store.Expect{Key: templateKey(account, name), Version: version}, err
		},
	}
}
