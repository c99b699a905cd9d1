package sdk

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/apiclient"
)

// vectorWorld is what one file of vectors has made.
type vectorWorld struct {
	*operator
	file   string
	counts *vectorCounts
	// names are the things and clients of all files, with the file of each.
	names        *sync.Map
	certificates map[string]*vectorCertificate
	policies     map[string]bool
	things       map[string]bool
	clients      map[string]*vectorClient
	api          *apiclient.Client
	// publisher may do everything.
	publisher *publisher
}

// vectorCertificate is a device's certificate with its key.
type vectorCertificate struct {
	arn, id string
	pair    tls.Certificate
	https   *http.Client
}

var certificateReference = regexp.MustCompile(`@cert\((\w+)\)`)

// expand puts in what a file leaves out.
func (w *vectorWorld) expand(text string) string {
	text = strings.ReplaceAll(text, "@:", arnPrefix)
	return certificateReference.ReplaceAllStringFunc(text, func(reference string) string {
		return w.certificate(certificateReference.FindStringSubmatch(reference)[1]).id
	})
}

// certificate returns one that the file has made.
func (w *vectorWorld) certificate(name string) *vectorCertificate {
	w.t.Helper()
	c := w.certificates[name]
	if c == nil {
		w.t.Fatalf("no certificate %s", name)
	}
	return c
}

// claim makes sure that no other file uses the name.
func (w *vectorWorld) claim(kind, name string) {
	w.t.Helper()
	if other, taken := w.names.LoadOrStore(kind+" "+name, w.file); taken && other != w.file {
		w.t.Fatalf("%s %s is of %s too", kind, name, other)
	}
}

// named is what a policy or a group of the file is called.
func (w *vectorWorld) named(name string) *string { return new(w.file + "-" + name) }

// policy makes a policy, or a new version of it that is in force.
func (w *vectorWorld) policy(name, document string) {
	w.t.Helper()
	document = strings.TrimSpace(w.expand(document))
	if w.policies[name] {
		must(w.operator, w.CreatePolicyVersion, &iot.CreatePolicyVersionInput{PolicyName: w.named(name), PolicyDocument: &document, SetAsDefault: true})
		return
	}
	must(w.operator, w.CreatePolicy, &iot.CreatePolicyInput{PolicyName: w.named(name), PolicyDocument: &document})
	w.policies[name] = true
}

// line makes or changes something:
//
//	type TYPE
//	group GROUP [under PARENT]
//	thing THING [type=TYPE] [ATTRIBUTE=VALUE…]   (made, or its attributes merged)
//	refused thing THING ATTRIBUTE=VALUE…         (the registry takes no such value)
//	untype THING                                 (takes its type away)
//	ungroup GROUP                                (deletes it)
//	certificate CERTIFICATE [FIELD=VALUE…]
//	attach CERTIFICATE THING [exclusive]
//	detach CERTIFICATE THING
//	join THING GROUP
//	leave THING GROUP
//	put POLICY on CERTIFICATE or group/GROUP
//	take POLICY off CERTIFICATE or group/GROUP
//	version POLICY NUMBER                        (makes it the one in force)
//	connects CERTIFICATE                         (may also connect as anybody)
//	subscribes CERTIFICATE                       (may also subscribe to anything)
func (w *vectorWorld) line(line string) {
	w.t.Helper()
	words := strings.Fields(line)
	rest := words[1:]
	switch words[0] {
	case "type":
		must(w.operator, w.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: &rest[0]})
	case "group":
		in := &iot.CreateThingGroupInput{ThingGroupName: w.named(rest[0])}
		if len(rest) == 3 {
			in.ParentGroupName = w.named(rest[2])
		}
		must(w.operator, w.CreateThingGroup, in)
	case "thing":
		if err := w.makeThing(rest); err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
	case "refused":
		if code, _ := answered(w.makeThing(rest[1:])); code != "InvalidRequestException" {
			w.t.Errorf("%s: %q", line, code)
		}
	case "certificate":
		w.certificates[rest[0]] = w.makeCertificate(rest[1:])
	case "ungroup":
		must(w.operator, w.DeleteThingGroup, &iot.DeleteThingGroupInput{ThingGroupName: w.named(rest[0])})
	case "untype":
		must(w.operator, w.UpdateThing, &iot.UpdateThingInput{ThingName: &rest[0], RemoveThingType: true})
	case "attach":
		in := &iot.AttachThingPrincipalInput{ThingName: &rest[1], Principal: &w.certificate(rest[0]).arn}
		if len(rest) == 3 {
			in.ThingPrincipalType = types.ThingPrincipalTypeExclusiveThing
		}
		must(w.operator, w.AttachThingPrincipal, in)
	case "detach":
		must(w.operator, w.DetachThingPrincipal, &iot.DetachThingPrincipalInput{ThingName: &rest[1], Principal: &w.certificate(rest[0]).arn})
	case "join":
		must(w.operator, w.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &rest[0], ThingGroupName: w.named(rest[1])})
	case "leave":
		must(w.operator, w.RemoveThingFromThingGroup, &iot.RemoveThingFromThingGroupInput{ThingName: &rest[0], ThingGroupName: w.named(rest[1])})
	case "put":
		must(w.operator, w.AttachPolicy, &iot.AttachPolicyInput{PolicyName: w.named(rest[0]), Target: w.target(rest[2])})
	case "take":
		must(w.operator, w.DetachPolicy, &iot.DetachPolicyInput{PolicyName: w.named(rest[0]), Target: w.target(rest[2])})
	case "version":
		must(w.operator, w.SetDefaultPolicyVersion, &iot.SetDefaultPolicyVersionInput{PolicyName: w.named(rest[0]), PolicyVersionId: &rest[1]})
	case "connects", "subscribes":
		w.helper(words[0], rest[0])
	default:
		w.t.Fatalf("bad line %q", line)
	}
}

