package app

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/registry"
)

// jitTemplate makes a thing named like the certificate that may do everything.
const jitTemplate = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}}}}}`

// automatic lets an authority register devices, by a template unless it is "".
func (a *authority) automatic(template string) {
	a.s.t.Helper()
	yes := true
	c := registry.UpdateCACommand{ID: a.id, AutoRegistration: &yes}
	if template != "" {
		c.RegistrationConfig = &registry.RegistrationConfig{TemplateBody: template, RoleARN: "arn:aws:iam::000000000000:role/p"}
	}
	a.s.need(a.s.registry.UpdateCACertificate(a.s.t.Context(), a.s.account, c))
}

// newcomer is a device of the authority that nobody has registered.
func (a *authority) newcomer(name string, serial int64, life time.Duration) badge {
	a.s.t.Helper()
	_, pair := a.issue(name, serial, life)
	b := badge{id: registry.CertificateID(pair.Certificate[0]), pair: pair}
	b.arn = a.s.arn(fleet.ARNCertificate, b.id)
	return b
}

// eventually polls until something holds.
func (s *site) eventually(what string, holds func() bool) {
	s.t.Helper()
	for late := time.Now().Add(15 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			s.t.Fatal("not seen: " + what)
		}
	}
}

// status is that of a certificate; empty for one that is not registered.
func (s *site) status(of fleet.Account, id string) string {
	s.t.Helper()
	c, err := s.registry.DescribeCertificate(s.t.Context(), of, id)
	if err != nil {
		return ""
	}
	return c.Status
}

// told is what explains the last refusal of a certificate.
func (s *site) told(of fleet.Account, id string) string {
	found := s.devices.PrincipalRefusals(of, id).Refusals
	if len(found) == 0 || len(found[0].Hints) == 0 {
		return ""
	}
	return found[0].Hints[0]
}

// reach opens a connection to a listener by name and ALPN.
func (s *site) reach(listener, serverName, alpn string, b badge, clientID string) (*client.Client, error) {
	s.t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{b.pair}, ServerName: serverName, InsecureSkipVerify: true}
	if alpn != "" {
		config.NextProtos = []string{alpn}
	}
	conn, err := client.Dial(s.t.Context(), s.Addr(listener).String(), config)
	s.need(err)
	c, err := client.Connect(s.t.Context(), conn, client.Options{ClientID: clientID, Version: mqtt.V5})
	if err == nil {
		s.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// Mission M12: an unknown certificate of a registered authority becomes a
// configured thing on its own, whatever listener it comes to: refused at first,
// let in when its template has run.
func TestJustInTimeOnEveryListener(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.authority(registry.ModeDefault)
	a.automatic(jitTemplate)
	for i, c := range []struct {
		name string
		try  func(badge, string) bool
	}{
		{"mqtt-port", func(b badge, name string) bool {
			_, err := s.reach(listenerMQTT, "localhost", "", b, name)
			return s.may(err)
		}},
		{"no-sni", func(b badge, name string) bool {
			_, err := s.reach(listenerMQTT, "", "", b, name)
			return s.may(err)
		}},
		{"alpn", func(b badge, name string) bool {
			_, err := s.reach(listenerTLS, "localhost", "x-amzn-mqtt-ca", b, name)
			return s.may(err)
		}},
		{"first-byte", func(b badge, name string) bool {
			_, err := s.reach(listenerTLS, "localhost", "", b, name)
			return s.may(err)
		}},
		{"https", func(b badge, _ string) bool {
			return s.https(b, http.MethodPost, "/topics/t?qos=1", "x") == http.StatusOK
		}},
	} {
		b := a.newcomer(c.name, int64(100+i), time.Hour)
		if c.try(b, c.name) {
			t.Errorf("%s: let in at once", c.name)
		}
		s.eventually(c.name+" is active", func() bool { return s.status(s.account, b.id) == registry.StatusActive })
		if !c.try(b, c.name) {
			t.Errorf("%s: not let in afterwards", c.name)
		}
		if _, err := s.registry.DescribeThing(t.Context(), s.account, c.name); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.name != "https" {
			s.eventually("what became of "+c.name, func() bool { return strings.Contains(s.told(s.account, b.id), "is ACTIVE now") })
		}
	}
}

// Mission M13: the event of just-in-time registration reaches a subscriber, who
// activates the certificate; the device is let in then.
func TestJustInTimeRegistrationEvent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.authority(registry.ModeDefault)
	a.automatic("")
	operator := s.badge(&x509.Certificate{})
	s.policy("p", mayAll, operator.arn)
	heard := make(chan string, 4)
	c, err := s.dial(operator, client.Options{ClientID: "operator", OnMessage: func(p *mqtt.Publish) { heard <- string(p.Topic) + " " + string(p.Payload) }})
	s.need(err)
	if code := s.code(c, "$aws/events/certificates/registered/"+a.id); code != 1 {
		t.Fatalf("SUBACK 0x%02X", code)
	}
	b := a.newcomer("pump-1", 7, time.Hour)
	for range 3 { // announced once in a minute
		if _, err := s.dial(b, client.Options{ClientID: "pump-1"}); s.may(err) {
			t.Fatal("let in before it was activated")
		}
		s.eventually("the certificate", func() bool { return s.status(s.account, b.id) == registry.StatusPendingActivation })
	}
	got := s.next(heard)
	for _, want := range []string{
		"$aws/events/certificates/registered/" + a.id + " ", `"certificateId":"` + b.id + `"`, `"caCertificateId":"` + a.id + `"`,
		`"certificateStatus":"PENDING_ACTIVATION"`, `"awsAccountId":"` + string(s.account) + `"`, `"certificateRegistrationTimestamp":"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("heard %s, want %s in it", got, want)
		}
	}
	s.need(s.registry.UpdateCertificate(t.Context(), s.account, b.id, registry.StatusActive))
	s.need(s.registry.AttachPolicy(t.Context(), s.account, "p", b.arn))
	s.thing("pump-1", nil, b.arn)
	if !s.publishes(s.connect(b, "pump-1"), "t") {
		t.Error("the device is let in and may nothing")
	}
	if len(heard) != 0 {
		t.Errorf("heard again within a minute: %s", <-heard)
	}
}

