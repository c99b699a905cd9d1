package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/bootstrap"
	"github.com/muster-iot/muster/internal/bootstrapapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

const (
	joinName = "join.example.com"
	north    = fleet.Account("210000000001")
)

// bootstrapSettings are those of a server with the bootstrap's address.
func bootstrapSettings(t *testing.T) config.Settings {
	t.Helper()
	s := settings(t)
	s.Bootstrap.ServerName = joinName
	return s
}

// withNorth makes the account north, with a template that gives devices a certificate
// and the policy "all".
func (s *site) withNorth() {
	s.t.Helper()
	ctx := s.t.Context()
	_, _, err := s.accounts.CreateAccount(ctx, s.account, account.NewAccount{ID: north, Name: "North"})
	s.need(err)
	_, err = s.provisioning.CreateTemplate(ctx, north, provisioning.CreateTemplateCommand{
		Name: "join", Body: renewalTemplate, RoleARN: "arn:aws:iam::210000000001:role/p", Enabled: true,
	})
	s.need(err)
	_, err = s.registry.CreatePolicy(ctx, north, "all", `{"Version":"2012-10-17","Statement":[`+mayAll+`]}`)
	s.need(err)
}

// assign makes an assignment of an account.
func (s *site) assign(owner fleet.Account, a bootstrap.Assignment) {
	s.t.Helper()
	a.Enabled = true
	_, _, err := s.bootstrap.Put(s.t.Context(), owner, bootstrap.PutCommand{Assignment: a})
	s.need(err)
}

// roots are the authorities that the server gives out.
func (s *site) roots() *x509.CertPool {
	s.t.Helper()
	text, err := os.ReadFile(s.dir.Path(datadir.CAFile))
	s.need(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		s.t.Fatal("no authorities")
	}
	return pool
}

// request is one to the bootstrap's port, by a name; the server's certificate is
// verified.
func (s *site) request(name string, pair *tls.Certificate, method, path, body string) (status int, header http.Header, answer string) {
	s.t.Helper()
	c := &tls.Config{ServerName: name, RootCAs: s.roots()}
	if pair != nil {
		c.Certificates = []tls.Certificate{*pair}
	}
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: c}}
	r, err := http.NewRequestWithContext(s.t.Context(), method, "https://"+s.Addr(listenerTLS).String()+path, strings.NewReader(body))
	s.need(err)
	response, err := h.Do(r)
	s.need(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	s.need(err)
	return response.StatusCode, response.Header, string(text)
}

// whereTo asks as a device, and wants an answer.
func (s *site) whereTo(b badge) bootstrapapi.AnswerPayload {
	s.t.Helper()
	status, _, text := s.request(joinName, &b.pair, http.MethodGet, bootstrapapi.Path, "")
	if status != http.StatusOK {
		s.t.Fatalf("%d %s", status, text)
	}
	var out bootstrapapi.AnswerPayload
	s.need(json.Unmarshal([]byte(text), &out))
	return out
}

// refusedAs asks as a device, and wants a refusal of one form.
func (s *site) refusedAs(b badge, want bootstrapapi.RefusalPayload) {
	s.t.Helper()
	status, _, text := s.request(joinName, &b.pair, http.MethodGet, bootstrapapi.Path, "")
	var got bootstrapapi.RefusalPayload
	s.need(json.Unmarshal([]byte(text), &got))
	if got != want || status != want.StatusCode {
		s.t.Errorf("%d %+v, want %+v", status, got, want)
	}
}

// strangerRefusal is all that a certificate learns for which nobody stands.
var strangerRefusal = bootstrapapi.RefusalPayload{StatusCode: 403, ErrorCode: "AccessDenied", ErrorMessage: "The certificate is not known here"}

