package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// Results of a CONNECT, for the metric.
const (
	resultAccepted  = "accepted"
	resultRefused   = "refused"
	resultMalformed = "malformed"
	resultHandshake = "handshake_failed"
	resultSilent    = "no_connect"
)

// errRefused is a CONNECT that was answered with a refusal.
var errRefused = errors.New("connection refused")

// admit brings one connection from accept to a running session. It runs on a
// goroutine of its own, whose grown stack is gone afterwards.
func (b *Broker) admit(ctx context.Context, conn net.Conn, o ListenerOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !b.beginAdmission(conn, cancel) {
		return errors.Join(ErrClosed, conn.Close())
	}
	defer b.endAdmission(conn)
	result, err := b.tryAdmit(ctx, conn, o)
	b.metrics.connects.WithLabelValues(result).Inc()
	if err != nil {
		b.logger.DebugContext(ctx, "connection not admitted", slog.String("listener", o.Name),
			slog.String("remote_addr", conn.RemoteAddr().String()), slog.String("result", result), slog.Any("err", err))
		return errors.Join(err, ignoreClosed(conn.Close()))
	}
	return nil
}

// ignoreClosed drops the error of closing what is closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// beginAdmission remembers a connection that Shutdown must cut.
func (b *Broker) beginAdmission(conn net.Conn, cancel context.CancelFunc) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return false
	}
	b.admitting[conn] = cancel
	return true
}

// endAdmission forgets it.
func (b *Broker) endAdmission(conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.admitting, conn)
}

// tryAdmit does the handshake, reads the CONNECT and starts the session.
func (b *Broker) tryAdmit(ctx context.Context, conn net.Conn, o ListenerOptions) (result string, err error) {
	state, err := b.handshake(ctx, conn)
	if err != nil {
		return resultHandshake, err
	}
	if err := conn.SetReadDeadline(b.now().Add(b.limits.ConnectTimeout)); err != nil {
		return resultSilent, fmt.Errorf("arm deadline: %w", err)
	}
	a := admission{broker: b, conn: conn, options: o, in: newInput(conn, &b.reads)}
	packet, rest, err := a.readConnect()
	if err != nil {
		a.in.release()
		return resultSilent, err
	}
	if err := a.connect.Decode(packet, 0); err != nil {
		a.in.release()
		a.refuseMalformed(err)
		return resultMalformed, err
	}
	if err := a.check(ctx, state); err != nil {
		a.in.release()
		return resultRefused, err
	}
	if err := conn.SetReadDeadline(noDeadline()); err != nil {
		a.in.release()
		a.guard.Close()
		return resultSilent, fmt.Errorf("disarm deadline: %w", err)
	}
	return a.start(rest)
}

// admission is the state of a connection that has no session yet.
type admission struct {
	broker  *Broker
	conn    net.Conn
	options ListenerOptions
	in      input
	connect mqtt.Connect
	request ConnectRequest
	info    SessionInfo
	guard   Guard
	// admitted is the gatekeeper's consent.
	admitted Admission
	// assigned is set when the client id is ours.
	assigned bool
	// key is what the door remembers the client by.
	key uint64
}

// readConnect reads until the first packet is whole. What arrived behind it
// stays in the input buffer.
func (a *admission) readConnect() (packet, rest []byte, err error) {
	limit := a.broker.limits.MaxPacket
	for {
		data, err := a.in.next()
		if err != nil {
			return nil, nil, fmt.Errorf("wait for CONNECT: %w", err)
		}
		if mqtt.TypeOf(data) != mqtt.TypeConnect {
			return nil, nil, errors.New("first packet is not CONNECT")
		}
		packet, rest, err := mqtt.Frame(data, limit)
		if err != nil {
			return nil, nil, fmt.Errorf("frame CONNECT: %w", err)
		}
		if packet != nil {
			packet, rest = a.slim(packet, rest)
			return packet, rest, nil
		}
		size, err := mqtt.PacketSize(data, limit)
		if err != nil {
			return nil, nil, fmt.Errorf("frame CONNECT: %w", err)
		}
		a.in.keep(data, size)
	}
}