// Who is not taken up is told why, by the certificate's id and by client id; the
// log has the reason as well.
func TestJustInTimeRefusalsAreExplained(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.authority(registry.ModeDefault)
	try := func(b badge, want string) {
		t.Helper()
		if _, err := s.dial(b, client.Options{ClientID: "c-" + b.id[:8]}); s.may(err) {
			t.Fatal("let in")
		}
		s.eventually(want, func() bool { return strings.Contains(s.told(s.account, b.id), want) })
		if found := s.refusals("c-" + b.id[:8]); len(found) == 0 || found[0].Outcome != deviceauth.OutcomeUnauthenticated || len(found[0].Hints) != 1 {
			t.Errorf("by client id: %+v", found)
		}
	}
	try(a.newcomer("x", 1, time.Hour), "automatic registration is not enabled for the CA certificate "+a.id)
	a.automatic(jitTemplate)
	expired := a.newcomer("x", 2, -time.Minute)
	try(expired, "the certificate expired on")
	stranger := strangerCertificate(t)
	try(badge{id: registry.CertificateID(stranger.Certificate[0]), pair: stranger}, "its issuer is no registered CA certificate")
	waiting := a.newcomer("not a name", 3, time.Hour)
	try(waiting, "was not provisioned: ")
	s.need(s.registry.UpdateCACertificate(t.Context(), s.account, registry.UpdateCACommand{ID: a.id, Status: registry.StatusInactive}))
	try(waiting, "the CA certificate "+a.id+" is INACTIVE and registers no devices")
	try(a.newcomer("x", 4, time.Hour), "the CA certificate "+a.id+" is INACTIVE and registers no devices")
}

// Many first connects of one device at once: one certificate, one thing.
func TestJustInTimeConnectsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.authority(registry.ModeDefault)
	a.automatic(jitTemplate)
	b := a.newcomer("pump-1", 7, time.Hour)
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			conn, err := client.Dial(t.Context(), s.Addr(listenerMQTT).String(), &tls.Config{Certificates: []tls.Certificate{b.pair}, ServerName: "localhost", InsecureSkipVerify: true})
			if err != nil {
				t.Error(err)
				return
			}
			if c, err := client.Connect(t.Context(), conn, client.Options{ClientID: "pump-1", Version: mqtt.V5}); err == nil {
				_ = c.Close()
			}
		})
	}
	wait.Wait()
	s.eventually("the certificate is active", func() bool { return s.status(s.account, b.id) == registry.StatusActive })
	certificates, err := s.registry.ListCertificatesByCA(t.Context(), s.account, a.id, true, registry.Page{Limit: 10})
	s.need(err)
	things, err := s.registry.ListThings(t.Context(), s.account, registry.ListThingsFilter{}, registry.Page{Limit: 10})
	s.need(err)
	if len(certificates.Items) != 1 || len(things.Items) != 1 {
		t.Errorf("%d certificates, %d things", len(certificates.Items), len(things.Items))
	}
	s.connect(b, "pump-1")
}

