package mqttstore

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/store"
)

// Kinds of keys; the account follows, then client id, box and number, or topic.
const (
	kindSession  = "mqtt-session"
	kindMessage  = "mqtt-message"
	kindRetained = "mqtt-retained"
)

// schema is the version of all stored forms.
const schema = 1

// keyOf is where a change is written.
func keyOf(c *broker.Change) store.Key {
	switch c.Kind {
	case broker.PutMessage, broker.DropMessage:
		return store.K(kindMessage, string(c.Account), c.Box, fmt.Sprintf("%016x", c.Seq))
	case broker.PutRetained, broker.DropRetained:
		return store.K(kindRetained, string(c.Account), c.Box)
	default:
		return store.K(kindSession, string(c.Account), c.Box)
	}
}

// encode returns the stored form of a change, nothing for a removal.
func encode(c *broker.Change) ([]byte, error) {
	switch c.Kind {
	case broker.PutSession:
		return encodeSession(c.Session)
	case broker.PutMessage, broker.PutRetained:
		return encodeMessage(c.Message, c.Retain)
	default:
		return nil, nil
	}
}

// decode reads a stored record as the change that it was.
func decode(r store.Record) (broker.Change, error) {
	parts := r.Key.Parts()
	c := broker.Change{Account: fleet.Account(parts[1]), Box: parts[2]}
	var err error
	switch parts[0] {
	case kindSession:
		c.Kind = broker.PutSession
		c.Session, err = decodeSession(r.Value)
	case kindMessage:
		c.Kind = broker.PutMessage
		if c.Seq, err = strconv.ParseUint(parts[3], 16, 64); err == nil {
			c.Message, c.Retain, err = decodeMessage(r.Value)
		}
	default:
		c.Kind = broker.PutRetained
		c.Message, c.Retain, err = decodeMessage(r.Value)
	}
	if err != nil {
		return c, fmt.Errorf("decode %s: %w", r.Key, err)
	}
	return c, nil
}

// session is the stored form of a session; times in milliseconds.
type session struct {
	Schema         int             `json:"v"`
	SessionID      string          `json:"sessionId"`
	Version        byte            `json:"version"`
	Expiry         uint32          `json:"expiry"`
	After          uint64          `json:"after,omitempty"`
	Principal      fleet.Principal `json:"principal"`
	ThingName      string          `json:"thingName,omitempty"`
	Indexed        bool            `json:"indexed,omitempty"`
	KeepAlive      uint16          `json:"keepAlive,omitempty"`
	ConnectedAt    int64           `json:"connectedAt"`
	DisconnectedAt int64           `json:"disconnectedAt,omitempty"`
	Reason         string          `json:"reason,omitempty"`
	Subscriptions  []subscription  `json:"subscriptions,omitempty"`
	// Will is the stored form of its message; WillDelay in seconds, WillDue in
	// milliseconds.
	Will       []byte `json:"will,omitempty"`
	WillRetain bool   `json:"willRetain,omitempty"`
	WillDelay  uint32 `json:"willDelay,omitempty"`
	WillDue    int64  `json:"willDue,omitempty"`
}

// subscription is the stored form of one.
type subscription struct {
	Filter            string `json:"filter"`
	QoS               byte   `json:"qos"`
	Identifier        uint32 `json:"id,omitempty"`
	NoLocal           bool   `json:"noLocal,omitempty"`
	RetainAsPublished bool   `json:"retainAsPublished,omitempty"`
}

// encodeSession writes a session's record.
func encodeSession(s *broker.SessionRecord) ([]byte, error) {
	stored := session{
		Schema: schema, SessionID: s.SessionID, Version: s.Version, Expiry: s.Expiry, After: s.After, Principal: s.Principal, ThingName: s.ThingName,
		Indexed: s.Indexed, KeepAlive: s.KeepAlive, ConnectedAt: millis(s.ConnectedAt), DisconnectedAt: millis(s.DisconnectedAt), Reason: string(s.Reason),
		Subscriptions: make([]subscription, len(s.Subscriptions)),
	}
	for i, sub := range s.Subscriptions {
		stored.Subscriptions[i] = subscription(sub)
	}
	if s.Will != nil {
		m := &s.Will.Message
		kept := &broker.Kept{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Properties: &m.Properties}
		var err error
		if stored.Will, err = encodeMessage(kept, false); err != nil {
			return nil, err
		}
		stored.WillRetain, stored.WillDelay, stored.WillDue = m.Retain, s.Will.Delay, millis(s.Will.Due)
	}
	return json.Marshal(stored)
}

