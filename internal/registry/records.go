package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// schemaVersion is written into every record. Raise it when the previous code
// could not read what this code writes, and keep reading the old.
const schemaVersion = 1

// Values of rows: what they say is in the key, save for one claim.
const (
	plainRow = `{"v":1}`
	claimRow = `{"v":1,"claim":true}`
)

// schema is embedded in every record and row.
type schema struct {
	Schema int `json:"v"`
}

func (s *schema) stamp()      { s.Schema = schemaVersion }
func (s *schema) known() bool { return s.Schema == schemaVersion }

// stored is a pointer to a record type.
type stored[T any] interface {
	*T
	stamp()
	known() bool
}

// rowRecord is the value of a row.
type rowRecord struct {
	schema

	// Claim is "dynamic" or "exclusive", by kind.
	Claim bool `json:"claim,omitempty"`
}

// thingRecord is everything that a command on one thing decides on, so that
// its version alone guards memberships, attachments and deletion.
type thingRecord struct {
	schema

	ID         string            `json:"id"`
	TypeName   string            `json:"type,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	// Version is the version that callers see; the record changes more often.
	Version int64 `json:"version"`
	// Groups are ordered by name.
	Groups []groupLink `json:"groups,omitempty"`
	// BillingGroup is empty for a thing that is in none; it is no group of
	// Groups.
	BillingGroup string `json:"billingGroup,omitempty"`
	Principals   int    `json:"principals,omitempty"`
	// Birth is the id of the birth certificate with which it was provisioned last;
	// empty for none.
	Birth string `json:"birth,omitempty"`
	// Quarantine is nil for a thing that is in none.
	Quarantine *quarantineRecord `json:"quarantine,omitempty"`
	Created    int64             `json:"created"`
}

// groupLink is a membership as the thing sees it.
type groupLink struct {
	Group string `json:"group"`
	// Root is the top of the group's hierarchy, of which a thing may be in one
	// group only; empty for a dynamic group.
	Root    string `json:"root,omitempty"`
	Dynamic bool   `json:"dynamic,omitempty"`
}

// typeRecord is a thing type.
type typeRecord struct {
	schema

	ID                   string   `json:"id"`
	Description          string   `json:"description,omitempty"`
	SearchableAttributes []string `json:"searchable,omitempty"`
	// Propagating and Rules are absent from older records too: none.
	Propagating []PropagatingAttribute `json:"propagating,omitempty"`
	Rules       *AttributeRules        `json:"rules,omitempty"`
	Created     int64                  `json:"created"`
	// Deprecated is when the type was deprecated, 0 when it is not.
	Deprecated int64 `json:"deprecated,omitempty"`
}

// groupRecord is a static group or the definition of a dynamic one.
type groupRecord struct {
	schema

	ID string `json:"id"`
	// Ancestors runs from the root to the parent. Parents never change, so
	// the list stays right.
	Ancestors   []string          `json:"ancestors,omitempty"`
	Description string            `json:"description,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	Version     int64             `json:"version"`
	Created     int64             `json:"created"`
	Children    int               `json:"children,omitempty"`
	// Policies are the names of the attached policies, in order of attachment.
	Policies []string `json:"policies,omitempty"`
	// Query is empty for a static group.
	Query string `json:"query,omitempty"`
	// Built says that the members of a dynamic group were complete once, under
	// this query or an earlier one; Complete that they are under Query. Older
	// records lack both, until the index has looked at them.
	Built    bool `json:"built,omitempty"`
	Complete bool `json:"complete,omitempty"`
	// Deleting is set by the first step of a deletion: from then on nothing
	// may join, so that the members can be removed piece by piece.
	Deleting bool `json:"deleting,omitempty"`
}

// billingGroupRecord is a billing group.
type billingGroupRecord struct {
	schema

	ID          string `json:"id"`
	Description string `json:"description,omitempty"`
	Version     int64  `json:"version"`
	Created     int64  `json:"created"`
	// Deleting is set by the first step of a deletion, as that of a group.
	Deleting bool `json:"deleting,omitempty"`
}

// eventConfigRecord says which kinds of registry events an account publishes.
type eventConfigRecord struct {
	schema

	// Enabled are the kinds in order of their names.
	Enabled  []string `json:"enabled,omitempty"`
	Created  int64    `json:"created"`
	Modified int64    `json:"modified"`
}

// dynamicGroupsRecord counts an account's dynamic groups.
type dynamicGroupsRecord struct {
	schema

	Count int `json:"count"`
}

