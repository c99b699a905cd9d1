package mqttapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
)

// Provisioning is what the topics of fleet provisioning ask for.
type Provisioning interface {
	CreateKeys(ctx context.Context, r provisioning.Requester) (provisioning.Issued, error)
	CreateFromCSR(ctx context.Context, r provisioning.Requester, csr string) (provisioning.Issued, error)
	Provision(ctx context.Context, r provisioning.Requester, c provisioning.ProvisionCommand) (provisioning.Provisioned, error)
}

// Bounds of the line for provisioning: hooks and keys take long, and a device
// asks one question at a time.
const (
	provisioningWorkers   = 128
	provisioningWaiting   = 4096
	provisioningPerClient = 4
)

// Parts of provisioning topics.
const (
	certificatesPrefix = "$aws/certificates/"
	templatesPrefix    = "$aws/provisioning-templates/"
	opCreate           = "create"
	opCreateFromCSR    = "create-from-csr"
	opProvision        = "provision"
)

// provisioningTopics are the rows of the table of reserved topics.
func provisioningTopics() []reservedTopic {
	var rows []reservedTopic
	for _, operation := range []string{
		certificatesPrefix + opCreate + "/", certificatesPrefix + opCreateFromCSR + "/", templatesPrefix + "+/" + opProvision + "/",
	} {
		for format := range formats() {
			rows = append(rows,
				reservedTopic{operation + format, input},
				reservedTopic{operation + format + "/accepted", output},
				reservedTopic{operation + format + "/rejected", output})
		}
	}
	return rows
}

// provisioningTopic is a parsed request topic.
type provisioningTopic struct {
	operation string
	template  string
	format    format
}

// parseProvisioningTopic reports false for a name that is no provisioning
// request.
func parseProvisioningTopic(name string) (provisioningTopic, bool) {
	var t provisioningTopic
	rest, ok := strings.CutPrefix(name, certificatesPrefix)
	if !ok {
		if rest, ok = strings.CutPrefix(name, templatesPrefix); !ok {
			return t, false
		}
		if t.template, rest, ok = strings.Cut(rest, "/"); !ok || t.template == "" {
			return t, false
		}
	}
	var suffix string
	t.operation, suffix, _ = strings.Cut(rest, "/")
	t.format, ok = formats()[suffix]
	isCertificate := t.operation == opCreate || t.operation == opCreateFromCSR
	return t, ok && (isCertificate && t.template == "" || t.operation == opProvision && t.template != "")
}

// takeProvisioning puts a request in line.
func (h *Handler) takeProvisioning(p *broker.Publish, request provisioningTopic, done broker.Done) (deferred, ok bool) {
	return h.lineUp(p, request.format, done, func(ctx context.Context) (any, error) { return h.serveProvisioning(ctx, p, request) })
}

// lineUp puts in line what takes long and is answered to its asker alone, in a format.
// Requests of one client are carried out in order. The publish is acknowledged before
// its answer.
func (h *Handler) lineUp(p *broker.Publish, as format, done broker.Done, serve func(context.Context) (any, error)) (deferred, ok bool) {
	err := h.provisioner.submit(laneKey{thingKey: thingKey{p.Account, p.ClientID}}, task{
		bytes: len(p.Payload) + len(p.Topic),
		run: func(ctx context.Context) {
			answer, err := serve(fleet.WithActor(ctx, actorOf(p)))
			done(nil)
			h.replyProvisioning(p, as, answer, err)
		},
	})
	if err == nil {
		return true, true
	}
	if fault.CodeOf(err) == fault.Throttling {
		err = fault.New(fault.Throttling, "Too many requests are being carried out; try again later")
	}
	h.replyProvisioning(p, as, nil, err)
	return false, true
}

