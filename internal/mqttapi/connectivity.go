package mqttapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/connectivity"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

// connectivityPrefix begins the topics about the connectivity of things.
const connectivityPrefix = "$muster/connectivity/"

// maxDeclaration bounds a declaration in bytes, maxDeclarationToken its client
// token.
const (
	maxDeclaration      = 1024
	maxDeclarationToken = 64
)

// Connectivity is what the connectivity topics ask for.
type Connectivity interface {
	// Declare takes a declaration in without blocking; its Done is called once.
	Declare(d connectivity.Declaration)
}

// declarationInput is the payload of a declaration; numbers are checked by the
// domain. A member that is not of its operation is refused.
type declarationInput struct {
	ClientToken      string   `json:"clientToken"`
	HeartbeatSeconds *float64 `json:"heartbeatSeconds"`
	NextContact      *int64   `json:"nextContact"`
	SleepSeconds     *float64 `json:"sleepSeconds"`
	Lost             bool     `json:"lost"`
}

// declarationAccepted and declarationRejected are the answers; times are in
// milliseconds.
type declarationAccepted struct {
	Timestamp    int64  `json:"timestamp"`
	State        string `json:"state"`
	StateVersion int64  `json:"stateVersion"`
	ClientToken  string `json:"clientToken,omitempty"`
}

type declarationRejected struct {
	Timestamp   int64  `json:"timestamp"`
	Code        int    `json:"code"`
	Message     string `json:"message"`
	ClientToken string `json:"clientToken,omitempty"`
}

// parseDeclarationTopic reports false for a name that is no declaration.
func parseDeclarationTopic(name string) (thing string, operation connectivity.Operation, ok bool) {
	rest, ok := strings.CutPrefix(name, connectivityPrefix)
	if !ok {
		return "", "", false
	}
	thing, last, _ := strings.Cut(rest, "/")
	switch operation = connectivity.Operation(last); operation {
	case connectivity.Hello, connectivity.Heartbeat, connectivity.Goodbye:
		return thing, operation, true
	default:
		return "", "", false
	}
}

// takeDeclaration hands a declaration on. It is acknowledged when it is taken in
// or refused, and answered behind that. What came by HTTP has no connection to
// declare anything about.
func (h *Handler) takeDeclaration(p *broker.Publish, thing string, operation connectivity.Operation, done broker.Done) (deferred, ok bool) {
	if p.ConnectionID == "" {
		return false, false
	}
	ctx := context.Background()
	token, d, err := readDeclaration(p.Payload, operation)
	if err == nil && h.declared == nil {
		err = fault.New(fault.Unavailable, "connectivity is not watched")
	}
	if err != nil {
		h.refuseDeclaration(ctx, p, operation, token, err)
		return false, true
	}
	d.Account, d.Thing, d.Operation = p.Account, thing, operation
	d.ClientID, d.ConnectionID, d.Indexed, d.At = p.ClientID, p.ConnectionID, p.Indexed, h.now()
	d.Done = func(now connectivity.Declared, err error) {
		done(nil)
		if err != nil {
			h.refuseDeclaration(ctx, p, operation, token, err)
			return
		}
		h.declarations.WithLabelValues(string(operation), "200").Inc()
		h.answerDeclaration(ctx, p, "accepted", declarationAccepted{
			Timestamp: h.now().UnixMilli(), State: string(now.State), StateVersion: now.StateVersion, ClientToken: token,
		})
	}
	h.declared.Declare(d)
	return true, true
}

// refuseDeclaration says why.
func (h *Handler) refuseDeclaration(ctx context.Context, p *broker.Publish, operation connectivity.Operation, token string, err error) {
	code, text := shadowError(err)
	if fault.CodeOf(err) == fault.LimitExceeded {
		code, text = 409, fault.From(err).Message
	}
	if fault.CodeOf(err) == fault.Forbidden {
		text = fault.From(err).Message
	}
	h.declarations.WithLabelValues(string(operation), strconv.Itoa(code)).Inc()
	h.log.DebugContext(ctx, "declaration is refused", slog.String("topic", p.Topic), slog.String("client_id", p.ClientID), slog.Any("err", err))
	h.answerDeclaration(ctx, p, "rejected", declarationRejected{Timestamp: h.now().UnixMilli(), Code: code, Message: text, ClientToken: token})
}

// answerDeclaration publishes an answer.
func (h *Handler) answerDeclaration(ctx context.Context, p *broker.Publish, outcome string, content any) {
	payload, err := json.Marshal(content)
	if err != nil {
		h.log.ErrorContext(ctx, "declaration is not answered", slog.String("topic", p.Topic), slog.Any("err", err))
		return
	}
	h.send(ctx, p.Account, message(p.Topic+"/"+outcome, payload))
}

