package registry

import (
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// nameOrARN returns the name that a pair of request members means. fields are
// the names of the two members.
func nameOrARN(scope fleet.Scope, kind string, fields [2]string, name, arn string) (string, error) {
	if arn != "" {
		meant, ok := ownARN(scope, kind, arn)
		if !ok {
			return "", fault.New(fault.InvalidRequest, "%s must be %s", fields[1], scope.ARN(kind, "<name>"))
		}
		if name != "" && name != meant {
			return "", fault.New(fault.InvalidRequest, "%s and %s name different resources", fields[0], fields[1])
		}
		name = meant
	}
	if name == "" {
		return "", fault.New(fault.InvalidRequest, "%s or %s must be given", fields[0], fields[1])
	}
	return name, checkName(fields[0], name)
}

// ownARN returns the name in an ARN of the given kind, region and account.
func ownARN(scope fleet.Scope, kind, text string) (string, bool) {
	arn, ok := fleet.ParseARN(text)
	if !ok || arn.Kind != kind || arn.Scope != scope {
		return "", false
	}
	return arn.Name, true
}

// reference is something that policies attach to: a certificate or a group.
type reference struct {
	kind string
	name string
}

// ref is the reference's form in keys.
func (r reference) ref() string { return r.kind + "/" + r.name }

// parseRef reverses ref.
func parseRef(text string) reference {
	kind, name, _ := strings.Cut(text, "/")
	return reference{kind: kind, name: name}
}

// arn is the reference's form on the wire.
func (r reference) arn(scope fleet.Scope) string { return scope.ARN(r.kind, r.name) }

// checkPrincipal returns the reference of a principal ARN. Certificates are
// the only principals that Muster keeps; callers with access keys have their
// permissions elsewhere.
func checkPrincipal(scope fleet.Scope, arn string) (reference, error) {
	id, ok := ownARN(scope, fleet.ARNCertificate, arn)
	if !ok || !fleet.ValidCertificateID(id) {
		return reference{}, fault.New(fault.InvalidRequest,
			"principal must be a certificate ARN of this account and region, %s", scope.ARN(fleet.ARNCertificate, "<id>"))
	}
	return reference{kind: fleet.ARNCertificate, name: id}, nil
}

// checkTarget returns the reference of a policy target ARN.
func checkTarget(scope fleet.Scope, arn string) (reference, error) {
	if id, ok := ownARN(scope, fleet.ARNCertificate, arn); ok && fleet.ValidCertificateID(id) {
		return reference{kind: fleet.ARNCertificate, name: id}, nil
	}
	if name, ok := ownARN(scope, fleet.ARNThingGroup, arn); ok && fleet.ValidName(name) {
		return reference{kind: fleet.ARNThingGroup, name: name}, nil
	}
	return reference{}, fault.New(fault.InvalidRequest,
		"target must be the ARN of a certificate or of a thing group of this account and region")
}