// serveProvisioning carries one request out and returns the accepted answer.
func (h *Handler) serveProvisioning(ctx context.Context, p *broker.Publish, request provisioningTopic) (any, error) {
	requester := provisioning.Requester{Account: p.Account, Principal: p.Principal, ClientID: p.ClientID, RemoteAddr: p.RemoteAddr}
	switch request.operation {
	case opCreate:
		if err := request.format.readEmpty(p.Payload); err != nil {
			return nil, err
		}
		issued, err := h.provisioning.CreateKeys(ctx, requester)
		return issuedAnswer{issued.CertificateID, issued.CertificatePEM, issued.PrivatePEM, issued.Token}, err
	case opCreateFromCSR:
		var body struct {
			CSR string `json:"certificateSigningRequest"`
		}
		if err := request.format.read(p.Payload, &body); err != nil {
			return nil, err
		}
		issued, err := h.provisioning.CreateFromCSR(ctx, requester, body.CSR)
		if fault.CodeOf(err) == fault.InvalidRequest {
			err = badPayload(err, "%s", fault.From(err).Message)
		}
		return issuedAnswer{issued.CertificateID, issued.CertificatePEM, "", issued.Token}, err
	}
	var body struct {
		Token      string             `json:"certificateOwnershipToken"`
		Parameters map[string]*string `json:"parameters"`
	}
	if err := request.format.read(p.Payload, &body); err != nil {
		return nil, err
	}
	parameters, err := parametersOf(body.Parameters)
	if err != nil {
		return nil, err
	}
	if body.Token == "" {
		return nil, fault.Wrap(fault.InvalidRequest, provisioning.ErrToken, "Certificate ownership token cannot be empty.")
	}
	made, err := h.provisioning.Provision(ctx, requester, provisioning.ProvisionCommand{
		Template: request.template, Token: body.Token, Parameters: parameters,
	})
	return provisionedAnswer{made.DeviceConfiguration, made.ThingName}, err
}

// parametersOf refuses null, which the decoders would take for the empty text.
func parametersOf(given map[string]*string) (map[string]string, error) {
	parameters := make(map[string]string, len(given))
	for name, value := range given {
		if value == nil {
			return nil, wrongType("parameters."+name, errors.New("it is null"))
		}
		parameters[name] = *value
	}
	return parameters, nil
}

// issuedAnswer is what a device learns of its certificate.
type issuedAnswer struct {
	CertificateID  string `json:"certificateId"`
	CertificatePEM string `json:"certificatePem"`
	PrivateKey     string `json:"privateKey,omitempty"`
	Token          string `json:"certificateOwnershipToken"`
}

// provisionedAnswer is what a device learns when it has joined.
type provisionedAnswer struct {
	DeviceConfiguration map[string]string `json:"deviceConfiguration"`
	ThingName           string            `json:"thingName,omitempty"`
}

