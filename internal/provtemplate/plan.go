package provtemplate

// Override says what happens to a part of a resource that exists already.
type Override string

// Overrides (documented).
const (
	DoNothing Override = "DO_NOTHING"
	Replace   Override = "REPLACE"
	// Fail refuses the device.
	Fail Override = "FAIL"
	// Merge adds to what is there; for attributes and groups only.
	Merge Override = "MERGE"
)

// Plan is what a template comes to for one device. Whoever carries it out
// checks what only the registry knows: that type and groups exist, values of
// attributes, counts.
type Plan struct {
	// Thing is nil when the template declares none: then the certificate is
	// activated and gets its policies, no more (recalled).
	Thing *Thing
	// Certificate is nil only for a bulk template that declares none.
	Certificate *Certificate
	// Policies are in the order of the body.
	Policies []Policy
	// DeviceConfiguration is what the device is told; never nil.
	DeviceConfiguration map[string]string
}

// Thing is a thing to make or to change.
type Thing struct {
	// LogicalName is the name of the resource inside the template.
	LogicalName string
	Name        string
	// TypeName and BillingGroup are empty when the template names none.
	TypeName, BillingGroup string
	// Attributes and Groups are nil when the template has no such property,
	// and empty when it has an empty one.
	Attributes map[string]string
	// Groups has no name twice.
	Groups []string
	// What to do when the thing exists. The default is DoNothing (ours).
	OnAttributes, OnType, OnGroups Override
}

// Certificate is a certificate to make, to register or to take. Exactly one of
// CSR, ID and PEM is set.
type Certificate struct {
	LogicalName string
	// CSR is a certificate signing request in PEM.
	CSR string
	// ID is that of a certificate that exists.
	ID string
	// PEM is a certificate under a registered authority, AuthorityPEM that
	// authority, empty when the template does not say.
	PEM, AuthorityPEM string
	// Active is the state that the certificate gets.
	Active bool
	// OnStatus is what happens to the state of a certificate that exists.
	OnStatus Override
}

// Policy is a policy to attach to the certificate.
type Policy struct {
	LogicalName string
	// Name is never empty: without a PolicyName it is the hash of the document.
	Name string
	// Document is empty when a policy of that name must exist already.
	Document string
}