// check validates the CONNECT and asks the gatekeeper.
func (a *admission) check(ctx context.Context, state *tls.ConnectionState) error {
	if code, before := a.invalid(); code != mqtt.Success {
		return a.refuse(code, before)
	}
	a.describe(state)
	if err := a.awaitTurn(ctx); err != nil {
		return err
	}
	admitted, err := a.broker.gatekeeper.Admit(ctx, &a.request)
	a.info.Account, a.info.Principal = a.request.Account, a.request.Principal
	if err != nil {
		return a.denied(err)
	}
	a.info.Account, a.info.Principal = admitted.Account, admitted.Principal
	a.info.ThingName, a.info.Indexed = admitted.ThingName, admitted.Indexed
	if a.info.Transient = admitted.Transient; admitted.Transient {
		a.info.CleanStart, a.info.SessionExpiry = true, 0
	}
	a.admitted = admitted
	a.guard = admitted.Guard
	return a.takeConnect()
}

// invalid returns why a CONNECT is refused for what it says, as MQTT 5 code and
// as return code before.
func (a *admission) invalid() (mqtt.ReasonCode, byte) {
	b, p := a.broker, &a.connect
	switch {
	case p.Version == mqtt.V31 && b.profile == topic.AWS:
		return mqtt.UnsupportedProtocolVersion, mqtt.ReturnUnacceptableVersion
	case p.Properties.Set.Has(mqtt.PropAuthMethod):
		return mqtt.BadAuthenticationMethod, mqtt.ReturnNotAuthorized
	case p.ClientID == "" && p.Version == mqtt.V31, p.ClientID == "" && p.Version == mqtt.V311 && !p.CleanStart:
		return mqtt.ClientIDNotValid, mqtt.ReturnIdentifierRejected
	case len(p.ClientID) > b.limits.MaxClientID, strings.HasPrefix(p.ClientID, "$"):
		return mqtt.ClientIDNotValid, mqtt.ReturnIdentifierRejected
	}
	if p.Will == nil {
		return mqtt.Success, mqtt.ReturnAccepted
	}
	switch {
	case p.Will.QoS > b.limits.MaxQoS:
		return mqtt.QoSNotSupported, mqtt.ReturnNotAuthorized
	case topic.ValidateName(p.Will.Topic, b.limits.Topic) != nil,
		p.Will.Retain && len(p.Will.Topic) > maxKeptName,
		topic.Reserved(p.Will.Topic) && (p.Will.Retain || !b.service.CanPublishReserved(p.Will.Topic)):
		return mqtt.TopicNameInvalid, mqtt.ReturnNotAuthorized
	case b.checkProperties(&p.Will.Properties) != nil:
		return mqtt.QuotaExceeded, mqtt.ReturnNotAuthorized
	}
	return mqtt.Success, mqtt.ReturnAccepted
}

// describe fills in the request and the session's description.
func (a *admission) describe(state *tls.ConnectionState) {
	b, p := a.broker, &a.connect
	id := uuid.NewString()
	if p.ClientID == "" {
		p.ClientID, a.assigned = assignedClientID(p.Version), true
	}
	a.request = ConnectRequest{
		ClientID: p.ClientID, RemoteAddr: a.conn.RemoteAddr().String(), Version: byte(p.Version), CleanStart: p.CleanStart,
		SessionExpiry: p.Properties.SessionExpiry, Username: p.Username, Password: p.Password, ListenerName: a.options.Name,
		LocalAddr: a.conn.LocalAddr().String(), Transport: a.options.Transport, Attachment: a.options.Attachment,
	}
	if a.request.Transport == "" {
		a.request.Transport = TransportTCP
		if state != nil {
			a.request.Transport = TransportTLS
		}
	}
	if p.Will != nil {
		a.request.Will = &Message{Topic: p.Will.Topic, Payload: p.Will.Payload, QoS: p.Will.QoS, Retain: p.Will.Retain, Properties: b.forward(&p.Will.Properties)}
	}
	if state != nil {
		a.request.Secured = true
		a.request.ServerName, a.request.ALPN = state.ServerName, state.NegotiatedProtocol
		if len(state.PeerCertificates) > 0 {
			a.request.PeerCertificate = state.PeerCertificates[0]
		}
	}
	if a.options.Account != nil {
		a.request.Account = a.options.Account(a.request.ServerName)
	}
	a.info = SessionInfo{
		ClientID: p.ClientID, SessionID: id, ConnectionID: id, LocalAddr: a.request.LocalAddr, Transport: a.request.Transport, RemoteAddr: a.request.RemoteAddr, RemoteIP: hostOf(a.request.RemoteAddr),
		ListenerName: a.options.Name, ServerName: a.request.ServerName, Version: byte(p.Version), CleanStart: p.CleanStart,
		KeepAlive: b.limits.keepAlive(p.KeepAlive), ConnectedAt: b.now(), SessionExpiry: a.expiry(),
	}
}

