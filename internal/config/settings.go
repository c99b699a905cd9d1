// Package config owns the server's settings: their names, defaults, sources
// and rules. A setting has one name, a dotted kebab-case path, which is the
// flag (--mqtt.profile), the key in the file (mqtt.profile, nested or dotted)
// and the variable (MUSTER_MQTT_PROFILE); a flag wins over a variable, a
// variable over the file, the file over the default. The package knows no
// subsystem and opens no listener, and starts no goroutines.
package config

import (
	"net/netip"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Settings is everything an operator can set. The table in fields.go holds
// names, defaults and descriptions.
type Settings struct {
	DataDir          string
	Region           string
	AccountID        fleet.Account
	HTTPAddr         string
	MQTTAddr         string
	TLSAddr          string
	MQTTInsecureAddr string
	// Store is "pebble" or a postgres:// URL, which may hold a password:
	// never log it, log StoreEngine.
	Store string
	// StoreFile names a file that holds the value of Store, so that no
	// password has to stand in a process list.
	StoreFile  string
	Bus        string
	Endpoint   string
	BaseDomain string
	// TLSNames are further names in the generated server certificates.
	TLSNames []string
	TLSCert  string
	TLSKey   string
	// Advertise is the HOST:PORT that devices reach the MQTT listener by.
	Advertise  string
	MQTT       MQTT
	TLS        TLS
	PKI        PKI
	Log        Log
	EventLog   EventLog
	History    History
	BulkEdit   BulkEdit
	Membership Membership
	Audit      Audit
	Ledger     Ledger
	Shadow     Shadow
	Registry   Registry
	Index      Index
	Limits     Limits
	Admission  Admission
	Drain      Drain
	Function   Function

	Provisioning Provisioning
	Bootstrap    Bootstrap
	AllowList    AllowList
	Objects      Objects
	SignIn       SignIn
}

// Limits are quotas of what devices may do; 0 is no limit, unless said
// otherwise.
type Limits struct {
	// ConnectionPublishes and ConnectionBytes are per second and connection.
	ConnectionPublishes int
	ConnectionBytes     int64
	// The next are per second and account, ClientConnects per client id.
	AccountPublishesIn  int
	AccountPublishesOut int
	AccountSubscribes   int
	AccountConnects     int
	ClientConnects      int
	AccountRetains      int
	// These bound what an account has at a time; AccountRetained is at least 1.
	AccountSubscriptions int
	AccountConnections   int
	AccountRetained      int
}

// Admission is how fast devices are let in.
type Admission struct {
	// ConnectsPerSecond is 0 where the number of cores decides.
	ConnectsPerSecond int
	// WaitingRoom is 0 where the pace decides.
	WaitingRoom int
}

// Drain is how devices are told to leave.
type Drain struct {
	// Over is the longest time that a stopping server takes for it.
	Over time.Duration
}

// MQTT are the broker's settings.
type MQTT struct {
	// Profile is ProfileAWS or ProfileStandard.
	Profile string
	// SessionExpiry is the longest that a session outlives its connection; 0 is
	// the profile's default.
	SessionExpiry time.Duration
	// MaxQueuedMessages bounds the messages that wait for one session,
	// MaxQueuedBytes those of all sessions together.
	MaxQueuedMessages int
	MaxQueuedBytes    int64
	// ProxyProtocol are the networks of proxies in front of the listener, empty
	// for none.
	ProxyProtocol []string
}

// TLS are settings of the handshake.
type TLS struct {
	// RequireSNI refuses connections that name no known endpoint.
	RequireSNI bool
	// ProxyProtocol is like that of MQTT, for the other listener.
	ProxyProtocol []string
}

// PKI are settings of the certificates that are issued here.
type PKI struct {
	// CRLURL is the address of the revocation list that device certificates
	// carry; empty for none.
	CRLURL string
	// DeviceKey is DeviceKeyRSA or DeviceKeyP256.
	DeviceKey string
	// KeyPool is how many key pairs are made ahead.
	KeyPool int
}

// Kinds of key pairs that are made for devices.
const (
	DeviceKeyRSA  = "rsa-2048"
	DeviceKeyP256 = "p-256"
)

// Ledger is how the ledger of devices judges.
type Ledger struct {
	// TrustClaims lets a claim or an authority that an operator made speak for the
	// devices that join by it.
	TrustClaims bool
}

// Provisioning bounds what devices that join may ask for; 0 is no bound.
type Provisioning struct {
	// ClaimRate is in certificates a minute and claim.
	ClaimRate int
	// ClaimOutstanding is how many certificates of a claim may wait.
	ClaimOutstanding int
	// RequireCADeclaration keeps authorities that proved nothing from registering
	// devices until an operator has declared that they are trusted.
	RequireCADeclaration bool
	// TaskWorkers is how many lines of a registration task are worked on at a
	// time, TasksPerAccount how many tasks; both are at least 1.
	TaskWorkers int
	// RequireBinding refuses templates without a binding, ApprovalWindow is how long a
	// device waits for people.
	RequireBinding  bool
	ApprovalWindow  time.Duration
	TasksPerAccount int
	// RenewalOverlap is how long the old certificate of a device stays good after
	// the first connection with the new one, RenewalPatience how long that
	// connection may take.
	RenewalOverlap  time.Duration
	RenewalPatience time.Duration
}

// Bootstrap is the address at which devices ask where to join.
type Bootstrap struct {
	// ServerName is the host name of the address; empty for none.
	ServerName string
	// Window is how long a device may provision once it was told where.
	Window time.Duration
	// CertificateRate and AddressRate are in questions a minute; 0 is no bound.
	CertificateRate int
	AddressRate     int
}

// AllowList is about lists of what suppliers have made.
type AllowList struct {
	// IdentityFile holds age identities; empty for none.
	IdentityFile string
}

// Log says what is logged and how.
type Log struct {
	Level  string
	Format string
}

// EventLog bounds the kept events; the first limit that is reached trims.
type EventLog struct {
	RetentionAge   time.Duration
	RetentionBytes int64
}

// History bounds the kept connection history; the first limit that is reached
// trims.
type History struct {
	RetentionAge time.Duration
	// RetentionBytes is for each account.
	RetentionBytes int64
}

// Membership bounds the kept history of memberships in groups; the first limit
// that is reached trims it.
type Membership struct {
	RetentionAge time.Duration
	// RetentionBytes is for each account.
	RetentionBytes int64
}

// Audit says what the audit trail holds and for how long.
type Audit struct {
	// RetentionAge is 0 for ever.
	RetentionAge time.Duration
	// DataEvents records calls of the data plane too.
	DataEvents bool
}

// BulkEdit bounds edits of many things by one query.
type BulkEdit struct {
	// ThingsPerSecond is for all edits together.
	ThingsPerSecond int
	// RetentionAge is how long finished edits, and what undoes them, are kept.
	RetentionAge time.Duration
}

// Shadow are rules of the device shadows.
type Shadow struct {
	// RequireThing refuses shadows of names that are not in the registry.
	RequireThing bool
	// MaxDocumentBytes and MaxDepth bound a document.
	MaxDocumentBytes int64
	MaxDepth         int
	// MaxRequestsPerSecond and MaxInFlight bound the requests of one thing; 0 is
	// no bound.
	MaxRequestsPerSecond int
	MaxInFlight          int
	// HistoryVersions is how many versions of each shadow are kept; 0 keeps none.
	HistoryVersions int
	// HistoryAge and HistoryBytes, for each account, bound the history too; 0 is
	// no bound.
	HistoryAge   time.Duration
	HistoryBytes int64
}

// Registry is what an operator may change of the registry's rules.
type Registry struct {
	// MaxDynamicGroups bounds the dynamic groups of an account; 0 is no bound.
	MaxDynamicGroups int
	// MaxGroupsPerThing bounds the groups, static and dynamic, that a thing may
	// be in; 0 is no bound.
	MaxGroupsPerThing int
	// MaxGroupChildren bounds the direct children of a thing group.
	MaxGroupChildren int
	// TypeDeletionDelay is how long a thing type must have been deprecated before
	// it can be deleted.
	TypeDeletionDelay time.Duration
	// DeleteShadowsWithThing makes DeleteThing delete the thing's shadows too.
	DeleteShadowsWithThing bool
}

// Index is about the fleet index of accounts.
type Index struct {
	// DefaultOff leaves accounts that never configured their index without one.
	DefaultOff bool
	// These bound the lists of an indexing configuration; 0 is no limit.
	MaxNamedShadows int
	MaxGeoLocations int
	MaxCustomFields int
	// SnapshotEvery is the time between snapshots beside the one at stop; 0 for none.
	SnapshotEvery time.Duration
}

// MQTT profiles.
const (
	// ProfileAWS keeps to AWS IoT's departures from the MQTT standard.
	ProfileAWS = "aws"
	// ProfileStandard lifts them.
	ProfileStandard = "standard"
)

// StorePebble selects the embedded engine.
const StorePebble = "pebble"

// busEmbedded is the only bus of this version.
const busEmbedded = "embedded"

// Networks parses a list of networks that has passed validation. A single
// address is a network of its own.
func Networks(texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		if network, ok := parseNetwork(text); ok {
			out = append(out, network)
		}
	}
	return out
}

// StoreEngine names the engine without the address that may hold a password.
func (s *Settings) StoreEngine() string {
	if s.Store == StorePebble {
		return StorePebble
	}
	return "postgres"
}
