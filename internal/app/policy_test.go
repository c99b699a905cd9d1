package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/registry"
)

// site is a whole server in this process, for tests of policies through real
// connections.
type site struct {
	*App
	t       *testing.T
	account fleet.Account
}

// newSite starts a server; prepare may change it before.
func newSite(t *testing.T, prepare ...func(*App)) *site {
	t.Helper()
	a := newApp(t, settings(t))
	for _, change := range prepare {
		change(a)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &site{App: a, t: t, account: a.settings.AccountID}
}

// need fails the test on an error.
func (s *site) need(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// arn is a name of ours.
func (s *site) arn(kind, name string) string {
	return fleet.Scope{Region: s.settings.Region, Account: s.account}.ARN(kind, name)
}

// document completes statements: "@:" is our region and account.
func (s *site) document(statements string) string {
	return `{"Version":"2012-10-17","Statement":[` + strings.ReplaceAll(statements, "@:", s.arn("", "")[:len(s.arn("", ""))-1]) + `]}`
}

// policy makes a policy of statements and attaches it.
func (s *site) policy(name, statements string, targets ...string) {
	s.t.Helper()
	_, err := s.registry.CreatePolicy(s.t.Context(), s.account, name, s.document(statements))
	s.need(err)
	for _, target := range targets {
		s.need(s.registry.AttachPolicy(s.t.Context(), s.account, name, target))
	}
}

// thing makes a thing that the principals are attached to.
func (s *site) thing(name string, attributes map[string]string, principals ...string) {
	s.t.Helper()
	_, err := s.registry.CreateThing(s.t.Context(), s.account, registry.CreateThingCommand{Name: name, Attributes: attributes})
	s.need(err)
	for _, p := range principals {
		s.need(s.registry.AttachThingPrincipal(s.t.Context(), s.account, name, p, ""))
	}
}

// badge is a registered certificate with its key.
type badge struct {
	id, arn string
	pair    tls.Certificate
}

// badge registers a self-signed certificate.
func (s *site) badge(template *x509.Certificate) badge {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.need(err)
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(77)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	s.need(err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	registered, err := s.registry.RegisterCertificateWithoutCA(s.t.Context(), s.account, string(text), deviceauth.StatusActive)
	s.need(err)
	return badge{id: registered.ID, arn: registered.ARN, pair: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// wire opens a connection by mutual TLS.
func (s *site) wire(b badge) net.Conn {
	s.t.Helper()
	conn, err := client.Dial(s.t.Context(), s.Addr(listenerMQTT).String(), &tls.Config{
		Certificates: []tls.Certificate{b.pair}, ServerName: "localhost", InsecureSkipVerify: true,
	})
	s.need(err)
	return conn
}

// dial tries to connect with MQTT 5.
func (s *site) dial(b badge, o client.Options) (*client.Client, error) {
	s.t.Helper()
	if o.Version == 0 {
		o.Version = mqtt.V5
	}
	c, err := client.Connect(s.t.Context(), s.wire(b), o)
	if err == nil {
		s.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// connect is dial that must succeed.
func (s *site) connect(b badge, clientID string) *client.Client {
	s.t.Helper()
	c, err := s.dial(b, client.Options{ClientID: clientID})
	s.need(err)
	return c
}

// may reports whether a request was granted; any other answer than "not
// authorized" fails the test.
func (s *site) may(err error) bool {
	s.t.Helper()
	if refused := (*client.RefusedError)(nil); errors.As(err, &refused) && refused.Reason == mqtt.NotAuthorized {
		return false
	}
	s.need(err)
	return true
}

// publishes reports whether a client may publish to a topic.
func (s *site) publishes(c *client.Client, topic string) bool {
	s.t.Helper()
	return s.may(c.Publish(s.t.Context(), topic, 1, nil))
}

// code subscribes to one filter.
func (s *site) code(c *client.Client, filter string) mqtt.ReasonCode {
	s.t.Helper()
	codes, err := c.Subscribe(s.t.Context(), mqtt.Subscription{Filter: filter, QoS: 1})
	s.need(err)
	return codes[0]
}

// next is the next topic received.
func (s *site) next(got <-chan string) string {
	s.t.Helper()
	select {
	case topic := <-got:
		return topic
	case <-time.After(10 * time.Second):
		s.t.Fatal("nothing was received")
		return ""
	}
}

// refusals are those of a client, as the server tells them.
func (s *site) refusals(clientID string) []deviceauth.Refusal {
	return s.devices.ClientRefusals(s.account, clientID).Refusals
}

const mayConnect = `{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}`

// Every variable of security-provisioning 1.4, from a real handshake: what
// matches may be published to, and nothing else.
func TestPolicyVariablesOverMQTT(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	name := pkix.Name{
		CommonName: "cn", Country: []string{"GB"}, Organization: []string{"org"}, OrganizationalUnit: []string{"ou", "ou2"},
		Province: []string{"state"}, SerialNumber: "sn",
	}
	for oid, value := range map[int]string{4: "surname", 12: "title", 42: "given", 43: "ini", 44: "III", 46: "dnq", 65: "pseudonym"} {
		name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, oid}, Value: value})
	}
	b := s.badge(&x509.Certificate{
		Subject: name, SerialNumber: big.NewInt(4711), DNSNames: []string{"dns.example"}, EmailAddresses: []string{"a@b.example"},
		URIs: []*url.URL{{Scheme: "urn", Opaque: "x"}}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1).To4()},
	})
	_, err := s.registry.CreateThingType(t.Context(), s.account, registry.CreateThingTypeCommand{Name: "Pump"})
	s.need(err)
	_, err = s.registry.CreateThing(t.Context(), s.account, registry.CreateThingCommand{Name: "pump-7", TypeName: "Pump", Attributes: map[string]string{"site": "leeds"}})
	s.need(err)
	s.need(s.registry.AttachThingPrincipal(t.Context(), s.account, "pump-7", b.arn, ""))
	values := map[string]string{
		"iot:ClientId": "pump-7", "aws:SourceIp": "127.0.0.1", "iot:DomainName": "localhost", "iot:CertificateId": b.id,
		"iot:Connection.Thing.ThingName": "pump-7", "iot:Connection.Thing.ThingTypeName": "Pump",
		"iot:Connection.Thing.Attributes[site]": "leeds", "iot:Connection.Thing.IsAttached": "true", "iot:Certificate.SerialNumber": "4711",
	}
	for _, side := range []string{"Subject", "Issuer"} {
		for field, value := range map[string]string{
			"DistinguishedNameQualifier": "dnq", "Country": "GB", "Organization": "org", "OrganizationalUnit": "ou", "OrganizationalUnit.1": "ou2",
			"State": "state", "CommonName": "cn", "SerialNumber": "sn", "Title": "title", "Surname": "surname", "GivenName": "given",
			"Initials": "ini", "Pseudonym": "pseudonym", "GenerationQualifier": "III",
		} {
			values["iot:Certificate."+side+"."+field] = value
		}
	}
	for field, value := range map[string]string{
		"RFC822Name": "a@b.example", "DNSName": "dns.example", "UniformResourceIdentifier": "urn:x", "IPAddress": "192.0.2.1",
	} {
		values["iot:Certificate.Subject.AlternativeName."+field] = value
	}
	topics, n := map[string]string{}, 0
	var resources []string
	flush := func() {
		s.policy(fmt.Sprint("p", len(topics)), `{"Effect":"Allow","Action":"iot:Publish","Resource":[`+strings.Join(resources, ",")+`]}`, b.arn)
		resources = nil
	}
	for variable, value := range values {
		n++
		topics[variable] = fmt.Sprint("v/", n, "/", value)
		resources = append(resources, fmt.Sprintf(`"@:topic/v/%d/${%s}"`, n, variable))
		if len(resources) == 15 {
			flush()
		}
	}
	flush()
	s.policy("connect", mayConnect, b.arn)
	c := s.connect(b, "pump-7")
	for variable, topic := range topics {
		if !s.publishes(c, topic) {
			t.Errorf("%s has not its value %s", variable, topic)
		}
		if s.publishes(c, topic+"x") {
			t.Errorf("%s has any value", variable)
		}
	}
	// As another client, what is of the connection's thing has no value.
	c = s.connect(b, "pump-8")
	for variable, topic := range topics {
		want := !strings.HasPrefix(variable, "iot:Connection.") && variable != "iot:ClientId"
		if got := s.publishes(c, topic); got != want {
			t.Errorf("as another client %s: %v, want %v", variable, got, want)
		}
	}
}

// An alias stands for a topic whose policy is asked on each packet, also when the
// packet that set it was refused.
func TestPolicyOfAliases(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("p", mayConnect+`,{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/good"}`, b.arn)
	c := s.connect(b, "c")
	publish := func(topic string, alias uint16) bool {
		p := &mqtt.Publish{Topic: []byte(topic), QoS: 1}
		p.Properties.Set, p.Properties.TopicAlias = mqtt.Of(mqtt.PropTopicAlias), alias
		return s.may(c.PublishPacket(t.Context(), p))
	}
	for _, step := range []struct {
		topic string
		alias uint16
		want  bool
	}{{"good", 1, true}, {"", 1, true}, {"bad", 2, false}, {"", 2, false}, {"bad", 1, false}, {"", 1, false}, {"good", 2, true}, {"", 2, true}} {
		if got := publish(step.topic, step.alias); got != step.want {
			t.Errorf("%+v: %v", step, got)
		}
	}
	s.need(s.registry.DetachPolicy(t.Context(), s.account, "p", b.arn))
	if publish("", 2) {
		t.Error("an alias outlived its permission")
	}
	if r := s.refusals("c"); len(r) != 2 || r[1].Name != "bad" || r[1].Count != 4 {
		t.Errorf("refusals %+v", r)
	}
}

// The will and the features of a CONNECT: security-provisioning 1.2, device-plane
// 2.2, for both versions of the protocol.
func TestPolicyOfConnect(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("p", `{"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/clean*","Condition":{"Null":{"iot:ConnectAttributes":"true"}}},
	 {"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/will*","Condition":{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["LastWill"]}}},
	 {"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/all*","Condition":{"ForAnyValue:StringEquals":{"iot:ConnectAttributes":["PersistentConnect"]}}},
	 {"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/will"}`, b.arn)
	will := &mqtt.Will{Topic: "will"}
	for _, c := range []struct {
		id         string
		persistent bool
		will       *mqtt.Will
		want       bool
	}{
		{"clean", false, nil, true},
		{"clean", true, nil, false},
		{"clean", false, will, false},
		{"will", false, nil, true},
		{"will", false, will, true},
		{"will", true, will, false},
		{"will", false, &mqtt.Will{Topic: "elsewhere"}, false},
		{"all", false, will, false},
		{"all", true, will, true},
		{"other", false, nil, false},
	} {
		for _, version := range []mqtt.Version{mqtt.V311, mqtt.V5} {
			o := client.Options{ClientID: c.id + fmt.Sprint(version), Version: version, Persistent: c.persistent, Will: c.will}
			if version == mqtt.V5 && c.persistent {
				o.Properties.Set, o.Properties.SessionExpiry = mqtt.Of(mqtt.PropSessionExpiry), 60
			}
			connected, err := s.dial(b, o)
			refused := (*client.RefusedError)(nil)
			code := mqtt.NotAuthorized
			if version == mqtt.V311 {
				code = mqtt.ReasonCode(mqtt.ReturnNotAuthorized)
			}
			if (err == nil) != c.want || err != nil && (!errors.As(err, &refused) || refused.Reason != code) {
				t.Errorf("version %d, %+v: %v", version, c, err)
			}
			if err == nil {
				_ = connected.Close()
			}
		}
	}
	if r := s.refusals("will5"); len(r) != 2 || r[0].Packet != deviceauth.PacketConnect || r[0].Action != "iot:Publish" || r[0].Name != "elsewhere" {
		t.Errorf("refusals %+v", r)
	}
}

// A filter is matched as it is written, with the prefix of a shared
// subscription: device-plane 2.5.
func TestPolicyOfFilters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("p", mayConnect+`,{"Effect":"Allow","Action":"iot:Subscribe","Resource":["@:topicfilter/a/b","@:topicfilter/w/+/b","@:topicfilter/g/*/b","@:topic/t"]}`, b.arn)
	c := s.connect(b, "c")
	for filter, want := range map[string]mqtt.ReasonCode{
		"a/b": 1, "a/+": mqtt.NotAuthorized, "w/+/b": 1, "w/x/b": mqtt.NotAuthorized, "g/+/b": 1, "g/x/y/b": 1, "t": mqtt.NotAuthorized,
		"$share/g/a/b": mqtt.NotAuthorized, "#": mqtt.NotAuthorized,
	} {
		if got := s.code(c, filter); got != want {
			t.Errorf("%s: 0x%02X, want 0x%02X", filter, got, want)
		}
	}
	hints := map[string]string{}
	for _, r := range s.refusals("c") {
		hints[r.Name] = fmt.Sprint(r.Fixes)
	}
	for filter, want := range map[string]string{
		"w/x/b": "plain characters in policies", "t": "the action is on topicfilter/…", "$share/g/a/b": "topicfilter/$share/*/a/b",
	} {
		if !strings.Contains(hints[filter], want) {
			t.Errorf("%s: %s lacks %q", filter, hints[filter], want)
		}
	}
}

// A delivery needs iot:Receive at the moment of delivery; a change reaches live
// subscribers: security-provisioning 1.2, ruling 7.
func TestPolicyOfDeliveries(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	publisher, subscriber := s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{})
	s.policy("all", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, publisher.arn, subscriber.arn)
	s.policy("secret", `{"Effect":"Deny","Action":"iot:Receive","Resource":"@:topic/a/secret/*"}`, subscriber.arn)
	got := make(chan string, 16)
	sub, err := s.dial(subscriber, client.Options{ClientID: "sub", OnMessage: func(p *mqtt.Publish) { got <- string(p.Topic) }})
	s.need(err)
	if code := s.code(sub, "a/#"); code != 1 {
		t.Fatalf("SUBACK 0x%02X", code)
	}
	pub := s.connect(publisher, "pub")
	s.publishes(pub, "a/secret/1")
	s.publishes(pub, "a/1")
	if topic := s.next(got); topic != "a/1" {
		t.Errorf("received %s first", topic)
	}
	s.need(s.registry.DetachPolicy(t.Context(), s.account, "secret", subscriber.arn))
	s.publishes(pub, "a/secret/2")
	if topic := s.next(got); topic != "a/secret/2" {
		t.Errorf("received %s after the change", topic)
	}
	s.need(s.registry.DetachPolicy(t.Context(), s.account, "all", subscriber.arn))
	s.publishes(pub, "a/3")
	s.need(s.registry.AttachPolicy(t.Context(), s.account, "all", subscriber.arn))
	s.publishes(pub, "a/4")
	if topic := s.next(got); topic != "a/4" {
		t.Errorf("received %s without permission", topic)
	}
	r := s.refusals("sub")
	if len(r) != 2 || r[0].Packet != deviceauth.PacketDelivery || r[0].Reason != "no policy applies to the device" ||
		r[1].Reason != "statement 0 of policy secret version 1 denies it" {
		t.Errorf("refusals %+v", r)
	}
}