// goes connects by MQTT to where an answer says, knowing nothing else.
func (s *site) goes(a *bootstrapapi.AnswerPayload, b badge, clientID string) (*asks, error) {
	s.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(a.ServerRoots)) {
		s.t.Fatal("no authorities in the answer")
	}
	// The name resolves to this machine.
	conn, err := client.Dial(s.t.Context(), net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Ports.MQTT)), &tls.Config{
		Certificates: []tls.Certificate{b.pair}, ServerName: a.Endpoint, RootCAs: pool,
	})
	s.need(err)
	device := &asks{s: s, heard: make(chan *mqtt.Publish, 4)}
	device.Client, err = client.Connect(s.t.Context(), conn, client.Options{ClientID: clientID, Version: mqtt.V5, OnMessage: func(p *mqtt.Publish) {
		device.heard <- &mqtt.Publish{Topic: bytes.Clone(p.Topic), Payload: bytes.Clone(p.Payload)}
	}})
	if err == nil {
		s.t.Cleanup(func() { _ = device.Close() })
	}
	return device, err
}

// logged are the events of a type in the log.
func logged[E event.Event](s *site) (found []E, accounts []fleet.Account) {
	s.t.Helper()
	for after := (store.Cursor{}); ; {
		page, next, err := s.store.Events(s.t.Context(), after, 1000)
		s.need(err)
		if len(page) == 0 {
			return found, accounts
		}
		for _, env := range page {
			if e, ok := env.Event.(E); ok {
				found, accounts = append(found, e), append(accounts, env.Account)
			}
		}
		after = next
	}
}

// Mission M16: a device that knows the bootstrap's name and has its birth certificate,
// which nobody has registered, ends up in the account that it is meant for, with a
// certificate of its own, over HTTPS and MQTT; nothing is made anywhere else, and its
// birth certificate can do nothing else there. A restart in between changes nothing.
func TestBootstrapIntoAnotherAccount(t *testing.T) {
	t.Parallel()
	set := bootstrapSettings(t)
	s := startSite(t, set)
	s.withNorth()
	maker := s.authority(registry.ModeSNIOnly)
	b := maker.newcomer("B7-0042", 7, time.Hour)
	s.refusedAs(b, bootstrapapi.RefusalPayload{StatusCode: 404, ErrorCode: "ResourceNotFound", ErrorMessage: "Nothing is assigned to the certificate"})
	s.assign(s.account, bootstrap.Assignment{
		Who: bootstrap.Who{Kind: bootstrap.Serial, CACertificateID: maker.id, Serial: "B7-0042"}, Account: north, Template: "join",
		Parameters: map[string]string{"Serial": "pump-42"}, Configuration: map[string]string{"ntp": "ntp.example"},
	})
	where := s.whereTo(b)
	want := account.EndpointsOf(north, set.Region, set.BaseDomain).Data
	if where.Account != string(north) || where.Endpoint != want || where.Region != set.Region || where.Method != bootstrap.ByClaim || where.TemplateName != "join" ||
		where.Parameters["Serial"] != "pump-42" || where.Configuration["ntp"] != "ntp.example" || where.Approval.State != bootstrap.NotNeeded || where.ExpiresAt == "" {
		t.Errorf("%+v", where)
	}

	s.need(s.Stop(context.WithoutCancel(t.Context())))
	s = startSite(t, set)
	where.Ports = s.whereTo(b).Ports // they were 0, any free one
	if s.status(north, b.id) != registry.StatusActive || s.status(s.account, b.id) != "" {
		t.Error("the certificate is not where it should be")
	}

	device, err := s.goes(&where, b, "anything")
	s.need(err)
	for _, topic := range []string{"telemetry", "$aws/provisioning-templates/other/provision/json", "$muster/bootstrap/get"} {
		if s.publishes(device.Client, topic) {
			t.Errorf("the birth certificate publishes to %s", topic)
		}
	}
	own := device.renew(where.Parameters["Serial"])
	s.need(device.Close())
	thing, err := s.registry.DescribeThing(t.Context(), north, "pump-42")
	s.need(err)
	after, err := s.goes(&where, own, thing.Name)
	s.need(err)
	if !s.publishes(after.Client, "telemetry") {
		t.Error("the device may nothing with its own certificate")
	}
	if things, err := s.registry.ListThings(t.Context(), s.account, registry.ListThingsFilter{}, registry.Page{Limit: 10}); err != nil || len(things.Items) != 0 {
		t.Errorf("%d things in the default account, %v", len(things.Items), err)
	}
	told, accounts := logged[event.BootstrapAnswered](s)
	if len(told) != 4 || accounts[0] != s.account || accounts[1] != north || told[0].CertificateID != b.id || told[0].Serial != "B7-0042" || told[0].Target != north || told[0].Transport != "HTTPS" {
		t.Errorf("told %+v in %v", told, accounts)
	}
	// The guest is in no list, and goes when its time is over.
	if list, err := s.registry.ListCertificates(t.Context(), north, true, registry.Page{Limit: 10}); err != nil || len(list.Items) != 1 || list.Items[0].ID != own.id {
		t.Errorf("%+v, %v", list.Items, err)
	}
}

