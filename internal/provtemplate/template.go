package provtemplate

import "strings"

// Kind is how a template is used, which decides what it may contain.
type Kind string

// Kinds. The first two are the types of named templates; Bulk is the body in a
// RegisterThing call or a bulk registration task, which is no named template.
const (
	FleetProvisioning Kind = "FLEET_PROVISIONING"
	JITP              Kind = "JITP"
	Bulk              Kind = "BULK"
)

// CertificateID is the parameter that holds the id of the certificate that is
// being provisioned (documented).
const CertificateID = reservedPrefix + "IoT::Certificate::Id"

// reservedPrefix begins the names that only the service gives a meaning to.
const reservedPrefix = "AWS::"

// subjectParameters are what a JITP template is told about the subject of the
// certificate, beside its id (documented).
var subjectParameters = map[string]bool{
	"AWS::IoT::Certificate::Country":                    true,
	"AWS::IoT::Certificate::Organization":               true,
	"AWS::IoT::Certificate::OrganizationalUnit":         true,
	"AWS::IoT::Certificate::DistinguishedNameQualifier": true,
	"AWS::IoT::Certificate::StateName":                  true,
	"AWS::IoT::Certificate::CommonName":                 true,
	"AWS::IoT::Certificate::SerialNumber":               true,
}

// offers reports whether a template of the kind may declare a name that begins
// with reservedPrefix. A bulk template may declare what JITP knows and gets it
// from the caller, so that a JITP template can be tried with RegisterThing
// (ours).
func (k Kind) offers(name string) bool {
	return name == CertificateID || k != FleetProvisioning && subjectParameters[name]
}

// fromService reports whether the service, and nobody else, gives the value of
// a parameter.
func (k Kind) fromService(name string) bool {
	return k != Bulk && strings.HasPrefix(name, reservedPrefix)
}

// Limits bound a body before it is read and a plan before it is built.
type Limits struct {
	// MaxBody is the length of a body in characters (documented).
	MaxBody int
	// MaxValue is the length of a parameter's value or default in characters
	// (documented).
	MaxValue int
	// MaxDepth is how deep lists and objects nest (ours).
	MaxDepth int
	// MaxMembers is how many members an object or elements a list has (ours).
	MaxMembers int
	// MaxText is the length in bytes of what one function gives (ours).
	MaxText int
	// MaxWork is the length in bytes of all that functions give on the way to
	// one plan, which bounds its time and memory (ours).
	MaxWork int
}

// DefaultLimits are the limits of the service model, and ours where it has
// none: far above any template that was seen.
func DefaultLimits() Limits {
	return Limits{MaxBody: 10_240, MaxValue: 4096, MaxDepth: 32, MaxMembers: 256, MaxText: 16_384, MaxWork: 131_072}
}

// Parameter is a declared parameter.
type Parameter struct {
	Name string
	// Default stands in for a value that is not given, if HasDefault.
	Default    string
	HasDefault bool
	// FromService says that the service gives the value: it cannot be chosen by
	// whoever provisions.
	FromService bool
}

// Template is a checked body.
type Template struct {
	kind        Kind
	limits      Limits
	parameters  []Parameter
	mappings    map[string]map[string]map[string]string
	thing       *thing
	certificate *certificate
	policies    []policy
	device      []property
}

// Kind returns what the template was checked for.
func (t *Template) Kind() Kind { return t.kind }

// Parameters returns the declared parameters in their order in the body.
func (t *Template) Parameters() []Parameter { return append([]Parameter(nil), t.parameters...) }

// declared reports whether functions may refer to a parameter. The guide's own
// example of a fleet provisioning template refers to the certificate's id
// without a declaration (documented), so that one needs none.
func (t *Template) declared(name string) bool {
	if name == CertificateID && t.kind == FleetProvisioning {
		return true
	}
	for _, p := range t.parameters {
		if p.Name == name {
			return true
		}
	}
	return false
}

// property is a named value of a resource or of the device configuration.
type property struct {
	name  string
	value *expression
}

// thing is the declaration of a thing.
type thing struct {
	logical                        string
	name, typeName, billing        *expression
	groups                         *expression
	attributes                     []property
	hasAttributes                  bool
	onAttributes, onType, onGroups Override
}

// certificate is the declaration of a certificate.
type certificate struct {
	logical                 string
	csr, id, pem, authority *expression
	status                  *expression
	onStatus                Override
}

// policy is the declaration of a policy.
type policy struct {
	logical        string
	name, document *expression
}