// The connection's thing (1.5), groups and their ancestors (1.6); dynamic groups
// carry none.
func TestPolicyOfThingsAndGroups(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	shared, exclusive, loose := s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{})
	group := func(name, parent string) string {
		g, err := s.registry.CreateThingGroup(ctx, s.account, registry.CreateThingGroupCommand{Name: name, Parent: parent})
		s.need(err)
		return g.ARN
	}
	root, _ := group("root", ""), group("leaf", "root")
	s.policy("mine", mayConnect+`,{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/own/${iot:Connection.Thing.ThingName}"}`, shared.arn, exclusive.arn, loose.arn)
	s.policy("group", `{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/group"}`, root)
	s.thing("A", nil, shared.arn)
	s.thing("B", nil, shared.arn)
	s.thing("E", nil)
	s.need(s.registry.AttachThingPrincipal(ctx, s.account, "E", exclusive.arn, "EXCLUSIVE_THING"))
	for _, thing := range []string{"A", "E"} {
		s.need(s.registry.AddThingToThingGroup(ctx, s.account, registry.ThingAndGroup{ThingName: thing, GroupName: "leaf"}, false))
	}
	for _, c := range []struct {
		who      badge
		clientID string
		own      string
		group    bool
	}{
		{shared, "A", "A", true},
		{shared, "B", "B", false},
		{shared, "E", "", false}, // named like a thing that it is not attached to
		{exclusive, "anything", "E", true},
		{exclusive, "A", "E", true},
		{loose, "A", "", false},
	} {
		connected := s.connect(c.who, c.clientID)
		for _, thing := range []string{"A", "B", "E"} {
			if got := s.publishes(connected, "own/"+thing); got != (thing == c.own) {
				t.Errorf("%s as %s: %v", c.clientID, thing, got)
			}
		}
		if got := s.publishes(connected, "group"); got != c.group {
			t.Errorf("%s with the group's policy: %v", c.clientID, got)
		}
		_ = connected.Close()
	}
	c := s.connect(shared, "A")
	s.need(s.registry.RemoveThingFromThingGroup(ctx, s.account, registry.ThingAndGroup{ThingName: "A", GroupName: "leaf"}))
	if s.publishes(c, "group") {
		t.Error("the session missed that its thing left the group")
	}
	_, err := s.registry.CreateDynamicThingGroup(ctx, s.account, registry.CreateDynamicThingGroupCommand{Name: "dyn", Query: "thingName:A"})
	s.need(err)
	if err := s.registry.AttachPolicy(ctx, s.account, "group", s.arn(fleet.ARNThingGroup, "dyn")); err == nil {
		t.Error("a dynamic group took a policy")
	}
	s.need(s.registry.DetachThingPrincipal(ctx, s.account, "A", shared.arn))
	if s.publishes(c, "own/A") {
		t.Error("the session missed that its thing was detached")
	}
}

