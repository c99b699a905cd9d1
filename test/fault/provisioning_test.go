package fault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// joinTemplate makes a thing by its serial number, with a certificate and a
// policy.
const joinTemplate = `{"Parameters":{"SerialNumber":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"SerialNumber"},"ThingGroups":["joined"]}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"Active"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}}}}}`

// joinRig is a server whose devices join by a claim.
type joinRig struct {
	t      *testing.T
	server *testkit.Server
	api    *apiclient.Client
	claim  tls.Certificate
	// claimID is the id of the claim's certificate.
	claimID string
}

func newJoinRig(t *testing.T, flags ...string) *joinRig {
	t.Helper()
	r := &joinRig{t: t, server: testkit.StartServer(t, append([]string{"--log.level", "warn"}, flags...)...)}
	id, secret := r.server.Credentials()
	var err error
	r.api, err = apiclient.New(apiclient.Options{
		Endpoint: "http://" + r.server.HTTPAddr, Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: "us-east-1"}, Now: time.Now,
	})
	r.need(err)
	t.Cleanup(r.api.CloseIdle)
	r.need(r.api.CreateGroup(t.Context(), "joined", "", ""))
	r.need(r.api.JSON(t.Context(), apiclient.Request{
		Service: apiclient.ServiceControl, Method: http.MethodPost, Path: "/provisioning-templates",
	}, map[string]any{
		"templateName": "pumps", "templateBody": joinTemplate, "enabled": true, "provisioningRoleArn": "arn:aws:iam::000000000000:role/provisioning",
	}, nil))
	// A long-lived claim, with the policy that the documentation gives it.
	var made struct {
		CertificateARN string `json:"certificateArn"`
		CertificateID  string `json:"certificateId"`
		CertificatePEM string `json:"certificatePem"`
		KeyPair        struct {
			PrivateKey string
		} `json:"keyPair"`
	}
	r.need(r.api.JSON(t.Context(), apiclient.Request{
		Service: apiclient.ServiceControl, Method: http.MethodPost, Path: "/keys-and-certificate", Query: url.Values{"setAsActive": {"true"}},
	}, nil, &made))
	const scope = "arn:aws:iot:us-east-1:000000000000:"
	r.need(r.api.CreatePolicy(t.Context(), "claim", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
	 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["`+scope+`topic/$aws/certificates/create-from-csr/*","`+scope+`topic/$aws/provisioning-templates/pumps/provision/*"]},
	 {"Effect":"Allow","Action":"iot:Subscribe","Resource":["`+scope+`topicfilter/$aws/certificates/create-from-csr/*","`+scope+`topicfilter/$aws/provisioning-templates/pumps/provision/*"]}]}`))
	r.need(r.api.AttachPolicy(t.Context(), "claim", made.CertificateARN))
	r.claim, err = tls.X509KeyPair([]byte(made.CertificatePEM), []byte(made.KeyPair.PrivateKey))
	r.need(err)
	r.claimID = made.CertificateID
	return r
}

func (r *joinRig) need(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// joiner is one device that wants to join; what it knows outlives connections.
type joiner struct {
	r      *joinRig
	serial string
	key    *ecdsa.PrivateKey
	// certificate, id and token are known when its request has been answered.
	certificate tls.Certificate
	id, token   string
	// told says that it was told that it has joined.
	told bool
	// spent says that its token was spent when it asked again.
	spent bool
}

func (r *joinRig) joiner(serial string) *joiner {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.need(err)
	return &joiner{r: r, serial: serial, key: key}
}

// joinAnswer is any answer of the topics of provisioning.
type joinAnswer struct {
	topic string

	CertificateID  string `json:"certificateId"`
	CertificatePEM string `json:"certificatePem"`
	Token          string `json:"certificateOwnershipToken"`
	ThingName      string `json:"thingName"`
	ErrorCode      string `json:"errorCode"`
	ErrorMessage   string `json:"errorMessage"`
}

// joining is one connection with the claim.
type joining struct {
	*client.Client
	answers chan joinAnswer
}

func (d *joiner) connect(ctx context.Context) (*joining, error) {
	conn, err := client.Dial(ctx, d.r.server.TLSAddr, d.r.server.TLSConfig(d.r.claim))
	if err != nil {
		return nil, err
	}
	s := &joining{answers: make(chan joinAnswer, 4)}
	s.Client, err = client.Connect(ctx, conn, client.Options{ClientID: "joins-" + d.serial, KeepAlive: 60, OnMessage: func(p *mqtt.Publish) {
		a := joinAnswer{topic: string(p.Topic)}
		if err := json.Unmarshal(p.Payload, &a); err == nil {
			s.answers <- a
		}
	}})
	return s, err
}

// ask publishes and waits for the answer.
func (s *joining) ask(ctx context.Context, topic string, body any) (joinAnswer, error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return joinAnswer{}, err
	}
	if err := s.Publish(ctx, topic, 1, payload); err != nil {
		return joinAnswer{}, err
	}
	select {
	case a := <-s.answers:
		if a.ErrorCode != "" {
			return a, &joinError{a}
		}
		if a.topic != topic+"/accepted" {
			return a, fmt.Errorf("an answer on %s", a.topic)
		}
		return a, nil
	case <-s.Done():
		return joinAnswer{}, s.Err()
	case <-ctx.Done():
		return joinAnswer{}, ctx.Err()
	}
}

// joinError is a rejected request.
type joinError struct{ joinAnswer }

func (e *joinError) Error() string { return e.ErrorCode + ": " + e.ErrorMessage }

// create gets the device a certificate and its token, unless it has them.
func (d *joiner) create(ctx context.Context, s *joining) error {
	if d.token != "" {
		return nil
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: d.serial}}, d.key)
	if err != nil {
		return err
	}
	a, err := s.ask(ctx, "$aws/certificates/create-from-csr/json", map[string]string{
		"certificateSigningRequest": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
	})
	if err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(a.CertificatePEM))
	if block == nil || a.Token == "" || a.CertificateID == "" {
		return fmt.Errorf("answer %+v", a)
	}
	d.certificate = tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: d.key}
	d.id, d.token = a.CertificateID, a.Token
	return nil
}

// provision carries the template out with the token.
func (d *joiner) provision(ctx context.Context, s *joining) error {
	a, err := s.ask(ctx, "$aws/provisioning-templates/pumps/provision/json", map[string]any{
		"certificateOwnershipToken": d.token, "parameters": map[string]string{"SerialNumber": d.serial},
	})
	refused, ok := errors.AsType[*joinError](err)
	switch {
	case ok && refused.ErrorCode == "InvalidCertificateOwnershipToken":
		d.spent = true
		return nil
	case err != nil:
		return err
	case a.ThingName != d.serial:
		return fmt.Errorf("answer %+v", a)
	}
	d.told = true
	return nil
}

// join goes on from what the device knows to its end; an error is a connection
// that has ended, or a refusal.
func (d *joiner) join(ctx context.Context) error {
	s, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := d.create(ctx, s); err != nil {
		return err
	}
	return d.provision(ctx, s)
}

// whole reports whether a device has all of thing, certificate, policy and group,
// and fails the test if it has a part of it.
func (d *joiner) whole(ctx context.Context) bool {
	r := d.r
	r.t.Helper()
	principals, err := r.api.ThingPrincipals(ctx, d.serial)
	thing := true
	if missing, ok := errors.AsType[*apiclient.Error](err); ok && missing.Status == http.StatusNotFound {
		thing, err = false, nil
	}
	r.need(err)
	if d.id == "" {
		if thing {
			r.t.Errorf("%s: there is a thing, and it was never given a certificate", d.serial)
		}
		return false
	}
	certificate, err := r.api.DescribeCertificate(ctx, d.id)
	r.need(err)
	var policies struct{ Policies []struct{ PolicyName string } }
	r.need(r.api.JSON(ctx, apiclient.Request{
		Service: apiclient.ServiceControl, Method: http.MethodPost, Path: apiclient.Path("attached-policies", certificate.ARN),
	}, nil, &policies))
	active := certificate.Status == "ACTIVE"
	attached := len(principals) == 1 && strings.HasSuffix(principals[0], "/"+d.id)
	if active != thing || attached != thing || (len(policies.Policies) == 1) != thing {
		r.t.Errorf("%s: thing %v, certificate %s, principals %v, policies %v", d.serial, thing, certificate.Status, principals, policies.Policies)
	}
	return thing
}

// The server dies between the certificate and the thing. Outcome: the device comes
// back and joins with the token that it has, and its certificate connects then and
// not before.
func TestKilledServerBetweenCertificateAndThing(t *testing.T) {
	r := newJoinRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d := r.joiner("pump-1")
	s, err := d.connect(ctx)
	r.need(err)
	r.need(d.create(ctx, s))
	token := d.token
	if err := d.online(ctx); err == nil {
		t.Error("the certificate connects before the device has joined")
	}
	r.server.Kill()
	<-s.Done()
	r.server.Start()
	if d.whole(ctx) {
		t.Error("the device has joined by itself")
	}
	r.need(d.join(ctx))
	if !d.told || d.token != token || !d.whole(ctx) {
		t.Errorf("the device is %+v", d)
	}
	r.server.Kill()
	r.server.Start()
	if !d.whole(ctx) {
		t.Error("the device has gone with the server")
	}
	r.need(d.online(ctx))
	// And once more with the token: it is spent.
	r.need(d.join(ctx))
	if !d.spent {
		t.Error("the token is good twice")
	}
}

// online connects with the device's own certificate.
func (d *joiner) online(ctx context.Context) error {
	conn, err := client.Dial(ctx, d.r.server.TLSAddr, d.r.server.TLSConfig(d.certificate))
	if err != nil {
		return err
	}
	c, err := client.Connect(ctx, conn, client.Options{ClientID: d.serial})
	if err != nil {
		return err
	}
	return c.Disconnect()
}

// The claim is revoked while a device is between its certificate and its thing.
// Outcome: the live session ends within five seconds, the claim does not connect
// again, and nothing comes of the device; a device that has joined by the claim
// before stays connected, until its own certificate is revoked.
func TestRevocationEndsLiveSessions(t *testing.T) {
	r := newJoinRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before := r.joiner("pump-1")
	r.need(before.join(ctx))
	conn, err := client.Dial(ctx, r.server.TLSAddr, r.server.TLSConfig(before.certificate))
	r.need(err)
	own, err := client.Connect(ctx, conn, client.Options{ClientID: before.serial})
	r.need(err)
	defer own.Close()
	d := r.joiner("pump-2")
	s, err := d.connect(ctx)
	r.need(err)
	r.need(d.create(ctx, s))
	r.revoke(r.claimID, s.Client)
	if again, err := d.connect(ctx); err == nil {
		_ = again.Close()
		t.Error("the revoked claim connects")
	}
	if d.whole(ctx) || !before.whole(ctx) {
		t.Error("one has joined, or one has not")
	}
	r.need(own.Ping(ctx))
	r.revoke(before.id, own)
	if err := before.online(ctx); err == nil {
		t.Error("the revoked device connects")
	}
}

// revoke fails the test unless a connection ends soon when a certificate is
// revoked.
func (r *joinRig) revoke(id string, of *client.Client) {
	r.t.Helper()
	r.need(r.api.JSON(r.t.Context(), apiclient.Request{
		Service: apiclient.ServiceControl, Method: http.MethodPut, Path: apiclient.Path("certificates", id), Query: url.Values{"newStatus": {"REVOKED"}},
	}, nil, nil))
	select {
	case <-of.Done():
	case <-time.After(5 * time.Second):
		r.t.Error("the session of a revoked certificate goes on")
	}
}

// The server dies again and again while 300 devices join. After each time a device
// has all that a device has or nothing of it, and one that was told so has all. In
// the end all have joined, each with the first certificate that it was told of.
func TestKilledServerWhileDevicesJoin(t *testing.T) {
	joinThroughKills(t, newJoinRig(t))
}

func TestKilledServerWhileDevicesJoinOnPostgreSQL(t *testing.T) {
	database := testkit.StartPostgres(t)
	joinThroughKills(t, newJoinRig(t, "--store", database.Database(t)))
}

func joinThroughKills(t *testing.T, r *joinRig) {
	t.Helper()
	const devicesPerKill = 75
	rounds := kills(t, 4)
	devices := rounds * devicesPerKill
	all := make([]*joiner, devices)
	for i := range all {
		all[i] = r.joiner(fmt.Sprintf("pump-%03d", i))
	}
	var joined atomic.Int64
	storm := func(ctx context.Context) {
		var together sync.WaitGroup
		for _, d := range all {
			if d.told || d.spent {
				continue
			}
			together.Go(func() {
				err := d.join(ctx)
				if refused, ok := errors.AsType[*joinError](err); ok {
					t.Errorf("%s: %v", d.serial, refused)
				}
				if d.told {
					joined.Add(1)
				}
			})
		}
		together.Wait()
	}
	check := func(round int) (whole int) {
		for _, d := range all {
			if w := d.whole(t.Context()); w {
				whole++
			} else if d.told || d.spent {
				t.Errorf("round %d: %s was told that it has joined, and has not", round, d.serial)
			}
		}
		if out, err := r.server.Muster(t.Context(), "doctor"); err != nil {
			t.Errorf("round %d: %v\n%s", round, err, out)
		}
		if t.Failed() {
			t.FailNow()
		}
		return whole
	}
	whole := 0
	for round := range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ended := make(chan struct{})
		enough := joined.Load() + int64((devices-whole)/(rounds-round+1))
		go func() {
			defer close(ended)
			storm(ctx)
		}()
		testkit.Poll(t, time.Minute, "devices join", func() error {
			if joined.Load() < enough {
				return fmt.Errorf("%d of %d", joined.Load(), enough)
			}
			return nil
		})
		r.server.Kill()
		<-ended
		cancel()
		r.server.Start()
		whole = check(round)
		t.Logf("kill %d: %d devices were told that they have joined, %d have", round, joined.Load(), whole)
		if whole == devices { // answers lag behind what is done
			if round == 0 {
				t.Fatal("all have joined before the first kill: too few to show anything")
			}
			break
		}
	}
	testkit.Poll(t, time.Minute, "all devices have joined", func() error {
		storm(t.Context())
		for _, d := range all {
			if !d.told && !d.spent {
				return fmt.Errorf("%s has not", d.serial)
			}
		}
		return nil
	})
	if whole = check(rounds); whole != devices {
		t.Errorf("%d devices have joined", whole)
	}
	things, err := r.api.ListThings(t.Context(), apiclient.ThingFilter{}, 0)
	r.need(err)
	members, err := r.api.GroupMembers(t.Context(), "joined", false, 0)
	r.need(err)
	certificates, err := r.api.ListCertificates(t.Context(), "", 0)
	r.need(err)
	active := 0
	for _, c := range certificates {
		if c.Status == "ACTIVE" && c.ID != r.claimID {
			active++
		}
	}
	if len(things) != devices || len(members) != devices || active != devices {
		t.Errorf("%d things, %d in the group, %d active certificates", len(things), len(members), active)
	}
}