// certificateRecord is a registered certificate with its uses.
type certificateRecord struct {
	schema

	PEM       string `json:"pem"`
	Status    string `json:"status"`
	Mode      string `json:"mode"`
	NotBefore int64  `json:"notBefore"`
	NotAfter  int64  `json:"notAfter"`
	Created   int64  `json:"created"`
	Modified  int64  `json:"modified"`
	// CustomerVersion counts the changes of state that callers see.
	CustomerVersion int64  `json:"customerVersion"`
	GenerationID    string `json:"generationId"`
	// Policies are the names of the attached policies, in order of attachment.
	Policies []string `json:"policies,omitempty"`
	Things   int      `json:"things,omitempty"`
	// ExclusiveThing is the only thing this certificate may act as.
	ExclusiveThing string `json:"exclusiveThing,omitempty"`
	// CA is the id of the registered authority that it came under, Serial its
	// serial number there; both empty for others.
	CA     string `json:"ca,omitempty"`
	Serial string `json:"serial,omitempty"`
	// PreviousOwner is the account that it was transferred from.
	PreviousOwner fleet.Account `json:"previousOwner,omitempty"`
	// Transfer is the last transfer, under way or over.
	Transfer *transferRecord `json:"transfer,omitempty"`
	// Pending is set while the certificate waits for its device, or is a claim
	// that will go by itself.
	Pending *pendingRecord `json:"pending,omitempty"`
	// ClaimTemplate is the template that the claim of a trusted user may
	// provision by; empty for every other certificate.
	ClaimTemplate string `json:"claimTemplate,omitempty"`
	// Purpose is nil for a certificate that nobody has marked and that was used for
	// no provisioning, or not counted.
	Purpose *purposeRecord `json:"purpose,omitempty"`
	// Quarantined counts the things in quarantine that it acts as.
	Quarantined int `json:"quarantined,omitempty"`
	// Announced is when it was told last that the certificate has registered
	// itself by connecting and waits; 0 for any other certificate.
	Announced int64 `json:"announced,omitempty"`
}

// pendingRecord is how long a certificate waits, and for whom.
type pendingRecord struct {
	// Until is when it is deleted if nothing was made of it.
	Until int64 `json:"until"`
	// Claim is the id of the principal that asked for it, Token the SHA-256 of
	// its ownership token in hexadecimal digits; both empty for a claim.
	Claim string `json:"claim,omitempty"`
	Token string `json:"token,omitempty"`
}