// A device asks by MQTT and is answered alone, in the format in which it asked.
func TestBootstrapByMQTT(t *testing.T) {
	t.Parallel()
	s := startSite(t, bootstrapSettings(t))
	s.withNorth()
	b := s.badge(&x509.Certificate{})
	s.policy("birth", mayConnect+`,{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"@:topic/$muster/bootstrap/get*"},
	 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"@:topicfilter/$muster/bootstrap/get*"}`, b.arn)
	s.assign(s.account, bootstrap.Assignment{Who: bootstrap.Who{Kind: bootstrap.Claim, CertificateID: b.id}, Account: north, Template: "join"})
	const topic = "$muster/bootstrap/get"
	other := s.asking(b, "other")
	for _, end := range []string{"/accepted", "/rejected"} {
		if code := s.code(other.Client, topic+end); code != 1 {
			t.Fatalf("SUBACK 0x%02X", code)
		}
	}
	device := s.asking(b, "device")
	var where bootstrapapi.AnswerPayload
	device.call(topic, struct{}{}, &where)
	if where.Account != string(north) || where.TemplateName != "join" || where.ServerRoots == "" {
		t.Errorf("%+v", where)
	}
	next := func(payload []byte) *mqtt.Publish {
		t.Helper()
		s.need(device.Publish(t.Context(), topic, 1, payload))
		select {
		case p := <-device.heard:
			return p
		case <-time.After(10 * time.Second):
			t.Fatal("no answer")
			return nil
		}
	}
	for name, payload := range map[string]string{"nothing": "", "JSON": "{}"} {
		if p := next([]byte(payload)); string(p.Topic) != topic+"/accepted" || !json.Valid(p.Payload) {
			t.Errorf("%s: %s %s", name, p.Topic, p.Payload)
		}
	}
	p := next([]byte{0xa0})
	var again bootstrapapi.AnswerPayload
	s.need(cbor.Unmarshal(p.Payload, &again))
	if string(p.Topic) != topic+"/accepted" || again.Endpoint != where.Endpoint {
		t.Errorf("CBOR: %s %+v", p.Topic, again)
	}
	for _, payload := range []string{`{"serial":"B8"}`, "[]", "null", "x", "{", strings.Repeat("[", 10_000), "\xa1\x61a\x01", "\xbf\xbf\xbf"} {
		if p := next([]byte(payload)); string(p.Topic) != topic+"/rejected" || payload[0] != 0xa1 && payload[0] != 0xbf && !strings.Contains(string(p.Payload), `"InvalidPayload"`) {
			t.Errorf("%.20q: %s %q", payload, p.Topic, p.Payload)
		}
	}
	if len(other.heard) != 0 {
		t.Errorf("another device of the same certificate heard %s", (<-other.heard).Topic)
	}
	told, _ := logged[event.BootstrapAnswered](s)
	if len(told) != 2 || told[0].Transport != "MQTT" || told[0].ClientID != "device" {
		t.Errorf("%+v", told)
	}
	// From the data plane nobody can be answered.
	if err := s.topics.PublishReserved(t.Context(), &broker.Publish{Account: s.account, Topic: topic}); err == nil {
		t.Error("taken by HTTP")
	}
}

// Without the setting there is neither topic nor name.
func TestBootstrapIsOffByDefault(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("all", mayAll, b.arn)
	if err := s.connect(b, "c").Publish(t.Context(), "$muster/bootstrap/get", 1, nil); err == nil {
		t.Error("the topic is there")
	}
	if status, _, _ := s.request("localhost", &b.pair, http.MethodGet, bootstrapapi.Path, ""); status == http.StatusOK {
		t.Error("the path is there")
	}
}