// Ruling 3, mission M15: one certificate in two accounts, chosen by the name that
// the device asks for, under an authority that both have in mode SNI_ONLY.
func TestJustInTimeInTwoAccounts(t *testing.T) {
	t.Parallel()
	const north = fleet.Account("210000000001")
	s := newSite(t)
	_, _, err := s.accounts.CreateAccount(t.Context(), s.account, account.NewAccount{ID: north, Name: "North"})
	s.need(err)
	a := s.authority(registry.ModeSNIOnly)
	a.automatic(jitTemplate)
	config := &registry.RegistrationConfig{TemplateBody: strings.Replace(jitTemplate, `{"Ref":"AWS::IoT::Certificate::CommonName"}`, `{"Fn::Join":["-",["north",{"Ref":"AWS::IoT::Certificate::CommonName"}]]}`, 1), RoleARN: "arn:aws:iam::000000000000:role/p"}
	_, err = s.registry.RegisterCACertificate(t.Context(), north, registry.RegisterCACommand{
		CertificatePEM: certificatePEM(a.cert.Raw), Mode: registry.ModeSNIOnly, Active: true, AutoRegistration: true, RegistrationConfig: config,
	})
	s.need(err)
	b := a.newcomer("pump-1", 7, time.Hour)
	endpoint := account.EndpointsOf(north, s.settings.Region, s.settings.BaseDomain).Data
	// Without a name the certificate is registered nowhere.
	if _, err := s.reach(listenerMQTT, "", "", b, "pump-1"); s.may(err) {
		t.Fatal("let in")
	}
	s.eventually("the reason", func() bool { return strings.Contains(s.told(s.account, b.id), "SNI_ONLY") })
	for _, in := range []struct {
		of          fleet.Account
		name, thing string
	}{{s.account, "localhost", "pump-1"}, {north, endpoint, "north-pump-1"}} {
		if _, err := s.reach(listenerMQTT, in.name, "", b, in.thing); s.may(err) {
			t.Fatalf("%s: let in at once", in.of)
		}
		s.eventually("the certificate is active", func() bool { return s.status(in.of, b.id) == registry.StatusActive })
		if _, err := s.registry.DescribeThing(t.Context(), in.of, in.thing); err != nil {
			t.Errorf("%s: %v", in.of, err)
		}
		c, err := s.reach(listenerMQTT, in.name, "", b, in.thing)
		s.need(err)
		if !s.publishes(c, "t") {
			t.Errorf("%s: may nothing", in.of)
		}
	}
	things, err := s.registry.ListThings(t.Context(), s.account, registry.ListThingsFilter{}, registry.Page{Limit: 10})
	s.need(err)
	if len(things.Items) != 1 {
		t.Errorf("%d things in the default account", len(things.Items))
	}
}

// The setting keeps an authority that proved nothing from registering devices
// until an operator has said why it is trusted.
func TestRequiredDeclaration(t *testing.T) {
	t.Parallel()
	settings := settings(t)
	settings.Provisioning.RequireCADeclaration = true
	app := newApp(t, settings)
	if err := app.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &site{App: app, t: t, account: app.settings.AccountID}
	a := s.authority(registry.ModeSNIOnly)
	a.automatic(jitTemplate)
	b := a.newcomer("pump-1", 7, time.Hour)
	if _, err := s.dial(b, client.Options{ClientID: "pump-1"}); s.may(err) {
		t.Fatal("let in")
	}
	s.eventually("the reason", func() bool {
		return strings.Contains(s.told(s.account, b.id), "no operator has declared that it is trusted")
	})
	_, err := s.registry.DeclareCA(t.Context(), s.account, a.id, "Contract 7 with Acme")
	s.need(err)
	if _, err := s.dial(b, client.Options{ClientID: "pump-1"}); s.may(err) {
		t.Fatal("let in at once")
	}
	s.eventually("the certificate is active", func() bool { return s.status(s.account, b.id) == registry.StatusActive })
}