// A policy consumer that does not move makes every packet be decided from the
// registry once it is more than five seconds behind, for grants and for
// revocations: ruling 7.
func TestPolicyWithAStoppedConsumer(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	release := make(chan struct{})
	var stuck atomic.Bool
	s := newSite(t, func(a *App) {
		runner, err := eventlog.NewRunner(eventlog.Consumer{
			Name: "deviceauth",
			Apply: func(ctx context.Context, events []event.Envelope) error {
				if stuck.Load() {
					select {
					case <-release:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				a.devices.Apply(events)
				return nil
			},
		}, eventlog.Options{
			Store: a.store, Logger: a.component("eventlog"),
			Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		})
		if err != nil {
			t.Fatal(err)
		}
		a.followers.devices = runner
	})
	b := s.badge(&x509.Certificate{})
	s.policy("p", mayConnect+`,{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/old"}`, b.arn)
	c := s.connect(b, "c")
	if !s.publishes(c, "old") || s.publishes(c, "new") {
		t.Fatal("the policy does not hold before")
	}
	stuck.Store(true)
	answered := make(chan error, 1)
	go func() { // it answers when this node has applied it
		_, err := s.registry.CreatePolicyVersion(t.Context(), s.account, "p",
			s.document(mayConnect+`,{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/new"}`), true)
		answered <- err
	}()
	for committed := false; !committed; {
		p, err := s.registry.DescribePolicy(t.Context(), s.account, "p")
		s.need(err)
		committed = p.DefaultVersionID == "2"
	}
	for s.followers.devices.Lag() == 0 && t.Context().Err() == nil {
		ahead.Add(int64(time.Millisecond)) // the runner notices on its own
	}
	ahead.Add(int64(6 * time.Second))
	if s.publishes(c, "old") || !s.publishes(c, "new") {
		t.Error("packets are decided by what a late consumer knows")
	}
	select {
	case err := <-answered:
		t.Errorf("the call answered %v before it was applied", err)
	default:
	}
	// A certificate that is deactivated meanwhile may do nothing.
	go func() { answered <- s.registry.UpdateCertificate(t.Context(), s.account, b.id, "INACTIVE") }()
	for active := true; active; {
		found, err := s.registry.DescribeCertificate(t.Context(), s.account, b.id)
		s.need(err)
		active = found.Status == deviceauth.StatusActive
	}
	if s.publishes(c, "new") {
		t.Error("a packet of an inactive certificate was let in")
	}
	if _, err := s.dial(b, client.Options{ClientID: "c2"}); s.may(err) {
		t.Error("an inactive certificate was admitted")
	}
	close(release)
	for range 2 {
		s.need(<-answered)
	}
	<-c.Done() // now its connection ends, too
}

// Over HTTPS there is no client id and no thing: security-provisioning 1.4.
func TestPolicyOverHTTPS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{Subject: pkix.Name{CommonName: "pump-7"}})
	s.thing("pump-7", nil, b.arn)
	s.thing("pump-8", nil, b.arn)
	s.policy("p", `{"Effect":"Allow","Action":"iot:UpdateThingShadow","Resource":"@:thing/${iot:Certificate.Subject.CommonName}"},
	 {"Effect":"Allow","Action":"iot:GetThingShadow","Resource":["@:thing/${iot:Connection.Thing.ThingName}","@:thing/${iot:ClientId}"]}`, b.arn)
	for _, c := range []struct {
		method, thing string
		want          int
	}{{http.MethodPost, "pump-7", 200}, {http.MethodPost, "pump-8", 403}, {http.MethodGet, "pump-7", 403}} {
		if got := s.https(b, c.method, "/things/"+c.thing+"/shadow", `{"state":{"reported":{"a":1}}}`); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.thing, got, c.want)
		}
	}
	r := s.devices.PrincipalRefusals(s.account, b.id).Refusals
	if len(r) != 2 || r[0].Packet != deviceauth.PacketCall || !strings.Contains(fmt.Sprint(r[0].Hints), "calls over HTTPS are no connection") {
		t.Errorf("refusals %+v", r)
	}
}

