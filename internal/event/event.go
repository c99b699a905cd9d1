// Package event names every fact that subsystems tell each other, as one
// sealed sum type. An event commits together with the state change it reports
// and carries what changed and the new version, so that no consumer has to ask
// the producer. The package imports fleet only; it has no goroutines.
package event

import (
	"encoding/json"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Event is one fact, named in the past tense. The set is closed: a new fact
// fails the build of every consumer that has not decided about it.
//
//sumtype:decl
type Event interface{ isEvent() }

// Envelope is an event with its place in the log and its origin.
type Envelope struct {
	// Partition and Seq are set by the commit. Seq counts from 1 without gaps
	// within a partition.
	Partition uint32
	Seq       uint64
	Account   fleet.Account
	At        time.Time
	Actor     fleet.Actor
	Event     Event
}

// Thing state carried by ThingCreated and ThingUpdated: all of it, since
// attributes are few and projections need the whole set.
type Thing struct {
	Thing        string            `json:"thing"`
	ThingID      string            `json:"thingId"`
	TypeName     string            `json:"typeName,omitempty"`
	Attributes   map[string]string `json:"attributes,omitempty"`
	BillingGroup string            `json:"billingGroup,omitempty"`
	Version      int64             `json:"version"`
}

// ThingCreated reports a new registry entry.
type ThingCreated struct{ Thing }

// ThingUpdated reports the thing as it is after the change.
type ThingUpdated struct {
	Thing
	// PreviousTypeName is the type before the change.
	PreviousTypeName string `json:"previousTypeName,omitempty"`
}

// ThingDeleted reports that a thing left the registry with all its
// memberships; its shadows stay.
type ThingDeleted struct {
	Thing   string `json:"thing"`
	ThingID string `json:"thingId"`
	Version int64  `json:"version"`
	// TypeName and Attributes are what it had.
	TypeName   string            `json:"typeName,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	// BillingGroup is empty for a thing that was in none.
	BillingGroup string `json:"billingGroup,omitempty"`
	// Groups are the groups, static and dynamic, that it was in.
	Groups []string `json:"groups,omitempty"`
	// GroupIDs are the ids of Groups, in the same order; events of earlier
	// programs lack them.
	GroupIDs []string `json:"groupIds,omitempty"`
}

// ThingType state carried by the thing type events.
type ThingType struct {
	TypeName             string   `json:"typeName"`
	TypeID               string   `json:"typeId"`
	Description          string   `json:"description,omitempty"`
	SearchableAttributes []string `json:"searchableAttributes,omitempty"`
	// Propagating are the user properties that messages of the type's things
	// gain, in the type's order.
	Propagating []PropagatingAttribute `json:"propagating,omitempty"`
	Deprecated  bool                   `json:"deprecated,omitempty"`
	// DeprecationDate is zero unless Deprecated.
	DeprecationDate time.Time `json:"deprecationDate,omitzero"`
}

// PropagatingAttribute is one user property that a message gains; one of the
// two sources is set.
type PropagatingAttribute struct {
	UserPropertyKey     string `json:"userPropertyKey"`
	ThingAttribute      string `json:"thingAttribute,omitempty"`
	ConnectionAttribute string `json:"connectionAttribute,omitempty"`
}

// ThingTypeCreated reports a new type.
type ThingTypeCreated struct{ ThingType }

// ThingTypeUpdated reports a changed, deprecated or undeprecated type.
type ThingTypeUpdated struct {
	ThingType
	// PropagatingChanged says that Propagating is another one than before.
	PropagatingChanged bool `json:"propagatingChanged,omitempty"`
}

// ThingTypeDeleted reports that a type is gone, with what it was; events of
// earlier programs have its name and id only.
type ThingTypeDeleted struct{ ThingType }

// ThingGroup state carried by the group events.
type ThingGroup struct {
	Group       string            `json:"group"`
	GroupID     string            `json:"groupId"`
	Parent      string            `json:"parent,omitempty"`
	Description string            `json:"description,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	Version     int64             `json:"version"`
	// Ancestors runs from the root to the direct parent.
	Ancestors []string `json:"ancestors,omitempty"`
	// AncestorIDs are the ids of Ancestors, in the same order; events of earlier
	// programs lack them.
	AncestorIDs []string `json:"ancestorIds,omitempty"`
	// Query is the definition of a dynamic group and empty for a static one.
	Query string `json:"query,omitempty"`
	// CreatedAt orders dynamic groups by age (ten-group rule).
	CreatedAt time.Time `json:"createdAt"`
}

// ThingGroupCreated reports a new static or dynamic group.
type ThingGroupCreated struct{ ThingGroup }

// ThingGroupUpdated reports the group as it is after the change.
type ThingGroupUpdated struct{ ThingGroup }

// ThingGroupDeleted reports that a group is gone, with its memberships and
// policy attachments.
type ThingGroupDeleted struct {
	Group   string `json:"group"`
	GroupID string `json:"groupId"`
	Parent  string `json:"parent,omitempty"`
	Dynamic bool   `json:"dynamic,omitempty"`
	// Description, Attributes and Version are what it had.
	Description string            `json:"description,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	Version     int64             `json:"version,omitempty"`
	// Ancestors runs from the root to Parent; AncestorIDs are their ids.
	Ancestors   []string `json:"ancestors,omitempty"`
	AncestorIDs []string `json:"ancestorIds,omitempty"`
}

// MembershipChanged reports that a thing entered or left a group.
type MembershipChanged struct {
	Group   string `json:"group"`
	Thing   string `json:"thing"`
	Added   bool   `json:"added"`
	Dynamic bool   `json:"dynamic,omitempty"`
	// GroupID and ThingID are empty in events of earlier programs.
	GroupID string `json:"groupId,omitempty"`
	ThingID string `json:"thingId,omitempty"`
	// Cause says why the index decided a dynamic membership; events of earlier
	// programs lack it, and the envelope's actor is the cause of a static one.
	Cause *MembershipCause `json:"cause,omitempty"`
}

// MembershipCause is what made the index decide a dynamic membership.
type MembershipCause struct {
	// Kind is VALUE, QUERY, THING or LIMIT.
	Kind string `json:"kind"`
	// Field is the field whose value changed, Predicate the part of the group's
	// query that looks at it, and Value what the field has come to hold, in words
	// and numbers as they are indexed; for VALUE only.
	Field     string `json:"field,omitempty"`
	Predicate string `json:"predicate,omitempty"`
	Value     string `json:"value,omitempty"`
	// Partition, Seq and At name the event that it follows from; Seq is 0 where
	// there is none.
	Partition uint32    `json:"partition,omitempty"`
	Seq       uint64    `json:"seq,omitempty"`
	At        time.Time `json:"at,omitzero"`
}

// PrincipalAttached reports that a principal may act as a thing.
type PrincipalAttached struct {
	Thing     string `json:"thing"`
	Principal string `json:"principal"`
	// Exclusive is true for EXCLUSIVE_THING.
	Exclusive bool `json:"exclusive,omitempty"`
}

// PrincipalDetached reports the end of an attachment.
type PrincipalDetached struct {
	Thing     string `json:"thing"`
	Principal string `json:"principal"`
}

// PolicyChanged reports a change of a policy or of its versions.
type PolicyChanged struct {
	Policy string       `json:"policy"`
	Change PolicyChange `json:"change"`
	// VersionID is the version created, deleted or made default.
	VersionID string `json:"versionId,omitempty"`
	// DefaultVersionID is the version in force after the change; empty when
	// the policy was deleted.
	DefaultVersionID string `json:"defaultVersionId,omitempty"`
}

// PolicyChange says what happened to a policy.
type PolicyChange string

// Policy changes.
const (
	PolicyCreated           PolicyChange = "CREATED"
	PolicyVersionCreated    PolicyChange = "VERSION_CREATED"
	PolicyVersionDeleted    PolicyChange = "VERSION_DELETED"
	PolicyDefaultVersionSet PolicyChange = "DEFAULT_VERSION_SET"
	PolicyDeleted           PolicyChange = "DELETED"
)

// PolicyAttached reports that a policy applies to a target.
type PolicyAttached struct {
	Policy string `json:"policy"`
	// Target is the ARN of a certificate or of a static thing group.
	Target string `json:"target"`
}

// PolicyDetached reports that a policy no longer applies to a target.
type PolicyDetached struct {
	Policy string `json:"policy"`
	Target string `json:"target"`
}

// CertificateCreated reports a new certificate.
type CertificateCreated struct {
	CertificateID string    `json:"certificateId"`
	Status        string    `json:"status"`
	NotAfter      time.Time `json:"notAfter"`
}

// CertificateStatusChanged reports a new certificate state.
type CertificateStatusChanged struct {
	CertificateID  string `json:"certificateId"`
	Status         string `json:"status"`
	PreviousStatus string `json:"previousStatus"`
	// Used says that a device was provisioned with the certificate, which is all
	// that it was for: its connection has a moment to hear the answer.
	Used bool `json:"used,omitempty"`
}

// CertificateDeleted reports that a certificate left the registry.
type CertificateDeleted struct {
	CertificateID string `json:"certificateId"`
}

// AuthorizerChanged reports a change of a custom authorizer or of which one is
// the default.
type AuthorizerChanged struct {
	Authorizer string           `json:"authorizer"`
	Change     AuthorizerChange `json:"change"`
	// Status is the state after the change; empty when the authorizer was deleted
	// or is the default no more.
	Status string `json:"status,omitempty"`
}

// AuthorizerChange says what happened to a custom authorizer.
type AuthorizerChange string

// Authorizer changes.
const (
	AuthorizerCreated        AuthorizerChange = "CREATED"
	AuthorizerUpdated        AuthorizerChange = "UPDATED"
	AuthorizerDeleted        AuthorizerChange = "DELETED"
	AuthorizerDefaultSet     AuthorizerChange = "DEFAULT_SET"
	AuthorizerDefaultCleared AuthorizerChange = "DEFAULT_CLEARED"
)

// ShadowUpdated reports an accepted shadow update.
type ShadowUpdated struct {
	Thing string `json:"thing"`
	// Shadow is the shadow's name; empty for the classic one.
	Shadow  string `json:"shadow,omitempty"`
	Version int64  `json:"version"`
	// Patch is the accepted state of the request:
	// {"desired":{…},"reported":{…}}, where null removes.
	Patch json.RawMessage `json:"patch"`
	// Delta is the whole remaining difference after the update; empty when
	// there is none.
	Delta json.RawMessage `json:"delta,omitempty"`
	// Timestamp is the time in whole seconds that the metadata of the
	// patched leaves carries.
	Timestamp int64 `json:"timestamp"`
	// Restored is the version that a restore brought back; 0 for any other
	// update.
	Restored int64 `json:"restored,omitempty"`
	// Base is the newest version, this one included, whose event has a Document;
	// 0 when none has. Document is the whole shadow after the update in the form
	// in which package shadow stores it: now and then, so that the patches
	// behind it make every version.
	Base     int64           `json:"base,omitempty"`
	Document json.RawMessage `json:"document,omitempty"`
}

// ShadowDeleted reports that a shadow is gone; Version is the deleted one.
type ShadowDeleted struct {
	Thing   string `json:"thing"`
	Shadow  string `json:"shadow,omitempty"`
	Version int64  `json:"version"`
	// Base is as in ShadowUpdated.
	Base int64 `json:"base,omitempty"`
}

// Session describes the connection of a presence event.
type Session struct {
	ClientID string `json:"clientId"`
	// SessionID stays the same over the connections of a persistent session;
	// ConnectionID is each connection's own.
	SessionID    string `json:"sessionId"`
	ConnectionID string `json:"connectionId,omitempty"`
	// Principal is the certificate id, or the id of another kind of principal;
	// the envelope's actor tells the kind.
	Principal string `json:"principal,omitempty"`
	// ThingName is set for exclusive attachments only.
	ThingName string `json:"thingName,omitempty"`
	IPAddress string `json:"ipAddress,omitempty"`
	// RemoteAddr is the peer's address, LocalAddr the one that it reached, both
	// with port.
	RemoteAddr string `json:"remoteAddr,omitempty"`
	LocalAddr  string `json:"localAddr,omitempty"`
	// Protocol is mqtt3.1, mqtt3.1.1 or mqtt5, Transport tcp, tls or websocket.
	Protocol  string `json:"protocol,omitempty"`
	Transport string `json:"transport,omitempty"`
	// Version is shared by a connection's connect and disconnect and grows
	// per client id.
	Version int64 `json:"version"`
	// Indexed says whether the connection counts for the thing named like
	// the client id: it is attached to the presented certificate.
	Indexed bool `json:"indexed,omitempty"`
	// Provisioning says that the certificate is for provisioning: the device is not
	// in service by this connection, which then does not count for the thing.
	Provisioning bool `json:"provisioning,omitempty"`
	// KeepAlive is the effective keep-alive in seconds.
	KeepAlive int `json:"keepAlive,omitempty"`
	// CleanSession is false for a persistent session.
	CleanSession bool `json:"cleanSession,omitempty"`
	// SessionExpiry is how many seconds the session outlives the connection, 0
	// for a clean one.
	SessionExpiry int64 `json:"sessionExpiry,omitempty"`
}

// DeviceConnected reports an accepted connection; the envelope's At is the
// time of the CONNACK.
type DeviceConnected struct{ Session }

// DeviceDisconnected reports the end of a connection.
type DeviceDisconnected struct {
	Session
	// Reason is one of the thirteen disconnect reasons.
	Reason string `json:"reason"`
}

// ConnectRefused reports a CONNECT that was not authorized.
type ConnectRefused struct {
	Session
	Reason string `json:"reason"`
}

// SubscriptionsChanged reports the filters that one packet of a connection
// added to its subscriptions or gave up.
type SubscriptionsChanged struct {
	Session
	// Subscribed is false for filters that were given up.
	Subscribed bool     `json:"subscribed,omitempty"`
	Filters    []string `json:"filters"`
}

// BillingGroup state carried by the billing group events.
type BillingGroup struct {
	BillingGroup   string `json:"billingGroup"`
	BillingGroupID string `json:"billingGroupId"`
	Description    string `json:"description,omitempty"`
	Version        int64  `json:"version"`
}

// BillingGroupCreated reports a new billing group.
type BillingGroupCreated struct{ BillingGroup }

// BillingGroupUpdated reports the group as it is after the change.
type BillingGroupUpdated struct{ BillingGroup }

// BillingGroupDeleted reports that a group is gone; its things lost it before.
type BillingGroupDeleted struct {
	BillingGroup   string `json:"billingGroup"`
	BillingGroupID string `json:"billingGroupId"`
}

// BillingGroupMembershipChanged reports that a thing entered or left a billing
// group after its creation. It changes no version of the thing.
type BillingGroupMembershipChanged struct {
	BillingGroup string `json:"billingGroup"`
	Thing        string `json:"thing"`
	Added        bool   `json:"added"`
}

// ThingDecommissioned reports that a thing was taken out of service in one act.
// The events of what that ended are in the same commit or before it.
type ThingDecommissioned struct {
	Thing   string `json:"thing"`
	ThingID string `json:"thingId"`
	// Certificates are the ids of those that were revoked with it.
	Certificates []string `json:"certificates,omitempty"`
	Reason       string   `json:"reason,omitempty"`
}

// AttributeRulesChanged reports that the attributes of a type's things are
// checked by other rules, or by none.
type AttributeRulesChanged struct {
	TypeName string `json:"typeName"`
	Removed  bool   `json:"removed,omitempty"`
}

// TagsChanged reports the tags that a resource gained and lost.
type TagsChanged struct {
	ResourceARN string            `json:"resourceArn"`
	Set         map[string]string `json:"set,omitempty"`
	Removed     []string          `json:"removed,omitempty"`
}

// EventConfigurationsChanged reports which kinds of registry events are
// published from now on.
type EventConfigurationsChanged struct {
	Enabled []string `json:"enabled,omitempty"`
}

// CACertificateChanged reports a registered authority as it is after the
// change; after a deletion only its id holds.
type CACertificateChanged struct {
	CACertificateID  string              `json:"caCertificateId"`
	Change           CACertificateChange `json:"change"`
	Status           string              `json:"status,omitempty"`
	AutoRegistration bool                `json:"autoRegistration,omitempty"`
	Mode             string              `json:"mode,omitempty"`
	// Statement is what an operator has declared about it, for that change only.
	Statement string `json:"statement,omitempty"`
	// Purpose, PreviousPurpose and Fingerprint are of a change of purpose.
	Purpose         string `json:"purpose,omitempty"`
	PreviousPurpose string `json:"previousPurpose,omitempty"`
	Fingerprint     string `json:"fingerprint,omitempty"`
}

// CACertificateChange says what happened to an authority.
type CACertificateChange string

// Changes of authorities.
const (
	CACertificateRegistered CACertificateChange = "REGISTERED"
	CACertificateUpdated    CACertificateChange = "UPDATED"
	CACertificateDeleted    CACertificateChange = "DELETED"
	// CACertificateDeclared is an operator's statement that it is trusted.
	CACertificateDeclared CACertificateChange = "DECLARED"
	// CACertificatePurposeSet says what the certificates under it are for, or
	// within which limits.
	CACertificatePurposeSet CACertificateChange = "PURPOSE_SET"
)

// RegistrationCodeChanged reports that an account's registration code was made
// or is void.
type RegistrationCodeChanged struct {
	Deleted bool `json:"deleted,omitempty"`
}

// RevocationListImported reports that an authority's list of revoked
// certificates was taken over; the certificates that it revoked have events of
// their own.
type RevocationListImported struct {
	CACertificateID string `json:"caCertificateId"`
	// Number is the list's CRL number, 0 when it has none.
	Number  int64 `json:"number,omitempty"`
	Entries int   `json:"entries"`
}

// CertificateTransferChanged reports a step of a certificate's way from one
// account to another; each of the two accounts has the event.
type CertificateTransferChanged struct {
	CertificateID string              `json:"certificateId"`
	Change        CertificateTransfer `json:"change"`
	From          fleet.Account       `json:"from"`
	To            fleet.Account       `json:"to"`
}

// CertificateTransfer is a step of a transfer.
type CertificateTransfer string

// Steps of a transfer.
const (
	CertificateTransferRequested CertificateTransfer = "REQUESTED"
	CertificateTransferAccepted  CertificateTransfer = "ACCEPTED"
	CertificateTransferRejected  CertificateTransfer = "REJECTED"
	CertificateTransferCancelled CertificateTransfer = "CANCELLED"
)

// OperatorChanged reports a change of who may operate the account or of what
// they may do. It carries no secret.
type OperatorChanged struct {
	Kind OperatorKind `json:"kind"`
	// Name is the user's, group's, role's or policy's name, or the key's id.
	Name   string `json:"name"`
	Change string `json:"change"`
}

// OperatorKind is what an OperatorChanged is about.
type OperatorKind string

// Kinds of OperatorChanged.
const (
	OperatorUser      OperatorKind = "user"
	OperatorGroup     OperatorKind = "group"
	OperatorRole      OperatorKind = "role"
	OperatorPolicy    OperatorKind = "policy"
	OperatorAccessKey OperatorKind = "access-key"
	OperatorSession   OperatorKind = "session"
)

// AccountChanged reports a new account or a changed one; it is in the log of
// the account itself.
type AccountChanged struct {
	Name   string `json:"name,omitempty"`
	Status string `json:"status"`
}

// APICalled reports one call of an operator or of a device over HTTPS, whether
// it was granted or not; the envelope's actor says who called. A call that
// changed something is reported in the commit of its first change.
type APICalled struct {
	// ID is the report's own, the same when a commit is tried again.
	ID string `json:"id,omitempty"`
	// Kind is CallAPI when it is empty.
	Kind CallKind `json:"kind,omitempty"`
	// Source is the service called, for example iot.amazonaws.com.
	Source string `json:"source"`
	// Name is the operation, for example CreateThing.
	Name     string `json:"name"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// DataEvent is a call of the data plane.
	DataEvent bool   `json:"dataEvent,omitempty"`
	UserAgent string `json:"userAgent,omitempty"`
	// SessionBegan is when the session began whose credentials signed; zero for
	// long-term keys.
	SessionBegan time.Time `json:"sessionBegan,omitzero"`
	// Parameters are the request's, without secrets.
	Parameters json.RawMessage `json:"parameters"`
	// Resources are the ARNs that the call named or made.
	Resources []string `json:"resources,omitempty"`
	// ErrorCode is empty for a call that was granted.
	ErrorCode    string `json:"errorCode,omitempty"`
	ErrorMessage string `json:"errorMessage,omitempty"`
	TLSVersion   string `json:"tlsVersion,omitempty"`
	CipherSuite  string `json:"cipherSuite,omitempty"`
	ServerName   string `json:"serverName,omitempty"`
	// Suppressed is how many calls of unproven callers were not reported since
	// the one that was reported before.
	Suppressed int `json:"suppressed,omitempty"`
}

// CallKind says how a call came about.
type CallKind string

// Kinds of calls, as the audit trail names them.
const (
	// CallAPI is a request to one of the interfaces.
	CallAPI CallKind = "AwsApiCall"
	// CallSignIn is a person who signed in or tried to.
	CallSignIn CallKind = "AwsConsoleSignIn"
	// CallService is what Muster did without a request for it.
	CallService CallKind = "AwsServiceEvent"
)

// ConfigurationChanged reports that the server runs with other settings than
// before: their names with the new values, without secrets.
type ConfigurationChanged struct {
	Settings map[string]string `json:"settings,omitempty"`
	Version  string            `json:"version,omitempty"`
}

// IndexingConfigurationChanged reports what the fleet index of the account
// holds from now on.
type IndexingConfigurationChanged struct{ fleet.Indexing }

// ConnectivityStateChanged reports a settled change of a thing's connectivity,
// as opposed to the raw connects and disconnects of its client. From and To are
// the same when only Flapping or Gateway changed.
type ConnectivityStateChanged struct {
	Thing string `json:"thing"`
	// ClientID is empty for a thing that another one speaks for.
	ClientID string `json:"clientId,omitempty"`
	// StateVersion counts the thing's changes of state, from 1.
	StateVersion int64  `json:"stateVersion"`
	From         string `json:"from"`
	To           string `json:"to"`
	// Since is when the cause happened; the envelope's At is when it was settled.
	Since time.Time `json:"since"`
	// DisconnectReason is empty unless a connection's end is the cause.
	DisconnectReason string `json:"disconnectReason,omitempty"`
	Clean            bool   `json:"clean,omitempty"`
	// Wait is how long the wait state lasted.
	Wait time.Duration `json:"wait,omitempty"`
	// SessionID and ConnectionVersion are those of the connection concerned.
	SessionID         string  `json:"sessionId,omitempty"`
	ConnectionVersion int64   `json:"connectionVersion,omitempty"`
	FlapScore         float64 `json:"flapScore,omitempty"`
	Flapping          bool    `json:"flapping,omitempty"`
	// LastSeen is when the device was last heard of; zero for never.
	LastSeen time.Time `json:"lastSeen,omitzero"`
	// Gateway is the thing whose connection this one depends on; empty for none.
	Gateway string `json:"gateway,omitempty"`
	// Blips counts interruptions so short that the device was never held to be
	// offline.
	Blips int64 `json:"blips,omitempty"`
	// Outage is how long the device was offline, at the change that ends it.
	Outage time.Duration `json:"outage,omitempty"`
	// NoHello says that the device said nothing in its first connection before
	// the time for it had passed.
	NoHello bool `json:"noHello,omitempty"`
	// Alert says that the settings in force want somebody told of this change.
	Alert bool `json:"alert,omitempty"`
}

// ConnectivitySettingsChanged reports that the things of a group, or all of the
// account for an empty group, are watched by other settings.
type ConnectivitySettingsChanged struct {
	Group   string `json:"group,omitempty"`
	Removed bool   `json:"removed,omitempty"`
}

// LatencyMeasured reports round trips between server and devices since the
// report before, one entry a thing.
type LatencyMeasured struct {
	Things []ThingLatency `json:"things"`
}

// ThingLatency sums up the round trips of one thing.
type ThingLatency struct {
	Thing string `json:"thing"`
	// LastMS, MeanMS and MaxMS are in milliseconds over Samples round trips.
	LastMS  float64 `json:"lastMs"`
	MeanMS  float64 `json:"meanMs"`
	MaxMS   float64 `json:"maxMs"`
	Samples int     `json:"samples"`
}

// BulkEditChanged reports a step of an edit of many things by one query. What
// it did to each thing has events of its own.
type BulkEditChanged struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	// Query selected the things; Things is how many are meant.
	Query  string `json:"query,omitempty"`
	Things int    `json:"things,omitempty"`
	// UndoOf is the edit that this one takes back; empty for none.
	UndoOf string `json:"undoOf,omitempty"`
	// StartedBy is the ARN of who started it.
	StartedBy string `json:"startedBy,omitempty"`
	// Changed, Unchanged, Failed and Conflicts count the things done so far.
	Changed   int `json:"changed,omitempty"`
	Unchanged int `json:"unchanged,omitempty"`
	Failed    int `json:"failed,omitempty"`
	Conflicts int `json:"conflicts,omitempty"`
	// Reason is why it failed.
	Reason string `json:"reason,omitempty"`
}

