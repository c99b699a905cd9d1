package config

import (
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// envPrefix starts every variable.
const envPrefix = "MUSTER_"

// field is one setting: where it is kept, what it is called, and what it is
// when nobody says.
type field struct {
	path string
	// text is the default as one would write it.
	text  string
	usage string
	// reload marks what a running server takes over on SIGHUP.
	reload bool
	value  func(*Settings) value
}

// env is the field's variable.
func (f *field) env() string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(f.path))
}

// fields is the one table of settings, in the order of help and docs.
func fields() []field {
	return []field{
		{
			"data-dir", "./muster-data", "folder for keys, certificates and the embedded store", false,
			func(s *Settings) value { return (*text)(&s.DataDir) },
		},
		{
			"region", "us-east-1", "region in ARNs and endpoint names", false,
			func(s *Settings) value { return (*text)(&s.Region) },
		},
		{
			"account-id", "000000000000", "default account, twelve digits", false,
			func(s *Settings) value { return (*account)(&s.AccountID) },
		},
		{
			"http-addr", "127.0.0.1:8080", "address of the API without TLS; loopback only, empty for none", false,
			func(s *Settings) value { return (*text)(&s.HTTPAddr) },
		},
		{
			"mqtt-addr", ":8883", "address of MQTT over mutual TLS, empty for none", false,
			func(s *Settings) value { return (*text)(&s.MQTTAddr) },
		},
		{
			"tls-addr", ":8443", "address of HTTPS and of MQTT chosen by ALPN, empty for none", false,
			func(s *Settings) value { return (*text)(&s.TLSAddr) },
		},
		{
			"mqtt-insecure-addr", "", "address of MQTT without TLS for tests; loopback only, empty for none", false,
			func(s *Settings) value { return (*text)(&s.MQTTInsecureAddr) },
		},
		{
			"store", StorePebble, "storage engine: pebble, or the postgres:// URL of a database", false,
			func(s *Settings) value { return (*text)(&s.Store) },
		},
		{
			"store-file", "", "file that holds the value of store, to keep a password out of the command line", false,
			func(s *Settings) value { return (*text)(&s.StoreFile) },
		},
		{
			"bus", busEmbedded, "traffic between nodes; this version offers embedded only", false,
			func(s *Settings) value { return (*text)(&s.Bus) },
		},
		{
			"endpoint", "localhost", "name that devices connect to; DescribeEndpoint answers it", false,
			func(s *Settings) value { return (*text)(&s.Endpoint) },
		},
		{
			"base-domain", "muster.internal", "domain of the accounts' endpoint names", false,
			func(s *Settings) value { return (*text)(&s.BaseDomain) },
		},
		{
			"tls-name", "", "further names or addresses in the server certificate; may be repeated", false,
			func(s *Settings) value { return (*list)(&s.TLSNames) },
		},
		{
			"tls-cert", "", "file with an own server certificate and its chain, PEM", true,
			func(s *Settings) value { return (*text)(&s.TLSCert) },
		},
		{
			"tls-key", "", "file with the key of tls-cert, PEM", true,
			func(s *Settings) value { return (*text)(&s.TLSKey) },
		},
		{
			"advertise", "", "HOST:PORT that devices reach mqtt-addr by, when it is not endpoint and that port", false,
			func(s *Settings) value { return (*text)(&s.Advertise) },
		},
		{
			"mqtt.profile", ProfileAWS, "aws keeps to AWS IoT's limits, standard follows the MQTT standard", false,
			func(s *Settings) value { return (*text)(&s.MQTT.Profile) },
		},
		{
			"mqtt.session-expiry", "0s", "longest that a persistent session outlives its connection; 0s is the profile's: 1h for aws, for ever for standard", false,
			func(s *Settings) value { return (*duration)(&s.MQTT.SessionExpiry) },
		},
		{
			"mqtt.max-queued-messages", "100000", "how many messages wait for one session; the newest is dropped beyond", false,
			func(s *Settings) value { return (*count)(&s.MQTT.MaxQueuedMessages) },
		},
		{
			"mqtt.max-queued-bytes", "1GiB", "how many bytes wait for all sessions together", false,
			func(s *Settings) value { return (*size)(&s.MQTT.MaxQueuedBytes) },
		},
		{
			"mqtt.proxy-protocol", "", "networks of the proxies that mqtt-addr is reached through, which must send PROXY protocol v2; nobody else is let in; empty for none", false,
			func(s *Settings) value { return (*list)(&s.MQTT.ProxyProtocol) },
		},
		{
			"tls.proxy-protocol", "", "networks of the proxies that tls-addr is reached through, as mqtt.proxy-protocol", false,
			func(s *Settings) value { return (*list)(&s.TLS.ProxyProtocol) },
		},
		{
			"tls.require-sni", "false", "refuse TLS connections that name no known endpoint", false,
			func(s *Settings) value { return (*flag)(&s.TLS.RequireSNI) },
		},
		{
			"pki.crl-url", "", "http or https address at which verifiers find /crl/issuing-ca.crl; written into device certificates, empty for none", false,
			func(s *Settings) value { return (*text)(&s.PKI.CRLURL) },
		},
		{
			"pki.device-key", "rsa-2048", "key pairs made here for devices: rsa-2048 as on AWS IoT, which costs tens of milliseconds each, or p-256", false,
			func(s *Settings) value { return (*text)(&s.PKI.DeviceKey) },
		},
		{
			"pki.key-pool", "4", "how many key pairs for devices are made ahead and wait in memory", false,
			func(s *Settings) value { return (*count)(&s.PKI.KeyPool) },
		},
		{
			"provisioning.claim-rate", "0", "how many certificates one claim may ask for in a minute; 0 is no bound", false,
			func(s *Settings) value { return (*count)(&s.Provisioning.ClaimRate) },
		},
		{
			"provisioning.claim-outstanding", "10000", "how many certificates that one claim has asked for may wait for their devices; 0 is no bound", false,
			func(s *Settings) value { return (*count)(&s.Provisioning.ClaimOutstanding) },
		},
		{
			"provisioning.require-ca-declaration", "false", "let a CA in mode SNI_ONLY, whose key nobody proved to hold, register devices automatically only once an operator has declared that it is trusted", false,
			func(s *Settings) value { return (*flag)(&s.Provisioning.RequireCADeclaration) },
		},
		{
			"provisioning.require-binding", "false", "refuse devices of templates that no authority is bound to decide about", false,
			func(s *Settings) value { return (*flag)(&s.Provisioning.RequireBinding) },
		},
		{
			"allow-list.identity-file", "", "file with the age identity that opens allow lists, made by age-keygen; of several the first one is sealed for, empty for an installation without allow lists", false,
			func(s *Settings) value { return (*text)(&s.AllowList.IdentityFile) },
		},
		{
			"provisioning.approval-window", "72h0m0s", "how long a device waits for people to approve it, where the binding does not say", false,
			func(s *Settings) value { return (*duration)(&s.Provisioning.ApprovalWindow) },
		},
		{
			"provisioning.task-workers", "16", "how many lines of a registration task are registered at a time", false,
			func(s *Settings) value { return (*count)(&s.Provisioning.TaskWorkers) },
		},
		{
			"provisioning.tasks-per-account", "1", "how many registration tasks of an account run at a time", false,
			func(s *Settings) value { return (*count)(&s.Provisioning.TasksPerAccount) },
		},
		{
			"provisioning.renewal-overlap", "24h", "how long the old certificate of a device that has asked for a new one stays good after the first connection with the new one", false,
			func(s *Settings) value { return (*duration)(&s.Provisioning.RenewalOverlap) },
		},
		{
			"provisioning.renewal-patience", "168h", "how long a renewal waits for the first connection with the new certificate before it is reported as unproven; the old certificate stays", false,
			func(s *Settings) value { return (*duration)(&s.Provisioning.RenewalPatience) },
		},
		{
			"bootstrap.server-name", "", "host name at which devices that know nothing else ask where to join, at tls-addr by HTTPS and at mqtt-addr; it is put into the server certificate; empty for none", false,
			func(s *Settings) value { return (*text)(&s.Bootstrap.ServerName) },
		},
		{
			"bootstrap.window", "24h", "how long a device may provision in the account that it was sent to, before it has to ask again", false,
			func(s *Settings) value { return (*duration)(&s.Bootstrap.Window) },
		},
		{
			"bootstrap.certificate-rate", "10", "how often one certificate may ask in a minute; 0 is no bound", false,
			func(s *Settings) value { return (*count)(&s.Bootstrap.CertificateRate) },
		},
		{
			"bootstrap.address-rate", "600", "how often devices of one address, or of one /64 of IPv6, may ask in a minute; 0 is no bound", false,
			func(s *Settings) value { return (*count)(&s.Bootstrap.AddressRate) },
		},
		{
			"objects.dir", "", "folder of buckets, each a folder of its files: BUCKET/KEY, for accounts other than the default one ACCOUNT/BUCKET/KEY; empty for buckets in data-dir", false,
			func(s *Settings) value { return (*text)(&s.Objects.Dir) },
		},
		{
			"objects.max-bytes", "1GiB", "how large an object may be that is written to objects.dir", false,
			func(s *Settings) value { return (*size)(&s.Objects.MaxBytes) },
		},
		{
			"objects.s3-url", "", "https://HOST[:PORT] of a store that speaks S3, for buckets there instead of in objects.dir; empty for none", false,
			func(s *Settings) value { return (*text)(&s.Objects.S3URL) },
		},
		{
			"objects.s3-region", "us-east-1", "region that requests to objects.s3-url are signed for", false,
			func(s *Settings) value { return (*text)(&s.Objects.S3Region) },
		},
		{
			"objects.s3-access-key-id", "", "access key id for objects.s3-url", false,
			func(s *Settings) value { return (*text)(&s.Objects.S3AccessKeyID) },
		},
		{
			"objects.s3-secret-file", "", "file with the secret of objects.s3-access-key-id", false,
			func(s *Settings) value { return (*text)(&s.Objects.S3SecretFile) },
		},
		{
			"objects.s3-ca-file", "", "file with the authorities of the certificate of objects.s3-url, PEM; empty for the system's", false,
			func(s *Settings) value { return (*text)(&s.Objects.S3CAFile) },
		},
		{
			"log.level", "info", "debug, info, warn or error", true,
			func(s *Settings) value { return (*text)(&s.Log.Level) },
		},
		{
			"log.format", "text", "text or json", false,
			func(s *Settings) value { return (*text)(&s.Log.Format) },
		},
		{
			"eventlog.retention-age", "168h", "how long events are kept", false,
			func(s *Settings) value { return (*duration)(&s.EventLog.RetentionAge) },
		},
		{
			"eventlog.retention-bytes", "1GiB", "how many bytes of events are kept", false,
			func(s *Settings) value { return (*size)(&s.EventLog.RetentionBytes) },
		},
		{
			"history.retention-age", "2160h", "how long connections are kept in the history after their end", false,
			func(s *Settings) value { return (*duration)(&s.History.RetentionAge) },
		},
		{
			"history.retention-bytes", "1GiB", "how many bytes of ended connections the history of an account keeps, about 1 KiB each", false,
			func(s *Settings) value { return (*size)(&s.History.RetentionBytes) },
		},
		{
			"membership.retention-age", "2160h", "how long memberships in groups are kept in the history after their end", false,
			func(s *Settings) value { return (*duration)(&s.Membership.RetentionAge) },
		},
		{
			"membership.retention-bytes", "1GiB", "how many bytes of ended memberships the history of an account keeps, about 700 bytes each", false,
			func(s *Settings) value { return (*size)(&s.Membership.RetentionBytes) },
		},
		{
			"bulk-edit.things-per-second", "500", "how many things all edits by query together change in a second", false,
			func(s *Settings) value { return (*count)(&s.BulkEdit.ThingsPerSecond) },
		},
		{
			"bulk-edit.retention-age", "720h", "how long finished edits by query are kept, with what undoes them", false,
			func(s *Settings) value { return (*duration)(&s.BulkEdit.RetentionAge) },
		},
		{
			"audit.retention-age", "9600h", "how long records of the audit trail are kept, 400 days unless set; 0 for ever", false,
			func(s *Settings) value { return (*duration)(&s.Audit.RetentionAge) },
		},
		{
			"audit.data-events", "false", "record calls of the data plane too: publish, shadows, jobs of devices over HTTPS", false,
			func(s *Settings) value { return (*flag)(&s.Audit.DataEvents) },
		},
		{
			"ledger.trust-claims", "true", "let a claim or a CA certificate that an operator made speak for the devices that join by it; without, a device that was neither announced, listed, approved nor made by an operator is raised as one that nobody made", false,
			func(s *Settings) value { return (*flag)(&s.Ledger.TrustClaims) },
		},
		{
			"shadow.require-thing", "false", "refuse shadows of names that are not in the registry", false,
			func(s *Settings) value { return (*flag)(&s.Shadow.RequireThing) },
		},
		{
			"shadow.max-document-bytes", "8KiB", "how many bytes a shadow may have, desired and reported together without metadata", false,
			func(s *Settings) value { return (*size)(&s.Shadow.MaxDocumentBytes) },
		},
		{
			"shadow.max-depth", "8", "how many levels desired and reported may have, each being level 1 itself", false,
			func(s *Settings) value { return (*count)(&s.Shadow.MaxDepth) },
		},
		{
			"shadow.max-requests-per-second", "0", "how many shadow requests a thing may make in a second, 20 on AWS; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Shadow.MaxRequestsPerSecond) },
		},
		{
			"shadow.max-in-flight", "0", "how many unanswered shadow requests a thing may have, 10 on AWS; 0 for 128 over MQTT and no limit over HTTPS", false,
			func(s *Settings) value { return (*count)(&s.Shadow.MaxInFlight) },
		},
		{
			"shadow.history-versions", "100", "how many versions of each shadow the history keeps at least; 0 keeps no history", false,
			func(s *Settings) value { return (*count)(&s.Shadow.HistoryVersions) },
		},
		{
			"shadow.history-age", "2160h", "how long the history keeps a version; 0 for no limit", false,
			func(s *Settings) value { return (*duration)(&s.Shadow.HistoryAge) },
		},
		{
			"shadow.history-bytes", "4GiB", "how many bytes of versions the history of an account keeps, about 0.5 KiB each; 0 for no limit", false,
			func(s *Settings) value { return (*size)(&s.Shadow.HistoryBytes) },
		},
		{
			"registry.max-dynamic-groups", "0", "how many dynamic groups an account may have, 100 on AWS; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Registry.MaxDynamicGroups) },
		},
		{
			"registry.max-groups-per-thing", "0", "how many groups, static and dynamic, a thing may be in, 10 on AWS; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Registry.MaxGroupsPerThing) },
		},
		{
			"registry.max-group-children", "100", "how many direct children a thing group may have", false,
			func(s *Settings) value { return (*count)(&s.Registry.MaxGroupChildren) },
		},
		{
			"registry.type-deletion-delay", "5m", "how long a thing type must be deprecated before it can be deleted", false,
			func(s *Settings) value { return (*duration)(&s.Registry.TypeDeletionDelay) },
		},
		{
			"registry.delete-shadows-with-thing", "false", "delete a thing's shadows with it; else they stay until they are deleted", false,
			func(s *Settings) value { return (*flag)(&s.Registry.DeleteShadowsWithThing) },
		},
		{
			"index.default-off", "false", "leave accounts that have not configured fleet indexing without an index, as AWS does; else everything is indexed", false,
			func(s *Settings) value { return (*flag)(&s.Index.DefaultOff) },
		},
		{
			"index.max-named-shadows", "0", "how many named shadows an indexing configuration may list; 0 for no limit, AWS allows 10", false,
			func(s *Settings) value { return (*count)(&s.Index.MaxNamedShadows) },
		},
		{
			"index.max-geo-locations", "0", "how many fields of places it may list; 0 for no limit, AWS allows 1", false,
			func(s *Settings) value { return (*count)(&s.Index.MaxGeoLocations) },
		},
		{
			"index.max-custom-fields", "0", "how many custom fields each of its parts may list; 0 for no limit, AWS allows 5", false,
			func(s *Settings) value { return (*count)(&s.Index.MaxCustomFields) },
		},
		{
			"index.snapshot-every", "5m", "time between snapshots of the fleet index, from which a restart goes on; 0 for none but at stop", false,
			func(s *Settings) value { return (*duration)(&s.Index.SnapshotEvery) },
		},
		{
			"limits.connection-publishes-per-second", "0", "messages of one connection in both directions; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.ConnectionPublishes) },
		},
		{
			"limits.connection-bytes-per-second", "0", "bytes that are read from one connection, the rest waits; 0 for no limit", false,
			func(s *Settings) value { return (*size)(&s.Limits.ConnectionBytes) },
		},
		{
			"limits.account-inbound-publishes-per-second", "0", "messages that the devices of an account publish; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.AccountPublishesIn) },
		},
		{
			"limits.account-outbound-publishes-per-second", "0", "messages to the devices of an account; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.AccountPublishesOut) },
		},
		{
			"limits.account-subscribes-per-second", "0", "new subscriptions of an account; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.AccountSubscribes) },
		},
		{
			"limits.account-subscriptions", "0", "subscriptions that an account holds; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.AccountSubscriptions) },
		},
		{
			"limits.account-connects-per-second", "0", "connections that an account opens; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.AccountConnects) },
		},
		{
			"limits.client-connects-per-second", "0", "connections that one client id opens; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.ClientConnects) },
		},
		{
			"limits.account-connections", "0", "connections that an account has open; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.AccountConnections) },
		},
		{
			"limits.account-retains-per-second", "0", "messages to be retained that an account publishes; 0 for no limit", false,
			func(s *Settings) value { return (*count)(&s.Limits.AccountRetains) },
		},
		{
			"limits.account-retained-messages", "500000", "messages that an account retains", false,
			func(s *Settings) value { return (*count)(&s.Limits.AccountRetained) },
		},
		{
			"admission.connects-per-second", "0", "pace at which devices are let in when more come; 0 for 700 per core", false,
			func(s *Settings) value { return (*count)(&s.Admission.ConnectsPerSecond) },
		},
		{
			"admission.waiting-room", "0", "connections that wait for their turn; 0 for five seconds' worth of the pace", false,
			func(s *Settings) value { return (*count)(&s.Admission.WaitingRoom) },
		},
		{
			"drain.over", "5s", "longest time over which a stopping server tells its devices to leave, at least 1000 per second; 0 for at once", false,
			func(s *Settings) value { return (*duration)(&s.Drain.Over) },
		},
		{
			"function.target", "", "NAME=exec:/PATH or NAME=https://URL in place of the cloud function NAME; may be repeated", false,
			func(s *Settings) value { return (*list)(&s.Function.Targets) },
		},
		{
			"function.secret-file", "", "file with the secret that signs requests to functions, at least 16 bytes", false,
			func(s *Settings) value { return (*text)(&s.Function.SecretFile) },
		},
		{
			"sign-in.session", "1h0m0s", "how long people who sign in to the console are in, 15m to 12h", false,
			func(s *Settings) value { return (*duration)(&s.SignIn.Session) },
		},
		{
			"sign-in.max-failures", "5", "failed sign-ins of one user from one address in the window before more are refused", false,
			func(s *Settings) value { return (*count)(&s.SignIn.MaxFailures) },
		},
		{
			"sign-in.max-failures-total", "500", "failed sign-ins of all in the window; beyond, only those get on who signed in from their address before", false,
			func(s *Settings) value { return (*count)(&s.SignIn.MaxFailuresTotal) },
		},
		{
			"sign-in.failure-window", "5m0s", "time in which failed sign-ins are counted", false,
			func(s *Settings) value { return (*duration)(&s.SignIn.FailureWindow) },
		},
		{
			"sign-in.oidc.issuer", "", "URL of an OpenID provider that vouches for people, empty for none", false,
			func(s *Settings) value { return (*text)(&s.SignIn.OIDC.Issuer) },
		},
		{
			"sign-in.oidc.client-id", "", "what the provider calls this server", false,
			func(s *Settings) value { return (*text)(&s.SignIn.OIDC.ClientID) },
		},
		{
			"sign-in.oidc.client-secret-file", "", "file with the secret that the provider gave this server, empty for none", false,
			func(s *Settings) value { return (*text)(&s.SignIn.OIDC.ClientSecretFile) },
		},
		{
			"sign-in.oidc.redirect-url", "", "https://HOST" + OIDCCallback + ", as the provider knows it", false,
			func(s *Settings) value { return (*text)(&s.SignIn.OIDC.RedirectURL) },
		},
		{
			"sign-in.oidc.scopes", "profile,email", "scopes to ask for beside openid; may be repeated", false,
			func(s *Settings) value { return (*list)(&s.SignIn.OIDC.Scopes) },
		},
		{
			"sign-in.oidc.claim", "groups", "claim that roles are mapped by; dots lead into objects, as in realm_access.roles", false,
			func(s *Settings) value { return (*text)(&s.SignIn.OIDC.Claim) },
		},
		{
			"sign-in.oidc.role-map", "", "VALUE=ROLE, the role of whom the claim says VALUE; the first that fits; may be repeated", false,
			func(s *Settings) value { return (*list)(&s.SignIn.OIDC.Roles) },
		},
	}
}

