package provisioning

import (
	"context"
	"slices"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// CreateTemplateVersion adds a version; no older one makes room for it.
func (s *Service) CreateTemplateVersion(
	ctx context.Context, account fleet.Account, name, body string, asDefault bool,
) (Template, TemplateVersion, error) {
	var template Template
	var made TemplateVersion
	err := s.changeExisting(ctx, account, name, func(a *templateAttempt, r *templateRecord) error {
		// What a body may say depends on the type, which never changes.
		if _, err := checkBody(body, r.Type); err != nil {
			return err
		}
		if most := s.o.Limits.TemplateVersions; most > 0 && len(r.Versions) >= most {
			return fault.New(fault.VersionsLimitExceeded, "provisioning template %s has %d versions, the most allowed", name, len(r.Versions))
		}
		id := r.add(body, a.now)
		if asDefault {
			r.Default = id
		}
		if err := a.save(account, r, event.TemplateVersionCreated, id); err != nil {
			return err
		}
		template, made = s.template(account, name, r), templateVersion(r, r.version(id))
		return nil
	})
	return template, made, err
}

// DescribeTemplateVersion returns one version with its body.
func (s *Service) DescribeTemplateVersion(ctx context.Context, account fleet.Account, name string, id int64) (TemplateVersion, error) {
	r, _, err := s.findTemplate(ctx, account, name)
	if err != nil {
		return TemplateVersion{}, err
	}
	v := r.version(id)
	if v == nil {
		return TemplateVersion{}, noVersion(name, id)
	}
	return templateVersion(r, v), nil
}

// ListTemplateVersions returns a page, the newest version first, and the id that
// the next one begins after, 0 on the last page. Limit 0 is for a full page.
func (s *Service) ListTemplateVersions(
	ctx context.Context, account fleet.Account, name string, after int64, limit int,
) (page []TemplateVersion, next int64, err error) {
	r, _, err := s.findTemplate(ctx, account, name)
	if err != nil {
		return nil, 0, err
	}
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	for _, v := range slices.Backward(r.Versions) {
		switch {
		case after != 0 && v.ID >= after:
		case len(page) == limit:
			return page, page[limit-1].ID, nil
		default:
			page = append(page, templateVersion(r, &v))
		}
	}
	return page, 0, nil
}

// DeleteTemplateVersion removes a version that is not in force.
func (s *Service) DeleteTemplateVersion(ctx context.Context, account fleet.Account, name string, id int64) error {
	return s.changeExisting(ctx, account, name, func(a *templateAttempt, r *templateRecord) error {
		switch {
		case r.version(id) == nil:
			return noVersion(name, id)
		case r.Default == id:
			return fault.New(fault.DeleteConflict, "version %d of provisioning template %s is the default one", id, name)
		}
		r.Versions = slices.DeleteFunc(r.Versions, func(v templateVersionRecord) bool { return v.ID == id })
		return a.save(account, r, event.TemplateVersionDeleted, id)
	})
}