func (ThingCreated) isEvent()                  {}
func (ThingUpdated) isEvent()                  {}
func (ThingDeleted) isEvent()                  {}
func (ThingTypeCreated) isEvent()              {}
func (ThingTypeUpdated) isEvent()              {}
func (ThingTypeDeleted) isEvent()              {}
func (ThingGroupCreated) isEvent()             {}
func (ThingGroupUpdated) isEvent()             {}
func (ThingGroupDeleted) isEvent()             {}
func (MembershipChanged) isEvent()             {}
func (PrincipalAttached) isEvent()             {}
func (PrincipalDetached) isEvent()             {}
func (PolicyChanged) isEvent()                 {}
func (PolicyAttached) isEvent()                {}
func (PolicyDetached) isEvent()                {}
func (CertificateCreated) isEvent()            {}
func (CertificateStatusChanged) isEvent()      {}
func (CertificateDeleted) isEvent()            {}
func (AuthorizerChanged) isEvent()             {}
func (ShadowUpdated) isEvent()                 {}
func (ShadowDeleted) isEvent()                 {}
func (DeviceConnected) isEvent()               {}
func (DeviceDisconnected) isEvent()            {}
func (ConnectRefused) isEvent()                {}
func (SubscriptionsChanged) isEvent()          {}
func (BillingGroupCreated) isEvent()           {}
func (BillingGroupUpdated) isEvent()           {}
func (BillingGroupDeleted) isEvent()           {}
func (BillingGroupMembershipChanged) isEvent() {}
func (ThingDecommissioned) isEvent()           {}
func (AttributeRulesChanged) isEvent()         {}
func (TagsChanged) isEvent()                   {}
func (EventConfigurationsChanged) isEvent()    {}
func (CACertificateChanged) isEvent()          {}
func (RegistrationCodeChanged) isEvent()       {}
func (RevocationListImported) isEvent()        {}
func (CertificateTransferChanged) isEvent()    {}
func (OperatorChanged) isEvent()               {}
func (AccountChanged) isEvent()                {}
func (APICalled) isEvent()                     {}
func (ConfigurationChanged) isEvent()          {}
func (IndexingConfigurationChanged) isEvent()  {}
func (ConnectivityStateChanged) isEvent()      {}
func (ConnectivitySettingsChanged) isEvent()   {}
func (LatencyMeasured) isEvent()               {}
func (BulkEditChanged) isEvent()               {}
func (ProvisioningTemplateChanged) isEvent()   {}
func (DeviceProvisioned) isEvent()             {}
func (ProvisioningRefused) isEvent()           {}
func (CertificateAutoRegistered) isEvent()     {}
func (ProvisioningClaimCreated) isEvent()      {}
func (RegistrationTaskChanged) isEvent()       {}
func (CertificateProviderChanged) isEvent()    {}
func (ApprovalChanged) isEvent()               {}
func (ApprovalAuthorityChanged) isEvent()      {}
func (ApprovalBindingChanged) isEvent()        {}
func (CertificateRenewalChanged) isEvent()     {}
func (ProvisioningPlanChanged) isEvent()       {}
func (OnboardingChanged) isEvent()             {}
func (OnboardingCriteriaFailed) isEvent()      {}
func (ClaimMisused) isEvent()                  {}
func (ClaimMisuseSettled) isEvent()            {}
func (SupplierChanged) isEvent()               {}
func (AllowListChanged) isEvent()              {}
func (AllowListRead) isEvent()                 {}
func (AllowListEntryChanged) isEvent()         {}
func (DuplicateSerial) isEvent()               {}