// helper attaches a policy that is not part of what the vectors are about.
func (w *vectorWorld) helper(name, certificate string) {
	w.t.Helper()
	if !w.policies[name] {
		action := map[string]string{"connects": "iot:Connect", "subscribes": "iot:Subscribe"}[name]
		w.policy(name, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"`+action+`","Resource":"*"}}`)
	}
	must(w.operator, w.AttachPolicy, &iot.AttachPolicyInput{PolicyName: w.named(name), Target: w.target(certificate)})
}

// target is the ARN of what a policy is put on.
func (w *vectorWorld) target(name string) *string {
	w.t.Helper()
	if group, ok := strings.CutPrefix(name, "group/"); ok {
		return new(arnPrefix + "thinggroup/" + *w.named(group))
	}
	return &w.certificate(name).arn
}

// makeThing makes a thing or merges attributes.
func (w *vectorWorld) makeThing(words []string) error {
	w.t.Helper()
	name, attributes := words[0], map[string]string{}
	var typeName *string
	for _, word := range words[1:] {
		field, value, ok := strings.Cut(word, "=")
		switch {
		case !ok:
			w.t.Fatalf("bad attribute %q", word)
		case field == "type":
			typeName = &value
		default:
			attributes[field] = value
		}
	}
	payload := &types.AttributePayload{Attributes: attributes, Merge: true}
	if w.things[name] {
		_, err := w.UpdateThing(w.t.Context(), &iot.UpdateThingInput{ThingName: &name, ThingTypeName: typeName, AttributePayload: payload})
		return err
	}
	w.claim("thing", name)
	_, err := w.CreateThing(w.t.Context(), &iot.CreateThingInput{ThingName: &name, ThingTypeName: typeName, AttributePayload: payload})
	w.things[name] = err == nil
	return err
}

// makeCertificate has a certificate made for a subject of the file's choice. A
// field that is given twice has two values; "_" stands for a space.
func (w *vectorWorld) makeCertificate(fields []string) *vectorCertificate {
	w.t.Helper()
	oids := map[string]asn1.ObjectIdentifier{
		"CN": {2, 5, 4, 3}, "Surname": {2, 5, 4, 4}, "SerialNumber": {2, 5, 4, 5}, "C": {2, 5, 4, 6}, "State": {2, 5, 4, 8}, "O": {2, 5, 4, 10},
		"OU": {2, 5, 4, 11}, "Title": {2, 5, 4, 12}, "GivenName": {2, 5, 4, 42}, "Initials": {2, 5, 4, 43},
		"GenerationQualifier": {2, 5, 4, 44}, "DnQualifier": {2, 5, 4, 46}, "Pseudonym": {2, 5, 4, 65},
	}
	if len(fields) == 0 {
		fields = []string{"CN=vector"}
	}
	var subject pkix.Name
	for _, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		if oids[name] == nil {
			w.t.Fatalf("bad certificate field %q", field)
		}
		value = strings.ReplaceAll(strings.ReplaceAll(value, "_", " "), "LONG", strings.Repeat("x", 1025))
		subject.ExtraNames = append(subject.ExtraNames, pkix.AttributeTypeAndValue{Type: oids[name], Value: value})
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		w.t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}))
	made := must(w.operator, w.CreateCertificateFromCsr, &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: &text, SetAsActive: true})
	block, _ := pem.Decode([]byte(*made.CertificatePem))
	c := &vectorCertificate{
		arn: *made.CertificateArn, id: *made.CertificateId,
		pair: tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key},
	}
	transport := &http.Transport{TLSClientConfig: w.server.TLSConfig(c.pair, "x-amzn-http-ca")}
	w.t.Cleanup(transport.CloseIdleConnections)
	c.https = &http.Client{Transport: transport}
	return c
}
