package sdk

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
)

// signerFlags configure the function that the cases here name. Nobody asks it.
func signerFlags() []string { return []string{"--function.target", "signer=exec:/bin/false"} }

// providerOperation is what a provider signs for.
const providerOperation = types.CertificateProviderOperationCreateCertificateFromCsr

// certificateProvidersNotReached is a part of notReached.
func certificateProvidersNotReached() map[string]string {
	return map[string]string{"DeleteCertificateProvider DeleteConflictException": "nothing refers to a provider"}
}

// tenant is the owner of an account with nothing in it: an account has one
// provider, and the cases run at once.
type tenant struct {
	*operator

	account string
}

// newTenant makes an account.
func (o *operator) newTenant() tenant {
	o.t.Helper()
	id, secret := o.server.Credentials()
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + o.server.HTTPAddr, Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: signingRegion}, Now: time.Now,
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(api.CloseIdle)
	n, err := rand.Int(rand.Reader, big.NewInt(1e11))
	if err != nil {
		o.t.Fatal(err)
	}
	number := fmt.Sprintf("8%011d", n)
	made, err := api.CreateAccount(o.t.Context(), number, named("tenant"), named("tenant")+"@plant.example")
	if err != nil {
		o.t.Fatal(err)
	}
	return tenant{&operator{t: o.t, server: o.server, Client: controlPlane(o.server, made.AccessKey.ID, made.AccessKey.Secret)}, number}
}

// function is the ARN of a function in the tenant's account.
func (n tenant) function(name string) *string {
	return new("arn:aws:lambda:us-east-1:" + n.account + ":function:" + name)
}

// providerInput asks for a provider.
func (n tenant) providerInput() *iot.CreateCertificateProviderInput {
	return &iot.CreateCertificateProviderInput{
		CertificateProviderName: new("own,@=ca"), LambdaFunctionArn: n.function("signer"),
		AccountDefaultForOperations: []types.CertificateProviderOperation{providerOperation},
	}
}

// createsProvider asks for one, in an account with or without, with what edit
// makes of a good request.
func createsProvider(present bool, edit func(n tenant, in *iot.CreateCertificateProviderInput)) func(*operator) error {
	return func(o *operator) error {
		n := o.newTenant()
		if present {
			must(n.operator, n.CreateCertificateProvider, n.providerInput())
		}
		in := n.providerInput()
		edit(n, in)
		_, err := n.CreateCertificateProvider(n.t.Context(), in)
		return err
	}
}

// updatesProvider changes the provider of an account.
func updatesProvider(edit func(n tenant, in *iot.UpdateCertificateProviderInput)) func(*operator) error {
	return func(o *operator) error {
		n := o.newTenant()
		made := must(n.operator, n.CreateCertificateProvider, n.providerInput())
		in := &iot.UpdateCertificateProviderInput{CertificateProviderName: made.CertificateProviderName}
		edit(n, in)
		_, err := n.UpdateCertificateProvider(n.t.Context(), in)
		return err
	}
}

// certificateProviderAnswers are the cases of certificate providers.
func certificateProviderAnswers() []answerCase {
	return slices.Concat(providerCreationAnswers(), providerChangeAnswers())
}

