package drift

import (
	"context"
	"slices"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

const (
	// maxListed is how many things a page shows at most, maxExamined how many it
	// compares.
	maxListed   = 250
	maxExamined = 2000
	// chunk is how many are compared together.
	chunk = 250
	// maxQuery bounds a query in bytes.
	maxQuery = 10 << 10
	// maxCounted is how many promises one page of counts looks at.
	maxCounted = 20_000
)

// ListCommand asks for things that differ from what was promised.
type ListCommand struct {
	// Query is of the fleet index; empty for all things that something was promised
	// of, which needs no index.
	Query string
	// Template and Version are those of the promise, empty and 0 for all.
	Template string
	Version  int64
	// Outdated lists the things whose promise is by a version that is not in force,
	// whether they differ or not; All lists every thing, Kinds those that differ in
	// one of them.
	Outdated, All bool
	Kinds         []Kind
	// After is the Next of the page before.
	After string
	Limit int
}

// Page is a part of a list. A page can be empty and not be the last one.
type Page struct {
	Reports []Report
	// Examined is how many things were compared for this page, Drifting how many of
	// them differ, ByKind how many differ in a kind, Outdated how many were promised
	// by a version that is not in force.
	Examined, Drifting, Outdated int
	ByKind                       map[Kind]int
	Next                         string
}

// List compares things in order of name, of one template by version and name, and
// returns those that were asked for.
func (s *Service) List(ctx context.Context, account fleet.Account, c ListCommand) (Page, error) {
	if err := s.checkList(ctx, account, &c); err != nil {
		return Page{}, err
	}
	page := Page{ByKind: map[Kind]int{}, Next: c.After}
	inForce := versions{s: s, account: account, known: map[string]int64{}}
	for looked := 0; len(page.Reports) < c.Limit && looked < maxExamined; {
		names, next, err := s.names(ctx, account, &c, page.Next, min(chunk, c.Limit-len(page.Reports)))
		if err != nil {
			return Page{}, err
		}
		looked += max(1, len(names))
		reports, err := s.CheckAll(ctx, account, names)
		if err != nil {
			return Page{}, err
		}
		for _, r := range reports {
			if err := inForce.fill(ctx, &r); err != nil {
				return Page{}, err
			}
			page.take(&c, r)
		}
		if page.Next = next; next == "" {
			break
		}
	}
	return page, nil
}

// checkList checks a command of a caller who may search if that is needed.
func (s *Service) checkList(ctx context.Context, account fleet.Account, c *ListCommand) error {
	if c.Limit < 1 || c.Limit > maxListed {
		return fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", maxListed)
	}
	if len(c.Query) > maxQuery {
		return fault.New(fault.InvalidRequest, "query: must have at most %d bytes", maxQuery)
	}
	if c.Version < 0 || c.Version != 0 && c.Template == "" {
		return fault.New(fault.InvalidRequest, "version: must be a number from 1 on and goes with template")
	}
	if c.All && (c.Outdated || len(c.Kinds) > 0) || c.Outdated && len(c.Kinds) > 0 {
		return fault.New(fault.InvalidRequest, "all, outdated and kind exclude each other")
	}
	for _, k := range c.Kinds {
		if !slices.Contains(Kinds(), k) {
			return fault.New(fault.InvalidRequest, "kind: %q is none of %v", k, Kinds())
		}
	}
	if c.Query == "" {
		return nil
	}
	if err := s.o.Permit(ctx, account, actionSearch, fleet.ARNIndex, "AWS_Things"); err != nil {
		return err
	}
	if c.After != "" {
		return nil
	}
	return s.o.Index.Fresh(ctx) //nolint:wrapcheck // coded
}

// names are the next things to look at.
func (s *Service) names(ctx context.Context, account fleet.Account, c *ListCommand, after string, limit int) ([]string, string, error) {
	if c.Query != "" {
		return s.o.Index.Find(account, c.Query, after, limit) //nolint:wrapcheck // coded
	}
	listed, err := s.o.Registry.PromisedNames(ctx, account, registry.PromiseFilter{Template: c.Template, Version: c.Version},
		registry.Page{After: after, Limit: limit})
	return listed.Items, listed.Next, err //nolint:wrapcheck // coded
}

// take counts a report, and shows it if it was asked for.
func (p *Page) take(c *ListCommand, r Report) {
	if c.Template != "" && r.Promise.Template != c.Template || c.Version != 0 && r.Promise.Version != c.Version {
		return
	}
	p.Examined++
	if r.Drifts() {
		p.Drifting++
	}
	if r.Outdated() {
		p.Outdated++
	}
	var counted []Kind
	for _, d := range slices.Concat(r.Differences, r.Extra) {
		if !slices.Contains(counted, d.Kind) {
			counted = append(counted, d.Kind)
			p.ByKind[d.Kind]++
		}
	}
	show := r.Drifts()
	switch {
	case c.All:
		show = true
	case c.Outdated:
		show = r.Outdated()
	case len(c.Kinds) > 0:
		show = r.has(c.Kinds)
	}
	if show {
		p.Reports = append(p.Reports, r)
	}
}

// VersionCounts are the things of a template by the version that promised them.
type VersionCounts struct {
	Template string
	// DefaultVersion is the one in force, 0 when the template is gone.
	DefaultVersion int64
	// Counts are in order of version; the last of a page goes on with the next page.
	Counts []registry.PromiseCount
	Next   string
}

// Versions counts one page of the promises of a template.
func (s *Service) Versions(ctx context.Context, account fleet.Account, template, after string) (VersionCounts, error) {
	out := VersionCounts{Template: template}
	if !fleet.ValidName(template) {
		return out, fault.New(fault.InvalidRequest, "template: %q is no name of a template", template)
	}
	var err error
	if out.DefaultVersion, err = s.o.DefaultVersion(ctx, account, template); err != nil {
		return out, err
	}
	out.Counts, out.Next, err = s.o.Registry.CountPromises(ctx, account, template, after, maxCounted)
	return out, err //nolint:wrapcheck // coded
}