// readDeclaration reads a payload; an empty one says nothing more than its topic.
func readDeclaration(payload []byte, operation connectivity.Operation) (token string, d connectivity.Declaration, err error) {
	if len(payload) > maxDeclaration {
		return "", d, fault.New(fault.RequestEntityTooLarge, "the payload is longer than %d bytes", maxDeclaration)
	}
	if len(bytes.TrimSpace(payload)) == 0 {
		return "", d, nil
	}
	var in declarationInput
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return "", d, fault.Wrap(fault.InvalidRequest, err, "the payload is no JSON object of the documented members: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return "", d, fault.New(fault.InvalidRequest, "there is something behind the JSON object")
	}
	if len(in.ClientToken) > maxDeclarationToken {
		return "", d, fault.New(fault.InvalidRequest, "clientToken: is longer than %d bytes", maxDeclarationToken)
	}
	goodbye := operation == connectivity.Goodbye
	switch {
	case in.HeartbeatSeconds != nil && goodbye:
		return in.ClientToken, d, fault.New(fault.InvalidRequest, "heartbeatSeconds: is for hello and heartbeat")
	case (in.NextContact != nil || in.SleepSeconds != nil || in.Lost) && !goodbye:
		return in.ClientToken, d, fault.New(fault.InvalidRequest, "nextContact, sleepSeconds and lost are for goodbye")
	case in.NextContact != nil && in.SleepSeconds != nil:
		return in.ClientToken, d, fault.New(fault.InvalidRequest, "nextContact, sleepSeconds: give one of them")
	}
	d.Lost = in.Lost
	if in.NextContact != nil {
		d.NextContact = time.UnixMilli(*in.NextContact)
	}
	if d.Interval, err = positiveSeconds("heartbeatSeconds", in.HeartbeatSeconds); err == nil {
		d.Sleep, err = positiveSeconds("sleepSeconds", in.SleepSeconds)
	}
	return in.ClientToken, d, err
}

// positiveSeconds reads a number of seconds; none is 0. What does not fit is the
// domain's to refuse, as far as it can be told to it.
func positiveSeconds(name string, v *float64) (time.Duration, error) {
	if v == nil {
		return 0, nil
	}
	if *v <= 0 || *v > math.MaxInt32 {
		return 0, fault.New(fault.InvalidRequest, "%s: must be above 0 and at most %d", name, math.MaxInt32)
	}
	return time.Duration(*v * float64(time.Second)), nil
}

// statePayload is the message on $muster/connectivity/{thing}/state. Times are
// in milliseconds.
type statePayload struct {
	ThingName         string  `json:"thingName"`
	ClientID          string  `json:"clientId,omitempty"`
	StateVersion      int64   `json:"stateVersion"`
	From              string  `json:"from"`
	To                string  `json:"to"`
	At                int64   `json:"at"`
	Since             int64   `json:"since"`
	DisconnectReason  string  `json:"disconnectReason,omitempty"`
	Clean             *bool   `json:"clean,omitempty"`
	WaitMS            *int64  `json:"waitMs,omitempty"`
	OutageMS          *int64  `json:"outageMs,omitempty"`
	SessionIdentifier string  `json:"sessionIdentifier,omitempty"`
	VersionNumber     *int64  `json:"versionNumber,omitempty"`
	FlapScore         float64 `json:"flapScore"`
	Flapping          bool    `json:"flapping"`
	Blips             int64   `json:"blips"`
	LastSeen          *int64  `json:"lastSeen,omitempty"`
	Gateway           string  `json:"gateway,omitempty"`
	NoHello           bool    `json:"noHello,omitempty"`
	Alert             bool    `json:"alert"`
}

// connectivityState publishes a settled change.
func (h *Handler) connectivityState(ctx context.Context, env event.Envelope, e *event.ConnectivityStateChanged) {
	p := statePayload{
		ThingName: e.Thing, ClientID: e.ClientID, StateVersion: e.StateVersion, From: e.From, To: e.To, At: env.At.UnixMilli(),
		Since: e.Since.UnixMilli(), DisconnectReason: e.DisconnectReason, SessionIdentifier: e.SessionID,
		FlapScore: e.FlapScore, Flapping: e.Flapping, Blips: e.Blips, Gateway: e.Gateway, NoHello: e.NoHello, Alert: e.Alert,
	}
	if e.DisconnectReason != "" {
		p.Clean = &e.Clean
	}
	if e.From == string(connectivity.Suspect) {
		ms := e.Wait.Milliseconds()
		p.WaitMS = &ms
	}
	if e.Outage > 0 {
		ms := e.Outage.Milliseconds()
		p.OutageMS = &ms
	}
	if e.ClientID != "" {
		p.VersionNumber = &e.ConnectionVersion
	}
	if !e.LastSeen.IsZero() {
		ms := e.LastSeen.UnixMilli()
		p.LastSeen = &ms
	}
	payload, err := json.Marshal(p)
	if err != nil {
		h.log.ErrorContext(ctx, "connectivity state is not published", slog.Any("err", err))
		return
	}
	h.send(ctx, env.Account, message(connectivityPrefix+e.Thing+"/state", payload))
}