// https calls the data plane with a client certificate and returns the status.
func (s *site) https(b badge, method, path, body string) int {
	s.t.Helper()
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{b.pair}, ServerName: "localhost", InsecureSkipVerify: true, NextProtos: []string{"x-amzn-http-ca"},
	}}}
	request, err := http.NewRequestWithContext(s.t.Context(), method, "https://"+s.Addr(listenerTLS).String()+path, strings.NewReader(body))
	s.need(err)
	response, err := h.Do(request)
	s.need(err)
	s.need(response.Body.Close())
	return response.StatusCode
}

// What an operator sees through the signed interface, with client ids that need
// escaping, for refused strangers too.
func TestDenialsOverTheAPI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("p", mayConnect, b.arn)
	s.publishes(s.connect(b, "site/7//x y"), "t")
	if _, err := s.dial(badge{pair: strangerCertificate(t)}, client.Options{ClientID: "nobody"}); s.may(err) {
		t.Error("an unregistered certificate was admitted")
	}
	root, err := s.accounts.Root(t.Context(), s.account)
	s.need(err)
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + s.Addr(listenerHTTP).String(), Now: time.Now,
		Credentials: apiclient.Credentials{AccessKeyID: root.ID, Secret: root.Secret, Region: s.settings.Region},
	})
	s.need(err)
	defer api.CloseIdle()
	var out struct{ Denials []deviceauth.Refusal }
	read := func(path string) {
		t.Helper()
		s.need(api.JSON(t.Context(), apiclient.Request{Service: "iot", Method: http.MethodGet, Path: path}, nil, &out))
	}
	read(apiclient.Path("ops", "v1", "connections", "site/7//x y", "denials"))
	if len(out.Denials) != 1 || out.Denials[0].Name != "t" || len(out.Denials[0].Policies) != 1 || out.Denials[0].Policies[0].From[0].Kind != "certificate" {
		t.Errorf("denials %+v", out)
	}
	read(apiclient.Path("ops", "v1", "principals", b.id, "denials"))
	if len(out.Denials) != 1 {
		t.Errorf("denials %+v", out)
	}
	read(apiclient.Path("ops", "v1", "connections", "nobody", "denials"))
	if len(out.Denials) != 1 || out.Denials[0].Outcome != deviceauth.OutcomeUnauthenticated {
		t.Errorf("denials %+v", out)
	}
	read("/ops/v1/connections/%2E%2E/denials")
	if len(out.Denials) != 0 {
		t.Errorf("denials %+v", out)
	}
	var answer deviceauth.Answer
	question, err := json.Marshal(map[string]string{"action": "iot:Publish", "topic": "t"})
	s.need(err)
	s.need(api.JSON(t.Context(), apiclient.Request{
		Service: "iot", Method: http.MethodPost, Path: apiclient.Path("ops", "v1", "connections", "site/7//x y", "explain"), Body: question,
	}, nil, &answer))
	if !answer.Connected || answer.Outcome != "IMPLICIT_DENY" || answer.Principal.ID != b.id || len(answer.Fixes) != 1 {
		t.Errorf("answer %+v", answer)
	}
}
