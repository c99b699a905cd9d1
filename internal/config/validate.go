package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Smallest retention: less would trim events before a restarting consumer
// could read them.
const (
	minRetentionAge   = time.Minute
	minRetentionBytes = 1 << 20
	// minAuditAge keeps a slip from emptying the audit trail.
	minAuditAge = 24 * time.Hour
)

// maxBulkPace is more than a store commits.
const maxBulkPace = 100_000

// maxSessionExpiry is what AWS lets an account be raised to.
const maxSessionExpiry = 604800 * time.Second

// Shapes of names.
var (
	regionPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	hostPattern   = regexp.MustCompile(`^(\*\.)?([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
)

// maxHostLength is the limit of a DNS name.
const maxHostLength = 253

// checker collects broken rules.
type checker struct{ problems []Problem }

// require records a problem unless ok.
func (c *checker) require(ok bool, path, rule string, args ...any) {
	if !ok {
		c.problems = append(c.problems, Problem{Path: path, Rule: fmt.Sprintf(rule, args...)})
	}
}

// oneOf requires one of a few words.
func (c *checker) oneOf(path, got string, allowed ...string) {
	c.require(slices.Contains(allowed, got), path, "%q is none of %s", got, strings.Join(allowed, ", "))
}

// validate returns every broken rule.
func (s *Settings) validate() []Problem {
	c := &checker{}
	c.require(s.DataDir != "", "data-dir", "must not be empty")
	c.require(regionPattern.MatchString(s.Region), "region", "%q is not a region name: lower-case letters, digits and hyphens", s.Region)
	c.require(s.AccountID.Valid(), "account-id", "%q is not twelve digits", string(s.AccountID))
	s.validateListeners(c)
	s.validateStore(c)
	s.validateNames(c)
	validateNetworks(c, "mqtt.proxy-protocol", s.MQTT.ProxyProtocol)
	validateNetworks(c, "tls.proxy-protocol", s.TLS.ProxyProtocol)
	s.validateFunctions(c)
	if s.PKI.CRLURL != "" {
		u, err := url.Parse(s.PKI.CRLURL)
		c.require(err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https"), "pki.crl-url", "%q is no http or https address", s.PKI.CRLURL)
	}
	c.oneOf("pki.device-key", s.PKI.DeviceKey, DeviceKeyRSA, DeviceKeyP256)
	c.require(s.PKI.KeyPool >= 1 && s.PKI.KeyPool <= maxKeyPool, "pki.key-pool", "must be from 1 to %d", maxKeyPool)
	c.require(s.Provisioning.ClaimRate >= 0, "provisioning.claim-rate", "must not be negative")
	c.require(s.Provisioning.ClaimOutstanding >= 0, "provisioning.claim-outstanding", "must not be negative")
	c.require(s.Provisioning.BirthSession >= time.Second && s.Provisioning.BirthSession <= maxBirthSession, "provisioning.birth-session", "must be from 1s to %v", maxBirthSession)
	c.require(s.Provisioning.ApprovalWindow > 0 && s.Provisioning.ApprovalWindow <= maxApprovalWindow, "provisioning.approval-window", "must be greater than 0s and at most %v", maxApprovalWindow)
	c.require(s.Provisioning.TaskWorkers >= 1 && s.Provisioning.TaskWorkers <= maxTaskWorkers, "provisioning.task-workers", "must be from 1 to %d", maxTaskWorkers)
	c.require(s.Provisioning.TasksPerAccount >= 1, "provisioning.tasks-per-account", "must be at least 1")
	c.require(s.Provisioning.RenewalOverlap >= minRenewal && s.Provisioning.RenewalOverlap <= maxRenewal, "provisioning.renewal-overlap", "must be from %v to %v", minRenewal, maxRenewal)
	c.require(s.Provisioning.RenewalPatience >= minRenewal && s.Provisioning.RenewalPatience <= maxRenewal, "provisioning.renewal-patience", "must be from %v to %v", minRenewal, maxRenewal)
	s.validateBootstrap(c)
	s.validateObjects(c)
	c.oneOf("mqtt.profile", s.MQTT.Profile, ProfileAWS, ProfileStandard)
	c.require(s.MQTT.SessionExpiry >= 0 && s.MQTT.SessionExpiry <= maxSessionExpiry, "mqtt.session-expiry", "must be from 0s to %v", maxSessionExpiry)
	c.require(s.MQTT.MaxQueuedMessages >= 1, "mqtt.max-queued-messages", "must be at least 1")
	c.require(s.MQTT.MaxQueuedBytes >= 1<<20, "mqtt.max-queued-bytes", "must be at least 1MiB")
	c.oneOf("log.level", s.Log.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", s.Log.Format, "text", "json")
	c.require(s.EventLog.RetentionAge >= minRetentionAge, "eventlog.retention-age", "must be at least %v", minRetentionAge)
	c.require(s.EventLog.RetentionBytes >= minRetentionBytes, "eventlog.retention-bytes", "must be at least 1MiB")
	c.require(s.History.RetentionAge >= minRetentionAge, "history.retention-age", "must be at least %v", minRetentionAge)
	c.require(s.History.RetentionBytes >= minRetentionBytes, "history.retention-bytes", "must be at least 1MiB")
	c.require(s.Membership.RetentionAge >= minRetentionAge, "membership.retention-age", "must be at least %v", minRetentionAge)
	c.require(s.Membership.RetentionBytes >= minRetentionBytes, "membership.retention-bytes", "must be at least 1MiB")
	c.require(s.BulkEdit.ThingsPerSecond >= 1 && s.BulkEdit.ThingsPerSecond <= maxBulkPace, "bulk-edit.things-per-second", "must be from 1 to %d", maxBulkPace)
	c.require(s.BulkEdit.RetentionAge >= minRetentionAge, "bulk-edit.retention-age", "must be at least %v", minRetentionAge)
	s.validateShadow(c)
	c.require(s.Audit.RetentionAge == 0 || s.Audit.RetentionAge >= minAuditAge, "audit.retention-age", "must be 0 or at least %v", minAuditAge)
	c.require(s.Registry.MaxDynamicGroups >= 0, "registry.max-dynamic-groups", "must not be negative")
	c.require(s.Registry.MaxGroupsPerThing >= 0, "registry.max-groups-per-thing", "must not be negative")
	c.require(s.Registry.MaxGroupChildren >= 1, "registry.max-group-children", "must be at least 1")
	c.require(s.Index.MaxNamedShadows >= 0, "index.max-named-shadows", "must not be negative")
	c.require(s.Index.MaxGeoLocations >= 0, "index.max-geo-locations", "must not be negative")
	c.require(s.Index.MaxCustomFields >= 0, "index.max-custom-fields", "must not be negative")
	c.require(s.Index.SnapshotEvery == 0 || s.Index.SnapshotEvery >= time.Second, "index.snapshot-every", "must be 0 or at least 1s")
	c.require(s.Registry.TypeDeletionDelay >= 0, "registry.type-deletion-delay", "must not be negative")
	s.validateLimits(c)
	s.validateSignIn(c)
	return c.problems
}

const (
	// leastBytes leaves a client the time of a keep-alive for its largest packet.
	leastBytes = 16 << 10
	// longestDrain is what those who stop a server can be asked to wait.
	longestDrain = time.Hour
)

// minRenewal and maxRenewal bound the times of renewals.
const (
	minRenewal = time.Second
	maxRenewal = 366 * 24 * time.Hour
)

// maxBirthSession is that of a certificate of its own, see registry.MaxBirthSession.
const maxBirthSession = 24 * time.Hour

// maxApprovalWindow bounds how long a certificate waits.
const maxApprovalWindow = 30 * 24 * time.Hour

// maxTaskWorkers bounds what a task takes from devices that join by themselves.
const maxTaskWorkers = 1000

// maxKeyPool bounds the keys of nobody yet in memory.
const maxKeyPool = 10_000

// validateLimits checks quotas, pace and drain.
func (s *Settings) validateLimits(c *checker) {
	for _, limit := range []struct {
		path string
		n    int
	}{
		{"limits.connection-publishes-per-second", s.Limits.ConnectionPublishes},
		{"limits.account-inbound-publishes-per-second", s.Limits.AccountPublishesIn},
		{"limits.account-outbound-publishes-per-second", s.Limits.AccountPublishesOut},
		{"limits.account-subscribes-per-second", s.Limits.AccountSubscribes},
		{"limits.account-subscriptions", s.Limits.AccountSubscriptions},
		{"limits.account-connects-per-second", s.Limits.AccountConnects},
		{"limits.client-connects-per-second", s.Limits.ClientConnects},
		{"limits.account-connections", s.Limits.AccountConnections},
		{"limits.account-retains-per-second", s.Limits.AccountRetains},
		{"admission.connects-per-second", s.Admission.ConnectsPerSecond},
		{"admission.waiting-room", s.Admission.WaitingRoom},
	} {
		c.require(limit.n >= 0, limit.path, "must not be negative")
	}
	c.require(s.Limits.ConnectionBytes == 0 || s.Limits.ConnectionBytes >= leastBytes, "limits.connection-bytes-per-second", "must be 0 or at least 16KiB")
	c.require(s.Limits.AccountRetained >= 1, "limits.account-retained-messages", "must be at least 1")
	c.require(s.Drain.Over >= 0 && s.Drain.Over <= longestDrain, "drain.over", "must be between 0s and %v", longestDrain)
}

// validateListeners checks addresses: nothing without TLS leaves loopback.
func (s *Settings) validateListeners(c *checker) {
	listeners := []struct {
		path, addr string
		plain      bool
	}{
		{"http-addr", s.HTTPAddr, true},
		{"mqtt-addr", s.MQTTAddr, false},
		{"tls-addr", s.TLSAddr, false},
		{"mqtt-insecure-addr", s.MQTTInsecureAddr, true},
	}
	taken := map[string]string{}
	for _, l := range listeners {
		if l.addr == "" {
			continue
		}
		host, port, ok := splitAddr(l.addr)
		c.require(ok, l.path, "%q is not HOST:PORT or :PORT", l.addr)
		if !ok {
			continue
		}
		c.require(!l.plain || loopback(host), l.path,
			"%q is not a loopback address; without TLS Muster listens on 127.0.0.1, ::1 or localhost only", l.addr)
		other, twice := taken[l.addr]
		c.require(port == 0 || !twice, l.path, "%q is already taken by %s", l.addr, other)
		taken[l.addr] = l.path
	}
	if s.Advertise != "" {
		host, port, ok := splitAddr(s.Advertise)
		c.require(ok && port != 0 && validHost(host), "advertise", "%q is not HOST:PORT", s.Advertise)
	}
}

// validateNetworks checks a list of networks in CIDR notation.
func validateNetworks(c *checker, path string, networks []string) {
	for _, text := range networks {
		_, ok := parseNetwork(text)
		c.require(ok, path, "%q is neither a network such as 10.0.0.0/8 nor an IP address", text)
	}
}

// parseNetwork reads a network or a single address. Bits behind the prefix are
// a slip that would mean more than was written.
func parseNetwork(text string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" && !addr.Is4In6() {
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	network, err := netip.ParsePrefix(text)
	return network, err == nil && network == network.Masked() && !network.Addr().Is4In6()
}

// validateStore checks the engine without ever repeating its URL, which may
// hold a password.
func (s *Settings) validateStore(c *checker) {
	if s.Store != StorePebble {
		u, err := url.Parse(s.Store)
		ok := err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") && (u.Host != "" || u.Query().Get("host") != "")
		c.require(ok, "store", "is neither %s nor a postgres:// URL with a host", StorePebble)
	}
	c.require(s.Bus == busEmbedded || strings.HasPrefix(s.Bus, "nats://"), "bus", "%q is neither embedded nor a nats:// URL", s.Bus)
	c.require(!strings.HasPrefix(s.Bus, "nats://"), "bus", "several nodes joined by NATS are not offered yet; use embedded")
}

// validateNames checks what goes into certificates and endpoints.
func (s *Settings) validateNames(c *checker) {
	c.require(validHost(s.Endpoint) && !strings.HasPrefix(s.Endpoint, "*"), "endpoint", "%q is not a host name or an IP address", s.Endpoint)
	c.require(validHost(s.BaseDomain) && !strings.HasPrefix(s.BaseDomain, "*"), "base-domain", "%q is not a domain", s.BaseDomain)
	for _, name := range s.TLSNames {
		c.require(validHost(name), "tls-name", "%q is not a host name or an IP address", name)
	}
	c.require((s.TLSCert == "") == (s.TLSKey == ""), "tls-cert", "tls-cert and tls-key belong together; one of them is not set")
}

// maxBootstrapWindow bounds how long a certificate is a guest.
const maxBootstrapWindow = 30 * 24 * time.Hour

// validateBootstrap checks the address at which devices ask where to join.
func (s *Settings) validateBootstrap(c *checker) {
	b := &s.Bootstrap
	c.require(b.Window >= time.Minute && b.Window <= maxBootstrapWindow, "bootstrap.window", "must be from 1m to %v", maxBootstrapWindow)
	c.require(b.CertificateRate >= 0, "bootstrap.certificate-rate", "must not be negative")
	c.require(b.AddressRate >= 0, "bootstrap.address-rate", "must not be negative")
	if b.ServerName == "" {
		return
	}
	name := strings.ToLower(strings.TrimSuffix(b.ServerName, "."))
	_, err := netip.ParseAddr(name)
	c.require(err != nil && validHost(name) && !strings.HasPrefix(name, "*"), "bootstrap.server-name", "%q is not a host name", b.ServerName)
	taken := slices.ContainsFunc(append([]string{s.Endpoint}, s.TLSNames...), func(other string) bool { return strings.EqualFold(other, name) })
	c.require(!taken, "bootstrap.server-name", "must not be endpoint or a tls-name: it serves nothing else")
	c.require(!strings.HasSuffix("."+name, "."+strings.ToLower("iot."+s.Region+"."+s.BaseDomain)), "bootstrap.server-name",
		"must not be under iot.%s.%s, where the endpoints of accounts are", s.Region, s.BaseDomain)
	c.require(s.TLSAddr != "", "bootstrap.server-name", "needs tls-addr, where it is served")
}

// splitAddr splits HOST:PORT; the host may be empty.
func splitAddr(addr string) (host string, port uint64, ok bool) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, false
	}
	port, err = strconv.ParseUint(text, 10, 16)
	if err != nil || (host != "" && !validHost(host)) {
		return "", 0, false
	}
	return host, port, true
}

// loopback reports whether only this machine can reach the host. A name other
// than localhost is refused, since what it resolves to can change.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// validHost accepts a DNS name, also with a leading wildcard label, and an IP
// address without brackets.
func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return len(host) <= maxHostLength && hostPattern.MatchString(host)
}