// Who must not learn anything does not: strangers, revoked and inactive devices,
// devices of an authority that another account claims without proof; and what is no
// question at all is refused in words.
func TestBootstrapAgainstHostileCallers(t *testing.T) {
	t.Parallel()
	s := startSite(t, bootstrapSettings(t))
	s.withNorth()
	maker := s.authority(registry.ModeDefault)
	all := bootstrap.Who{Kind: bootstrap.Authority, CACertificateID: maker.id}
	s.assign(s.account, bootstrap.Assignment{Who: all, Template: ""})
	b := maker.newcomer("B7-0042", 7, time.Hour)
	if where := s.whereTo(b); where.Account != string(s.account) || where.Method != bootstrap.ByBirth || where.TemplateName != "" || where.ExpiresAt != "" {
		t.Errorf("%+v", where)
	}
	// The same subject and serial by somebody who only knows the name of the authority.
	stranger := badge{pair: strangerCertificate(t)}
	s.refusedAs(stranger, strangerRefusal)
	forged := s.authority(registry.ModeSNIOnly)
	s.need(s.registry.UpdateCACertificate(t.Context(), s.account, registry.UpdateCACommand{ID: forged.id, Status: registry.StatusInactive}))
	s.refusedAs(forged.newcomer("B7-0042", 7, time.Hour), strangerRefusal)
	s.refusedAs(maker.newcomer("late", 8, -time.Minute), strangerRefusal)
	registered := maker.badge(9, time.Hour)
	s.whereTo(registered)
	s.need(s.registry.UpdateCertificate(t.Context(), s.account, registered.id, registry.StatusRevoked))
	s.refusedAs(registered, strangerRefusal)
	_, err := s.registry.ImportRevocationList(t.Context(), s.account, maker.id, maker.list(1, 7))
	s.need(err)
	s.refusedAs(b, strangerRefusal)

	// North has the authority of somebody else, whom it has never proved to be: it can
	// send those devices nowhere.
	foreign := s.authority(registry.ModeSNIOnly)
	_, err = s.registry.RegisterCACertificate(t.Context(), north, registry.RegisterCACommand{CertificatePEM: certificatePEM(foreign.cert.Raw), Mode: registry.ModeSNIOnly, Active: true})
	s.need(err)
	s.assign(north, bootstrap.Assignment{Who: bootstrap.Who{Kind: bootstrap.Authority, CACertificateID: foreign.id}, Template: "join"})
	theirs := foreign.newcomer("B9", 9, time.Hour)
	s.refusedAs(theirs, bootstrapapi.RefusalPayload{StatusCode: 404, ErrorCode: "ResourceNotFound", ErrorMessage: "Nothing is assigned to the certificate"})
	if s.status(north, theirs.id) != "" {
		t.Error("it is a guest of north")
	}

	good := maker.newcomer("good", 10, time.Hour)
	for _, c := range []struct {
		name         string
		pair         *tls.Certificate
		method, path string
		body         string
		status       int
		code         string
	}{
		{joinName, &good.pair, "GET", "/bootstrap", "", 200, ""},
		{joinName, &good.pair, "POST", "/bootstrap", "", 200, ""},
		{strings.ToUpper(joinName), &good.pair, "POST", "/bootstrap", "{}", 200, ""},
		{joinName, nil, "GET", "/bootstrap", "", 401, "Unauthorized"},
		{joinName, &good.pair, "PUT", "/bootstrap", "", 405, "MethodNotAllowed"},
		{joinName, &good.pair, "POST", "/bootstrap", `{"serial":"B8"}`, 400, "InvalidPayload"},
		{joinName, &good.pair, "POST", "/bootstrap", `null`, 400, "InvalidPayload"},
		{joinName, &good.pair, "POST", "/bootstrap", `{}{}`, 400, "InvalidPayload"},
		{joinName, &good.pair, "POST", "/bootstrap", strings.Repeat(" ", 1025), 413, "InvalidPayload"},
		{joinName, &good.pair, "GET", "/bootstrap/", "", 404, "ResourceNotFound"},
		{joinName, &good.pair, "GET", "/readyz", "", 404, "ResourceNotFound"},
		{joinName, &good.pair, "GET", "/ops/v1/accounts", "", 404, "ResourceNotFound"},
		{joinName, &good.pair, "GET", "/mqtt", "", 404, "ResourceNotFound"},
	} {
		status, header, text := s.request(c.name, c.pair, c.method, c.path, c.body)
		if status != c.status || c.code != "" && !strings.Contains(text, `"errorCode":"`+c.code+`"`) || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s %.20q: %d %s", c.method, c.path, c.body, status, text)
		}
	}
	if status, _, text := s.request("localhost", &good.pair, "GET", "/bootstrap", ""); status == 200 {
		t.Errorf("served at another name: %s", text)
	}
}