// transferRecord is a certificate's way between two accounts. While it is
// under way, both accounts have a record of the certificate.
type transferRecord struct {
	From     fleet.Account `json:"from"`
	To       fleet.Account `json:"to"`
	Message  string        `json:"message,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Began    int64         `json:"began"`
	Accepted int64         `json:"accepted,omitempty"`
	Rejected int64         `json:"rejected,omitempty"`
}

// revokedRecord is what our own revocation list says of a certificate. It
// outlives the certificate's own record.
type revokedRecord struct {
	schema

	Serial   string `json:"serial"`
	At       int64  `json:"at"`
	NotAfter int64  `json:"notAfter"`
}

// goneRecord remembers that a certificate left the account.
type goneRecord struct {
	schema

	To fleet.Account `json:"to"`
	At int64         `json:"at"`
}

// caRecord is a registered authority.
type caRecord struct {
	schema

	PEM       string `json:"pem"`
	Status    string `json:"status"`
	Mode      string `json:"mode"`
	NotBefore int64  `json:"notBefore"`
	NotAfter  int64  `json:"notAfter"`
	Created   int64  `json:"created"`
	Modified  int64  `json:"modified"`
	// Subject is the hash that the authorities of the same subject share.
	Subject          string                    `json:"subject"`
	CustomerVersion  int64                     `json:"customerVersion"`
	GenerationID     string                    `json:"generationId"`
	AutoRegistration bool                      `json:"autoRegistration,omitempty"`
	Registration     *registrationConfigRecord `json:"registration,omitempty"`
	// Declaration is nil in older records.
	Declaration *declarationRecord `json:"declaration,omitempty"`
}

// declarationRecord is why devices under an authority are believed.
type declarationRecord struct {
	Basis string `json:"basis"`
	// By is the ARN of who registered the authority, At when.
	By string `json:"by,omitempty"`
	At int64  `json:"at"`
	// Statement is an operator's own words, StatedBy and StatedAt whose they are.
	Statement string `json:"statement,omitempty"`
	StatedBy  string `json:"statedBy,omitempty"`
	StatedAt  int64  `json:"statedAt,omitempty"`
}

// stated reports whether an operator has said something.
func (d *declarationRecord) stated() bool { return d != nil && d.Statement != "" }

// registrationConfigRecord is how devices under an authority are provisioned.
type registrationConfigRecord struct {
	TemplateBody string `json:"templateBody,omitempty"`
	TemplateName string `json:"templateName,omitempty"`
	RoleARN      string `json:"roleArn,omitempty"`
}

// caSubjectRecord lists the authorities of one subject.
type caSubjectRecord struct {
	schema

	IDs []string `json:"ids"`
}

// caOwnerRecord names the account that proved to own an authority.
type caOwnerRecord struct {
	schema

	Account fleet.Account `json:"account"`
}

// registrationCodeRecord is an account's registration code.
type registrationCodeRecord struct {
	schema

	Code string `json:"code"`
}

// revocationListRecord is the list of an authority that is in force, or being
// taken over.
type revocationListRecord struct {
	schema

	// Sum is the SHA-256 of the list.
	Sum string `json:"sum"`
	// Number is the CRL number in decimal digits, empty for none.
	Number     string `json:"number,omitempty"`
	ThisUpdate int64  `json:"thisUpdate"`
	NextUpdate int64  `json:"nextUpdate,omitempty"`
	// Generation marks the entries of this list among those of earlier ones.
	Generation int64 `json:"generation"`
	// Done counts the entries that are taken over.
	Done int `json:"done"`
	// Complete is set when nothing of earlier lists is left.
	Complete bool  `json:"complete,omitempty"`
	Imported int64 `json:"imported"`
}

// revokedSerialRecord is an entry of an authority's list.
type revokedSerialRecord struct {
	schema

	Generation int64 `json:"generation"`
	Revoked    int64 `json:"revoked"`
	Reason     int   `json:"reason,omitempty"`
}

// policyRecord is a policy with all its versions.
type policyRecord struct {
	schema

	GenerationID string `json:"generationId"`
	Created      int64  `json:"created"`
	Modified     int64  `json:"modified"`
	// Next is the number of the next version; numbers are never used twice.
	Next     int             `json:"next"`
	Default  string          `json:"default"`
	Versions []versionRecord `json:"versions"`
	// Sealed is set by the first step of a deletion. Whoever attaches or
	// changes the policy breaks the seal, which makes the deletion look again.
	Sealed bool `json:"sealed,omitempty"`
}

// versionRecord is one version of a policy.
type versionRecord struct {
	ID       string `json:"id"`
	Document string `json:"document"`
	Created  int64  `json:"created"`
}

// millis is the stored form of a time.
func millis(t time.Time) int64 { return t.UnixMilli() }

// moment reverses millis.
func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// get reads a record; nil and version 0 when there is none.
func get[T any, P stored[T]](ctx context.Context, r store.Reader, k store.Key) (*T, uint64, error) {
	record, err := r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read record %s: %w", k, err)
	}
	value, err := decode[T, P](record)
	if err != nil {
		return nil, 0, err
	}
	return value, record.Version, nil
}

// getMany reads several records, with nil and version 0 for a missing one.
func getMany[T any, P stored[T]](ctx context.Context, r store.Reader, keys []store.Key) ([]*T, []uint64, error) {
	if len(keys) == 0 {
		return nil, nil, nil
	}
	records, err := r.GetMany(ctx, keys)
	if err != nil {
		return nil, nil, fmt.Errorf("read %d records: %w", len(keys), err)
	}
	values, versions := make([]*T, len(keys)), make([]uint64, len(keys))
	for i, record := range records {
		versions[i] = record.Version
		if record.Version == 0 {
			continue
		}
		if values[i], err = decode[T, P](record); err != nil {
			return nil, nil, err
		}
	}
	return values, versions, nil
}

// decode reads a stored record and refuses one of a schema not known here.
func decode[T any, P stored[T]](record store.Record) (*T, error) {
	value := new(T)
	if err := json.Unmarshal(record.Value, value); err != nil {
		return nil, fmt.Errorf("decode record %s: %w", record.Key, err)
	}
	if !P(value).known() {
		return nil, fmt.Errorf("decode record %s: its schema version is not known to this program", record.Key)
	}
	return value, nil
}