// expiry returns how many seconds the session will outlive the connection.
func (a *admission) expiry() uint32 {
	switch {
	case !a.request.Persistent():
		return 0
	case a.connect.Version != mqtt.V5:
		return a.broker.limits.MaxSessionExpiry
	default:
		return min(a.connect.Properties.SessionExpiry, a.broker.limits.MaxSessionExpiry)
	}
}

// assignedClientID returns an id for a client that has none. MQTT 5 clients
// learn it and come back with it, so that theirs must be one that a client may
// choose itself.
func assignedClientID(v mqtt.Version) string {
	if v == mqtt.V5 {
		return uuid.NewString()
	}
	return "$GEN/" + uuid.NewString()
}

// hostOf cuts the port off an address that has one.
func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

// keepAlive returns the effective keep-alive for what a client asked for.
func (l *Limits) keepAlive(asked uint16) uint16 {
	if l.MinKeepAlive == 0 {
		return asked
	}
	if asked == 0 {
		return l.MaxKeepAlive
	}
	return min(max(asked, l.MinKeepAlive), l.MaxKeepAlive)
}

// denied answers a refusal of the gatekeeper and tells the observer.
func (a *admission) denied(err error) error {
	code, before, reason := connackCode(err)
	b := a.broker
	if reason == ConnectFailureAuthorization {
		b.metrics.denials.WithLabelValues(ActionConnect).Inc()
		b.observer.Denied(Denial{
			Account: a.info.Account, Principal: a.info.Principal, ClientID: a.info.ClientID, SessionID: a.info.SessionID,
			Action: ActionConnect, Resource: a.info.ClientID, Packet: mqtt.TypeConnect.String(), Detail: fault.From(err).Message, At: b.now(),
		})
	}
	b.observer.ConnectFailed(&a.info, reason)
	return errors.Join(err, a.refuse(code, before))
}

// refuse answers the CONNECT with a code.
func (a *admission) refuse(code mqtt.ReasonCode, before byte) error {
	answer := mqtt.Connack{Reason: code}
	if a.connect.Version != mqtt.V5 {
		answer.Reason = mqtt.ReasonCode(before)
	}
	a.answer(&answer, a.connect.Version)
	return fmt.Errorf("%w with code 0x%02X", errRefused, byte(answer.Reason))
}

// refuseMalformed answers a CONNECT that cannot be decoded, as far as its
// version is known: MQTT 5 has a code for everything, earlier versions only for
// the version itself.
func (a *admission) refuseMalformed(err error) {
	wire, ok := errors.AsType[*mqtt.Error](err)
	if !ok {
		return
	}
	switch {
	case wire.Reason == mqtt.UnsupportedProtocolVersion && a.unknownVersion():
		a.answer(&mqtt.Connack{Reason: wire.Reason}, mqtt.V5)
	case wire.Reason == mqtt.UnsupportedProtocolVersion:
		a.answer(&mqtt.Connack{Reason: mqtt.ReasonCode(mqtt.ReturnUnacceptableVersion)}, mqtt.V311)
	case a.connect.Version == mqtt.V5:
		a.answer(&mqtt.Connack{Reason: wire.Reason}, mqtt.V5)
	}
}

// unknownVersion reports whether the answer takes the shape of MQTT 5, as the
// standard wants it for levels that nobody knows. The service answers in the
// shape of 3.1.1.
func (a *admission) unknownVersion() bool {
	return a.broker.profile == topic.Standard && (a.connect.Version < mqtt.V31 || a.connect.Version > mqtt.V5)
}

// answer writes a CONNACK that ends the admission.
func (a *admission) answer(p *mqtt.Connack, v mqtt.Version) {
	b, err := p.Append(nil, v)
	if err != nil {
		return
	}
	if err := a.conn.SetWriteDeadline(a.broker.now().Add(a.broker.limits.CloseTimeout)); err != nil {
		return
	}
	_, _ = a.conn.Write(b) // the connection ends either way
}