// rejectedAnswer is what a device learns when it has not.
type rejectedAnswer struct {
	StatusCode   int    `json:"statusCode"`
	ErrorCode    string `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
}

// replyProvisioning answers the connection that has asked, and nobody else: an
// answer may hold a private key.
func (h *Handler) replyProvisioning(p *broker.Publish, as format, answer any, err error) {
	suffix := "/accepted"
	if err != nil {
		suffix = "/rejected"
		rejected := rejectedAnswerOf(err)
		if rejected.StatusCode >= 500 { //nolint:mnd // a status of HTTP
			h.log.Error("provisioning request failed", slog.String("topic", p.Topic), slog.String("client_id", p.ClientID), slog.Any("err", err))
		}
		answer = rejected
	}
	payload, err := as.write(answer)
	if err != nil {
		h.log.Error("provisioning answer is not sent", slog.String("topic", p.Topic), slog.Any("err", err))
		return
	}
	p.Reply(p.Topic+suffix, payload)
}

// errPayload is a payload that cannot be read as what its topic takes.
var errPayload = errors.New("payload is not valid")

// badPayload is the fault for it.
func badPayload(cause error, format string, args ...any) error {
	return fault.Wrap(fault.InvalidRequest, errors.Join(errPayload, cause), format, args...)
}

// rejectedAnswerOf chooses status, code and text of a refusal.
func rejectedAnswerOf(err error) rejectedAnswer {
	f := fault.From(err)
	switch {
	case errors.Is(err, provisioning.ErrToken):
		return rejectedAnswer{400, "InvalidCertificateOwnershipToken", f.Message}
	case errors.Is(err, provisioning.ErrPending):
		return rejectedAnswer{403, "ApprovalPending", f.Message}
	case errors.Is(err, errPayload):
		return rejectedAnswer{400, "InvalidPayload", f.Message}
	}
	switch f.Code {
	case fault.InvalidRequest, fault.MalformedPolicy, fault.CertificateValidation:
		return rejectedAnswer{400, "InvalidParameters", f.Message}
	case fault.Forbidden, fault.Unauthorized:
		return rejectedAnswer{403, "AccessDenied", f.Message}
	case fault.ResourceNotFound:
		return rejectedAnswer{404, "ResourceNotFound", f.Message}
	case fault.Conflict, fault.ResourceAlreadyExists, fault.CertificateState, fault.CertificateConflict, fault.VersionConflict:
		return rejectedAnswer{409, "ResourceConflict", f.Message}
	case fault.Throttling, fault.LimitExceeded:
		return rejectedAnswer{429, "Throttled", f.Message}
	case fault.Unavailable:
		return rejectedAnswer{500, "InternalError", f.Message}
	default:
		return rejectedAnswer{500, "InternalError", internalText}
	}
}

// format is how payloads of a topic are written.
type format struct {
	name string
	// read refuses what is not one object of the wanted shape.
	read func(payload []byte, into any) error
	// write returns the payload of an answer.
	write func(answer any) ([]byte, error)
}

// readEmpty takes no payload, or an object of which nothing counts.
func (f format) readEmpty(payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	var nothing struct{}
	return f.read(payload, &nothing)
}

// formats are the formats by the last level of a topic.
func formats() map[string]format {
	return map[string]format{
		"json": {name: "JSON", read: readJSON, write: json.Marshal},
		"cbor": {name: "CBOR", read: readCBOR, write: cbor.Marshal},
	}
}

// readJSON reads one object.
func readJSON(payload []byte, into any) error {
	if !utf8.Valid(payload) {
		return badPayload(nil, "The payload is not UTF-8")
	}
	if trimmed := strings.TrimLeft(string(payload), " \t\r\n"); !strings.HasPrefix(trimmed, "{") {
		return badPayload(nil, "The payload is no JSON object")
	}
	if err := json.Unmarshal(payload, into); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return wrongType(wrong.Field, err)
		}
		return badPayload(err, "The payload is not JSON")
	}
	return nil
}

// wrongType is the fault for a member of another type than its own.
func wrongType(field string, cause error) error {
	if rest, isParameter := strings.CutPrefix(field, "parameters"); isParameter {
		name := strings.TrimPrefix(rest, ".")
		if name == "" {
			return fault.Wrap(fault.InvalidRequest, errors.Join(provisioning.ErrParameters, cause), "parameters must be an object of texts")
		}
		return fault.Wrap(fault.InvalidRequest, errors.Join(provisioning.ErrParameters, cause), "parameters: the value of %s must be a text", name)
	}
	return badPayload(cause, "The member %s has a wrong type", field)
}

// Bounds of a CBOR payload, ahead of the memory that it could ask for.
const (
	cborDepth    = 8
	cborMembers  = 1024
	cborElements = 1024
)

// cborMode decodes what devices send: one item, no name twice.
var cborMode = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: cborDepth, MaxMapPairs: cborMembers, MaxArrayElements: cborElements,
		UTF8: cbor.UTF8RejectInvalid, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
}()

// readCBOR reads one map.
func readCBOR(payload []byte, into any) error {
	const majorType, mapType = 5, 5
	if len(payload) == 0 || payload[0]>>majorType != mapType {
		return badPayload(nil, "The payload is no CBOR map")
	}
	if err := cborMode.Unmarshal(payload, into); err != nil {
		if wrong, ok := errors.AsType[*cbor.UnmarshalTypeError](err); ok {
			return wrongType(cborField(wrong), err)
		}
		return badPayload(err, "The payload is not CBOR that can be taken: %s", err.Error())
	}
	return nil
}

// cborField is the name of the member that an error is about. The decoder knows it
// by the name of the struct's field.
func cborField(err *cbor.UnmarshalTypeError) string {
	switch name := err.StructFieldName[strings.LastIndexByte(err.StructFieldName, '.')+1:]; name {
	case "Parameters":
		return "parameters"
	case "Token":
		return "certificateOwnershipToken"
	case "CSR":
		return "certificateSigningRequest"
	default:
		return name
	}
}