// lookup finds a field by its path.
func lookup(all []field, path string) (*field, bool) {
	for i := range all {
		if all[i].path == path {
			return &all[i], true
		}
	}
	return nil, false
}

// Default returns the settings that are in force when nothing is set.
func Default() Settings {
	var s Settings
	for _, f := range fields() {
		// No error: the defaults are constants and a test sets each.
		_ = f.value(&s).Set(f.text)
	}
	return s
}

// Setting describes one setting for documentation.
type Setting struct {
	Path, Env, Default, Usage string
	// Reloadable says that SIGHUP puts a new value in force.
	Reloadable bool
}

// Describe lists all settings in order.
func Describe() []Setting {
	all := fields()
	out := make([]Setting, len(all))
	for i, f := range all {
		out[i] = Setting{Path: f.path, Env: f.env(), Default: f.text, Usage: f.usage, Reloadable: f.reload}
	}
	return out
}

// Reload takes the reloadable settings of next into current. The second
// result names the other settings that differ and need a restart.
func Reload(current, next Settings) (merged Settings, needRestart []string) {
	merged = current
	for _, f := range fields() {
		was, is := f.value(&merged), f.value(&next)
		if was.String() == is.String() {
			continue
		}
		if !f.reload {
			needRestart = append(needRestart, f.path)
			continue
		}
		// No error: the text comes from a value that was accepted.
		_ = was.Set(is.String())
	}
	return merged, needRestart
}

// account adapts fleet.Account to a settable value.
type account fleet.Account

// Set keeps the text; validation reports a wrong one with the others.
func (a *account) Set(in string) error { *a = account(in); return nil }

// String returns the number.
func (a *account) String() string { return string(*a) }

// Type names the kind in help.
func (*account) Type() string { return "digits" }

// duration adapts time.Duration.
type duration time.Duration

// Set accepts Go's notation, such as 90m or 168h.
func (d *duration) Set(in string) error {
	v, err := time.ParseDuration(in)
	if err != nil {
		return errDuration
	}
	*d = duration(v)
	return nil
}

// String returns Go's notation.
func (d *duration) String() string { return time.Duration(*d).String() }

// Type names the kind in help.
func (*duration) Type() string { return "duration" }
