// Package fleet is the vocabulary that every other package shares: accounts,
// ARNs, name rules, actors and limits. It imports the standard library only
// and holds no behaviour beyond parsing and checking names.
package fleet

import (
	"regexp"
	"strings"
)

// Account is a 12-digit account number. Every key, event, topic and metric
// carries one; there is no global namespace.
type Account string

// Valid reports whether the account has exactly twelve decimal digits.
func (a Account) Valid() bool {
	if len(a) != 12 {
		return false
	}
	for i := range len(a) {
		if a[i] < '0' || a[i] > '9' {
			return false
		}
	}
	return true
}

// Partition is the ARN partition that Muster writes and accepts.
const Partition = "aws"

// Scope is the region and account in which a name is meant.
type Scope struct {
	Region  string
	Account Account
}

// ARN types of the iot service, the text between the account and the slash.
const (
	ARNThing        = "thing"
	ARNThingType    = "thingtype"
	ARNThingGroup   = "thinggroup"
	ARNBillingGroup = "billinggroup"
	ARNCertificate  = "cert"
	ARNCACert       = "cacert"
	ARNPolicy       = "policy"
	ARNIndex        = "index"
	ARNClient       = "client"
	ARNTopic        = "topic"
	ARNTopicFilter  = "topicfilter"
	ARNAuthorizer   = "authorizer"

	ARNProvisioningTemplate = "provisioningtemplate"
	ARNCertificateProvider  = "certificateprovider"
)

// ARN returns arn:aws:iot:<region>:<account>:<kind>/<name>.
func (s Scope) ARN(kind, name string) string {
	return "arn:" + Partition + ":iot:" + s.Region + ":" + string(s.Account) + ":" + kind + "/" + name
}

// ARN is a parsed iot resource name.
type ARN struct {
	Scope
	// Kind is the resource type, for example ARNThing.
	Kind string
	// Name is everything after the first slash of the resource part.
	Name string
}

// ParseARN splits an iot ARN. It reports false for anything that is not
// arn:aws:iot:<region>:<12 digits>:<kind>/<name>.
func ParseARN(text string) (ARN, bool) {
	parts := strings.SplitN(text, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[1] != Partition || parts[2] != "iot" {
		return ARN{}, false
	}
	kind, name, ok := strings.Cut(parts[5], "/")
	if !ok || kind == "" || name == "" || !Account(parts[4]).Valid() {
		return ARN{}, false
	}
	return ARN{Scope: Scope{Region: parts[3], Account: Account(parts[4])}, Kind: kind, Name: name}, true
}

// Name rules of the published service model.
const (
	// MaxNameLength bounds thing, type and group names, in characters.
	MaxNameLength = 128
	// MaxShadowNameLength bounds shadow names, in characters.
	MaxShadowNameLength = 64
)

var (
	namePattern        = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,128}$`)
	shadowNamePattern  = regexp.MustCompile(`^[$a-zA-Z0-9:_-]{1,64}$`)
	policyNamePattern  = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	certificatePattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ValidName reports whether text may name a thing, a thing type or a group.
func ValidName(text string) bool { return namePattern.MatchString(text) }

// ValidShadowName reports whether text may name a named shadow. The classic
// shadow has no name and is not covered.
func ValidShadowName(text string) bool { return shadowNamePattern.MatchString(text) }

// ValidPolicyName reports whether text may name a policy.
func ValidPolicyName(text string) bool { return policyNamePattern.MatchString(text) }

// ValidCertificateID reports whether text is a certificate id: the SHA-256 of
// the DER form as 64 lower-case hexadecimal digits.
func ValidCertificateID(text string) bool { return certificatePattern.MatchString(text) }