// decodeSession reads a session's record.
func decodeSession(value []byte) (*broker.SessionRecord, error) {
	var stored session
	if err := json.Unmarshal(value, &stored); err != nil {
		return nil, err
	}
	if stored.Schema != schema {
		return nil, errSchema(stored.Schema)
	}
	s := &broker.SessionRecord{
		SessionID: stored.SessionID, Version: stored.Version, Expiry: stored.Expiry, After: stored.After, Principal: stored.Principal, ThingName: stored.ThingName,
		Indexed: stored.Indexed, KeepAlive: stored.KeepAlive, ConnectedAt: moment(stored.ConnectedAt), DisconnectedAt: moment(stored.DisconnectedAt),
		Reason: broker.DisconnectReason(stored.Reason), Subscriptions: make([]broker.SubscriptionRecord, len(stored.Subscriptions)),
	}
	for i, sub := range stored.Subscriptions {
		s.Subscriptions[i] = broker.SubscriptionRecord(sub)
	}
	if stored.Will != nil {
		kept, _, err := decodeMessage(stored.Will)
		if err != nil {
			return nil, err
		}
		m := broker.Message{Topic: kept.Topic, Payload: kept.Payload, QoS: kept.QoS, Retain: stored.WillRetain}
		if kept.Properties != nil {
			m.Properties = *kept.Properties
		}
		s.Will = &broker.WillRecord{Message: m, Delay: stored.WillDelay, Due: moment(stored.WillDue)}
	}
	return s, nil
}

// messageHeader is the part before the packet: schema and two times.
const messageHeader = 1 + 8 + 8

// encodeMessage writes a message as the PUBLISH that it was in MQTT 5, behind
// schema, time of arrival and end of its life.
func encodeMessage(k *broker.Kept, retain bool) ([]byte, error) {
	b := make([]byte, messageHeader, messageHeader+64+len(k.Topic)+len(k.Payload))
	b[0] = schema
	binary.BigEndian.PutUint64(b[1:], uint64(millis(k.StoredAt)))
	binary.BigEndian.PutUint64(b[9:], uint64(millis(k.ExpiresAt)))
	p := mqtt.Publish{QoS: k.QoS, Topic: []byte(k.Topic), Payload: k.Payload, PacketID: 1, Retain: retain}
	if k.Properties != nil {
		p.Properties = *k.Properties
	}
	return p.Append(b, mqtt.V5)
}

// errShort is a message that is cut off.
var errShort = errors.New("stored message is cut off")

// decodeMessage reads a stored message.
func decodeMessage(value []byte) (k *broker.Kept, retain bool, err error) {
	if len(value) < messageHeader+2 {
		return nil, false, errShort
	}
	if value[0] != schema {
		return nil, false, errSchema(int(value[0]))
	}
	packet := value[messageHeader:]
	framed, rest, err := mqtt.Frame(packet, len(packet))
	if err != nil {
		return nil, false, err
	}
	if framed == nil || len(rest) > 0 || mqtt.TypeOf(framed) != mqtt.TypePublish {
		return nil, false, errShort
	}
	var p mqtt.Publish
	if err := p.Decode(framed, mqtt.V5); err != nil {
		return nil, false, err
	}
	k = &broker.Kept{
		Topic: string(p.Topic), Payload: append([]byte(nil), p.Payload...), QoS: p.QoS,
		StoredAt: moment(int64(binary.BigEndian.Uint64(value[1:]))), ExpiresAt: moment(int64(binary.BigEndian.Uint64(value[9:]))),
	}
	if !p.Properties.Empty() {
		k.Properties = &p.Properties
	}
	return k, p.Retain, nil
}

// errSchema is a stored form that this program does not know.
func errSchema(v int) error { return fmt.Errorf("schema version %d is not known to this program", v) }

// millis is a time in milliseconds, 0 for none.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// moment is the time of millis.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