// providerCreationAnswers are about creating.
func providerCreationAnswers() []answerCase {
	const op = "CreateCertificateProvider"
	type input = iot.CreateCertificateProviderInput
	return []answerCase{
		{op: op, do: func(o *operator) error {
			n := o.newTenant()
			in := n.providerInput()
			in.Tags = []types.Tag{{Key: new("site"), Value: new("leeds")}}
			made := must(n.operator, n.CreateCertificateProvider, in)
			must(n.operator, n.TagResource, &iot.TagResourceInput{ResourceArn: made.CertificateProviderArn, Tags: []types.Tag{{Key: new("line"), Value: new("2")}}})
			tags := must(n.operator, n.ListTagsForResource, &iot.ListTagsForResourceInput{ResourceArn: made.CertificateProviderArn}).Tags
			return differs("provider", []any{*made.CertificateProviderName, *made.CertificateProviderArn, len(tags)},
				[]any{"own,@=ca", "arn:aws:iot:us-east-1:" + n.account + ":certificateprovider/own,@=ca", 2})
		}},
		{op: op, rule: "clientToken", do: func(o *operator) error {
			n := o.newTenant()
			in := n.providerInput()
			in.ClientToken = new(strings.Repeat("t", 36))
			first := must(n.operator, n.CreateCertificateProvider, in)
			again := must(n.operator, n.CreateCertificateProvider, in)
			return differs("answer", *again.CertificateProviderArn, *first.CertificateProviderArn)
		}},
		{op: op, want: "ResourceAlreadyExistsException", says: "already exists", do: createsProvider(true, func(tenant, *input) {})},
		{op: op, want: "ResourceAlreadyExistsException", rule: "another token", says: "already exists", do: createsProvider(true, func(_ tenant, in *input) {
			in.ClientToken = new(strings.Repeat("t", 36))
		})},
		{op: op, want: "LimitExceededException", says: "one certificate provider", do: createsProvider(true, func(_ tenant, in *input) {
			in.CertificateProviderName = new("second")
		})},
		{op: op, want: invalid, rule: "name", says: "certificateProviderName", do: createsProvider(false, func(_ tenant, in *input) {
			in.CertificateProviderName = new("a b")
		})},
		{op: op, want: invalid, rule: "operation", says: "accountDefaultForOperations", do: createsProvider(false, func(_ tenant, in *input) {
			in.AccountDefaultForOperations = []types.CertificateProviderOperation{"CreateKeysAndCertificate"}
		})},
		{op: op, want: invalid, rule: "no operation", says: "accountDefaultForOperations", do: createsProvider(false, func(_ tenant, in *input) {
			in.AccountDefaultForOperations = []types.CertificateProviderOperation{}
		})},
		{op: op, want: invalid, rule: "function", says: `names the function "nobody"`, do: createsProvider(false, func(n tenant, in *input) {
			in.LambdaFunctionArn = n.function("nobody")
		})},
		{op: op, want: invalid, rule: "another account's function", says: "lambdaFunctionArn must be", do: createsProvider(false, func(_ tenant, in *input) {
			in.LambdaFunctionArn = functionARN("signer")
		})},
		{op: op, want: invalid, rule: "token", says: "clientToken", do: createsProvider(false, func(_ tenant, in *input) {
			in.ClientToken = new("short")
		})},
	}
}

// providerChangeAnswers are about the other operations.
func providerChangeAnswers() []answerCase {
	return []answerCase{
		{op: "DescribeCertificateProvider", do: func(o *operator) error {
			n := o.newTenant()
			made := must(n.operator, n.CreateCertificateProvider, n.providerInput())
			out, err := n.DescribeCertificateProvider(n.t.Context(), &iot.DescribeCertificateProviderInput{CertificateProviderName: made.CertificateProviderName})
			if err != nil {
				return err
			}
			if out.CreationDate == nil || out.LastModifiedDate == nil {
				return fmt.Errorf("described %+v", out)
			}
			return differs("provider", []any{*out.CertificateProviderName, *out.CertificateProviderArn, *out.LambdaFunctionArn, out.AccountDefaultForOperations},
				[]any{"own,@=ca", *made.CertificateProviderArn, *n.function("signer"), []types.CertificateProviderOperation{providerOperation}})
		}},
		{op: "DescribeCertificateProvider", want: notFound, says: "does not exist", do: func(o *operator) error {
			_, err := o.DescribeCertificateProvider(o.t.Context(), &iot.DescribeCertificateProviderInput{CertificateProviderName: new("nobody")})
			return err
		}},
		{op: "DescribeCertificateProvider", want: invalid, says: "certificateProviderName", do: func(o *operator) error {
			_, err := o.DescribeCertificateProvider(o.t.Context(), &iot.DescribeCertificateProviderInput{CertificateProviderName: new("a b")})
			return err
		}},
		{op: "ListCertificateProviders", do: func(o *operator) error {
			n := o.newTenant()
			if none := must(n.operator, n.ListCertificateProviders, &iot.ListCertificateProvidersInput{}); len(none.CertificateProviders) != 0 {
				return fmt.Errorf("listed %+v", none)
			}
			made := must(n.operator, n.CreateCertificateProvider, n.providerInput())
			out := must(n.operator, n.ListCertificateProviders, &iot.ListCertificateProvidersInput{AscendingOrder: true})
			if len(out.CertificateProviders) != 1 || out.NextToken != nil {
				return fmt.Errorf("listed %+v", out)
			}
			return differs("provider", []string{*out.CertificateProviders[0].CertificateProviderName, *out.CertificateProviders[0].CertificateProviderArn},
				[]string{"own,@=ca", *made.CertificateProviderArn})
		}},
		{op: "ListCertificateProviders", want: invalid, says: "token", do: func(o *operator) error {
			_, err := o.ListCertificateProviders(o.t.Context(), &iot.ListCertificateProvidersInput{NextToken: new("x")})
			return err
		}},
		{op: "UpdateCertificateProvider", do: func(o *operator) error {
			n := o.newTenant()
			made := must(n.operator, n.CreateCertificateProvider, n.providerInput())
			out, err := n.UpdateCertificateProvider(n.t.Context(), &iot.UpdateCertificateProviderInput{
				CertificateProviderName: made.CertificateProviderName, LambdaFunctionArn: n.function("signer"),
				AccountDefaultForOperations: []types.CertificateProviderOperation{providerOperation},
			})
			if err != nil {
				return err
			}
			return differs("provider", []string{*out.CertificateProviderName, *out.CertificateProviderArn}, []string{"own,@=ca", *made.CertificateProviderArn})
		}},
		{op: "UpdateCertificateProvider", want: notFound, says: "does not exist", do: updatesProvider(func(_ tenant, in *iot.UpdateCertificateProviderInput) {
			in.CertificateProviderName = new("second")
		})},
		{op: "UpdateCertificateProvider", want: invalid, rule: "function", says: `names the function "nobody"`, do: updatesProvider(
			func(n tenant, in *iot.UpdateCertificateProviderInput) { in.LambdaFunctionArn = n.function("nobody") })},
		{op: "UpdateCertificateProvider", want: invalid, rule: "operation", says: "accountDefaultForOperations", do: updatesProvider(
			func(_ tenant, in *iot.UpdateCertificateProviderInput) {
				in.AccountDefaultForOperations = []types.CertificateProviderOperation{"RegisterThing"}
			})},
		{op: "DeleteCertificateProvider", do: func(o *operator) error {
			n := o.newTenant()
			made := must(n.operator, n.CreateCertificateProvider, n.providerInput())
			must(n.operator, n.DeleteCertificateProvider, &iot.DeleteCertificateProviderInput{CertificateProviderName: made.CertificateProviderName})
			if left := must(n.operator, n.ListCertificateProviders, &iot.ListCertificateProvidersInput{}); len(left.CertificateProviders) != 0 {
				return fmt.Errorf("left %+v", left)
			}
			return nil
		}},
		{op: "DeleteCertificateProvider", want: notFound, says: "does not exist", do: func(o *operator) error {
			_, err := o.DeleteCertificateProvider(o.t.Context(), &iot.DeleteCertificateProviderInput{CertificateProviderName: new("nobody")})
			return err
		}},
		{op: "DeleteCertificateProvider", want: invalid, says: "certificateProviderName", do: func(o *operator) error {
			_, err := o.DeleteCertificateProvider(o.t.Context(), &iot.DeleteCertificateProviderInput{CertificateProviderName: new("a b")})
			return err
		}},
	}
}

