package provisioning

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
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
// parsed body is kept in memory by the account, name and version. It is
// ResourceNotFound, or InvalidRequest for one that is disabled or of another
// type.
func (s *Service) inForce(ctx context.Context, account fleet.Account, name string, kind provtemplate.Kind) (templateInForce, error) {
	panic("soon")
}