// An account sends its own devices to itself, by the authority whose key it has proved
// to hold, whatever the default account says of the same authority.
func TestBootstrapOfAnAccountsOwnDevices(t *testing.T) {
	t.Parallel()
	s := startSite(t, bootstrapSettings(t))
	s.withNorth()
	of := &site{App: s.App, t: t, account: north}
	maker := of.authority(registry.ModeDefault)
	_, err := s.registry.RegisterCACertificate(t.Context(), s.account, registry.RegisterCACommand{CertificatePEM: certificatePEM(maker.cert.Raw), Mode: registry.ModeSNIOnly, Active: true})
	s.need(err)
	all := bootstrap.Who{Kind: bootstrap.Authority, CACertificateID: maker.id}
	s.assign(s.account, bootstrap.Assignment{Who: all})
	b := maker.newcomer("pump-1", 7, time.Hour)
	if where := s.whereTo(b); where.Account != string(s.account) {
		t.Errorf("north has said nothing yet: %+v", where)
	}
	of.assign(north, bootstrap.Assignment{Who: all, Template: "join"})
	where := s.whereTo(b)
	if where.Account != string(north) || where.TemplateName != "join" {
		t.Errorf("%+v", where)
	}
	device, err := s.goes(&where, b, "pump-1")
	s.need(err)
	device.renew("pump-1")
	// A closed account takes nobody.
	_, err = s.accounts.CloseAccount(t.Context(), s.account, north)
	s.need(err)
	s.eventually("the directory", func() bool { return s.names.Closed(north) })
	if where := s.whereTo(b); where.Account != string(s.account) {
		t.Errorf("%+v", where)
	}
}

// People decide about the template: the device is told that they have to be asked, then
// its own request and how it stands.
func TestBootstrapTellsOfApprovals(t *testing.T) {
	t.Parallel()
	s := startSite(t, bootstrapSettings(t))
	s.withNorth()
	ctx := t.Context()
	_, err := s.accounts.CreateGroup(ctx, north, "leads")
	s.need(err)
	lee, err := s.accounts.CreateUser(ctx, north, "lee")
	s.need(err)
	s.need(s.accounts.AddUserToGroup(ctx, north, "leads", "lee"))
	_, err = s.approvals.PutAuthority(ctx, north, approval.Authority{ID: "leads", Kind: approval.UserGroup, Group: "leads"})
	s.need(err)
	bind := approval.Binding{Template: "join", Rule: approval.AllOf, Authorities: []string{"leads"}}
	_, err = s.approvals.PutBinding(ctx, north, bind)
	s.need(err)
	maker := s.authority(registry.ModeDefault)
	s.assign(s.account, bootstrap.Assignment{Who: bootstrap.Who{Kind: bootstrap.Authority, CACertificateID: maker.id}, Account: north, Template: "join"})
	b, other := maker.newcomer("pump-1", 7, time.Hour), maker.newcomer("pump-2", 8, time.Hour)
	where := s.whereTo(b)
	if where.Approval.State != bootstrap.Required || where.Approval.RequestID != "" {
		t.Errorf("%+v", where.Approval)
	}
	device, err := s.goes(&where, b, "pump-1")
	s.need(err)
	var made struct{ CertificateOwnershipToken string }
	device.call("$aws/certificates/create/json", struct{}{}, &made)
	for _, end := range []string{"/accepted", "/rejected"} {
		s.code(device.Client, "$aws/provisioning-templates/join/provision/json"+end)
	}
	body, err := json.Marshal(map[string]any{"certificateOwnershipToken": made.CertificateOwnershipToken, "parameters": map[string]string{"Serial": "pump-1"}})
	s.need(err)
	s.need(device.Publish(ctx, "$aws/provisioning-templates/join/provision/json", 1, body))
	if p := <-device.heard; !strings.Contains(string(p.Payload), "ApprovalPending") {
		t.Fatalf("%s: %s", p.Topic, p.Payload)
	}
	waiting, _, err := s.approvals.Requests(ctx, north, approval.Pending, "join", "", 0)
	s.need(err)
	if got := s.whereTo(b).Approval; len(waiting) != 1 || got.State != bootstrap.Pending || got.RequestID != waiting[0].ID {
		t.Errorf("%+v, waiting %+v", got, waiting)
	}
	if got := s.whereTo(other).Approval; got.State != bootstrap.Required || got.RequestID != "" {
		t.Errorf("another device is told %+v", got)
	}
	as := fleet.WithActor(ctx, fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "lee", ARN: lee.ARN}})
	_, err = s.approvals.Vote(as, north, approval.VoteCommand{ID: waiting[0].ID, Verdict: approval.Yes})
	s.need(err)
	if got := s.whereTo(b).Approval; got.State != bootstrap.Approved || got.RequestID != waiting[0].ID {
		t.Errorf("%+v", got)
	}
	bind.Networks = []string{"192.0.2.0/24"}
	_, err = s.approvals.PutBinding(ctx, north, bind)
	s.need(err)
	s.refusedAs(b, bootstrapapi.RefusalPayload{StatusCode: 403, ErrorCode: "AccessDenied", ErrorMessage: "devices of template join do not come from this network"})
}