// signerSecret is what the server signs its requests to the function with.
const signerSecret = "0123456789abcdef0123456789abcdef"

// signer is an authority as a web service.
type signer struct {
	*authority

	asked atomic.Int64
	// told is the last input.
	told atomic.Pointer[map[string]string]
}

// ServeHTTP signs what the server asks, under the same serial number space as any
// other certificate of the authority. It trusts the server by its signature.
func (s *signer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	body, err := io.ReadAll(r.Body)
	at, given, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Muster-Signature"), "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte(signerSecret))
	mac.Write([]byte(at + "." + string(body)))
	var told map[string]string
	if err != nil || hex.EncodeToString(mac.Sum(nil)) != given || json.Unmarshal(body, &told) != nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.told.Store(&told)
	block, _ := pem.Decode([]byte(told["certificateSigningRequest"]))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: told["clientId"]}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}, s.cert, csr.PublicKey, s.key)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{
		"certificatePem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	})
}

// parsePEM reads one certificate.
func parsePEM(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("%q is no PEM", text)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// askForCertificate is a device's create-from-csr over MQTT with a claim. It
// returns the last part of the answer's topic and its members.
func askForCertificate(o *operator, claim tls.Certificate, clientID string, key *ecdsa.PrivateKey) (string, map[string]any) {
	o.t.Helper()
	const topic = "$aws/certificates/create-from-csr/json"
	type answer struct {
		topic   string
		payload []byte
	}
	answers := make(chan answer, 1)
	device := mqttDial(o.t, o.server.MQTTAddr, o.server.TLSConfig(claim), mqttclient.Options{
		ClientID: clientID, Version: mqtt.V5,
		OnMessage: func(p *mqtt.Publish) { answers <- answer{string(p.Topic), slices.Clone(p.Payload)} },
	})
	subscribe(o.t, device, topic+"/accepted", topic+"/rejected")
	payload, err := json.Marshal(map[string]string{"certificateSigningRequest": request(o.t, key)})
	if err != nil {
		o.t.Fatal(err)
	}
	if err := device.Publish(o.t.Context(), topic, 1, payload); err != nil {
		o.t.Fatal(err)
	}
	select {
	case got := <-answers:
		var members map[string]any
		if err := json.Unmarshal(got.payload, &members); err != nil {
			o.t.Fatal(err)
		}
		return strings.TrimPrefix(got.topic, topic+"/"), members
	case <-time.After(20 * time.Second):
		o.t.Fatal("no answer in twenty seconds")
		return "", nil
	}
}

// TestCertificateProviderSigns: while the account has a provider, its function
// signs what devices send over MQTT, or nobody does; what operators ask over HTTP
// is signed here (security-provisioning §3.5).
func TestCertificateProviderSigns(t *testing.T) {
	t.Parallel()
	ca := &signer{authority: newAuthority(t, named("plant"), newKey(t))}
	web := httptest.NewServer(ca)
	t.Cleanup(web.Close)
	secret, hang := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "hang.sh")
	for path, text := range map[string]string{secret: signerSecret, hang: "#!/bin/sh\nsleep 60\n"} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	server := startServerWith(t, "--function.secret-file", secret, "--function.target", "signer="+web.URL, "--function.target", "dies=exec:/bin/false",
		"--function.target", "says-nothing=exec:/bin/true", "--function.target", "hangs=exec:"+hang)
	o := newOperator(t, server)
	cert, key := o.claim()
	claim, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	caID := must(o, o.RegisterCACertificate, &iot.RegisterCACertificateInput{
		CaCertificate: &ca.pem, VerificationCertificate: o.proof(ca.authority), SetAsActive: true,
	}).CertificateId
	must(o, o.CreateCertificateProvider, &iot.CreateCertificateProviderInput{
		CertificateProviderName: new("plant"), LambdaFunctionArn: functionARN("signer"),
		AccountDefaultForOperations: []types.CertificateProviderOperation{providerOperation},
	})

	own := newKey(t)
	topic, answer := askForCertificate(o, claim, "fac-1", own)
	if topic != "accepted" {
		t.Fatalf("%s: %v", topic, answer)
	}
	issued := parsePEM(t, fmt.Sprint(answer["certificatePem"]))
	if err := issued.CheckSignatureFrom(ca.cert); err != nil || !own.PublicKey.Equal(issued.PublicKey) || issued.Subject.CommonName != "fac-1" {
		t.Errorf("issued %v for %v: %v", issued.Subject, issued.PublicKey, err)
	}
	if told := *ca.told.Load(); told["principalId"] != idOf(claim) || told["clientId"] != "fac-1" || len(told) != 3 {
		t.Errorf("told %v", told)
	}
	kept := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: new(fmt.Sprint(answer["certificateId"]))}).CertificateDescription
	if kept.Status != types.CertificateStatusPendingActivation || val(kept.CaCertificateId) != *caID || fmt.Sprint(answer["certificateOwnershipToken"]) == "" {
		t.Errorf("kept %+v", kept)
	}

	// An operator's request is no device's: AWS lets the provider sign for the MQTT
	// operation alone.
	made := must(o, o.CreateCertificateFromCsr, &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: new(request(t, newKey(t)))})
	if parsePEM(t, *made.CertificatePem).Issuer.String() == ca.cert.Subject.String() || ca.asked.Load() != 1 {
		t.Errorf("the provider was asked %d times, and signed for the operator", ca.asked.Load())
	}

	refuses := func(function, says string) {
		t.Helper()
		must(o, o.UpdateCertificateProvider, &iot.UpdateCertificateProviderInput{CertificateProviderName: new("plant"), LambdaFunctionArn: functionARN(function)})
		topic, answer := askForCertificate(o, claim, "fac-"+function, newKey(t))
		if topic != "rejected" || answer["errorCode"] != "InternalError" || !strings.Contains(fmt.Sprint(answer["errorMessage"]), says) {
			t.Errorf("%s: %s %v", function, topic, answer)
		}
	}
	refuses("dies", "gave no answer")
	refuses("says-nothing", "no JSON object")
	refuses("hangs", "did not answer in time")
	if lines := server.Log(); strings.Count(lines, "certificate provider plant of account 000000000000") != 3 {
		t.Error("the log does not tell of the three refusals")
	}
	o.deactivate(caID)
	refuses("signer", "is INACTIVE")

	must(o, o.DeleteCertificateProvider, &iot.DeleteCertificateProviderInput{CertificateProviderName: new("plant")})
	if topic, answer := askForCertificate(o, claim, "fac-9", newKey(t)); topic != "accepted" {
		t.Errorf("without a provider: %s %v", topic, answer)
	}
	if n := ca.asked.Load(); n != 2 {
		t.Errorf("the function was asked %d times", n)
	}
}
