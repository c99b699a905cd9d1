package provisioning

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// Hook is what is asked before a device is provisioned.
type Hook struct {
	// TargetARN names the function; the part behind the last "function:" or the
	// whole text is its name in the configuration.
	TargetARN string
	// PayloadVersion is always 2020-04-01.
	PayloadVersion string
}

// Template is a provisioning template with its version in force.
type Template struct {
	Name string
	ARN  string
	// Type is provtemplate.FleetProvisioning or provtemplate.JITP.
	Type           provtemplate.Kind
	Description    string
	Enabled        bool
	RoleARN        string
	Hook           *Hook
	DefaultVersion int64
	// Body is that of the version in force.
	Body     string
	Created  time.Time
	Modified time.Time
}

// TemplateVersion is one version of a template.
type TemplateVersion struct {
	ID      int64
	Body    string
	Default bool
	Created time.Time
}

// CreateTemplateCommand asks for a new template with version 1 in force.
type CreateTemplateCommand struct {
	Name        string
	Description string
	Body        string
	Enabled     bool
	RoleARN     string
	Hook        *Hook
	// Type is provtemplate.FleetProvisioning when empty.
	Type provtemplate.Kind
	Tags []tag.Tag
}

// UpdateTemplateCommand changes a template; nil changes nothing.
type UpdateTemplateCommand struct {
	Name           string
	Description    *string
	Enabled        *bool
	DefaultVersion *int64
	RoleARN        *string
	Hook           *Hook
	RemoveHook     bool
}

// templateInForce is a template that devices are provisioned by, with its body
// parsed.
type templateInForce struct {
	Template

	parsed *provtemplate.Template
}

// inForce reads a template that must exist, be enabled and be of a type; the
// parsed body is kept in memory until the template changes. It is
// ResourceNotFound, or InvalidRequest for one that is disabled or of another
// type.
func (s *Service) inForce(ctx context.Context, account fleet.Account, name string, kind provtemplate.Kind) (templateInForce, error) {
	if err := checkTemplateName(name); err != nil {
		return templateInForce{}, err
	}
	k := templateKey(account, name)
	found, err := s.o.Store.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return templateInForce{}, noTemplate(name)
	}
	if err != nil {
		return templateInForce{}, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	template, known := s.parsed.get(k, found.Version)
	if !known {
		record, err := decodeTemplate(found)
		if err != nil {
			return templateInForce{}, err
		}
		template.Template = s.template(account, name, record)
		if template.parsed, err = checkBody(template.Body, template.Type); err != nil {
			return templateInForce{}, err
		}
		s.parsed.put(k, found.Version, template)
	}
	switch {
	case !template.Enabled:
		return templateInForce{}, fault.New(fault.InvalidRequest, "provisioning template %s is not enabled", name)
	case template.Type != kind:
		return templateInForce{}, fault.New(fault.InvalidRequest, "provisioning template %s is of type %s, not %s", name, template.Type, kind)
	}
	return template, nil
}

// TemplateExists reports whether there is a template of the name, of whatever
// type and state.
func (s *Service) TemplateExists(ctx context.Context, account fleet.Account, name string) (bool, error) {
	_, err := s.DescribeTemplate(ctx, account, name)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return false, nil
	}
	return err == nil, err
}

// maxParsed bounds the templates that are kept parsed; a body is 10 KB at most
// and some ten times that when parsed.
const maxParsed = 256

// parsedTemplates keeps templates as their records were in one version.
type parsedTemplates struct {
	mu  sync.Mutex
	all map[store.Key]parsedRecord
}

// parsedRecord is a template with the version of the record that says so.
type parsedRecord struct {
	version  uint64
	template templateInForce
}

// get returns the template that a version of a record says.
func (p *parsedTemplates) get(k store.Key, version uint64) (templateInForce, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.all[k]
	return known.template, ok && known.version == version
}

// put keeps a template in place of what is known of an older version. When
// there is no more room, all start anew.
func (p *parsedTemplates) put(k store.Key, version uint64, template templateInForce) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.all[k]
	if ok && known.version > version {
		return
	}
	if p.all == nil || !ok && len(p.all) >= maxParsed {
		p.all = map[store.Key]parsedRecord{}
	}
	p.all[k] = parsedRecord{version: version, template: template}
}