// A guest whose template is another one now, or who is not welcome any more, is held to
// that at once.
func TestBootstrapGuests(t *testing.T) {
	t.Parallel()
	set := bootstrapSettings(t)
	s := startSite(t, set)
	s.withNorth()
	maker := s.authority(registry.ModeDefault)
	b := maker.newcomer("pump-1", 7, time.Hour)
	block, _ := pem.Decode([]byte(certificatePEM(b.pair.Certificate[0])))
	c, err := x509.ParseCertificate(block.Bytes)
	s.need(err)
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	admit := func(template string, until time.Time) int64 {
		t.Helper()
		ends, err := s.registry.AdmitGuest(t.Context(), north, c, template, until)
		s.need(err)
		return ends.Unix()
	}
	first := admit("join", until)
	if first != until.Unix() || admit("join", until.Add(time.Minute)) != first {
		t.Error("written again with most of the time left")
	}
	if later := until.Add(2 * time.Hour); admit("join", later) != later.Unix() {
		t.Error("the time was not extended")
	}
	where := bootstrapapi.AnswerPayload{Endpoint: account.EndpointsOf(north, set.Region, set.BaseDomain).Data, ServerRoots: string(s.pki.ServerRootsPEM()), Ports: bootstrapapi.PortsPayload{MQTT: s.ports().MQTT}}
	device, err := s.goes(&where, b, "pump-1")
	s.need(err)
	if code := s.code(device.Client, "$aws/provisioning-templates/join/provision/json/accepted"); code != 1 {
		t.Errorf("SUBACK 0x%02X", code)
	}
	admit("other", until)
	if code := s.code(device.Client, "$aws/provisioning-templates/join/provision/json/rejected"); code != mqtt.NotAuthorized {
		t.Errorf("the former template is still open: 0x%02X", code)
	}
	s.need(s.registry.UpdateCertificate(t.Context(), north, b.id, registry.StatusInactive))
	<-device.Done()
	if _, err := s.registry.AdmitGuest(t.Context(), north, c, "join", until); err == nil {
		t.Error("admitted although an operator said no")
	}
	s.need(s.registry.UpdateCertificate(t.Context(), north, b.id, registry.StatusActive))
	admit("join", time.Now().Add(-time.Second))
	if _, err := s.registry.SweepPending(t.Context()); err != nil || s.status(north, b.id) != "" {
		t.Errorf("the guest stays: %v", err)
	}
}
