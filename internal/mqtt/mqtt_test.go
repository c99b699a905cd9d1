package mqtt_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-iot/muster/internal/mqtt"
)

const limit = 149504

// wire turns "10 0c 'MQTT'" into bytes.
func wire(tb testing.TB, text string) []byte {
	tb.Helper()
	var out []byte
	for token := range strings.FieldsSeq(text) {
		if quoted, ok := strings.CutPrefix(token, "'"); ok {
			out = append(out, strings.TrimSuffix(quoted, "'")...)
			continue
		}
		b, err := hex.DecodeString(token)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

type vector struct {
	version mqtt.Version
	wire    string
	packet  mqtt.Packet
}

// vectors pair packets with their bytes as MQTT 3.1.1 and 5, chapter 3, lay
// them out.
func vectors() map[string]vector {
	user := []mqtt.UserProperty{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}}
	return map[string]vector{
		"connect 3.1.1": {
			mqtt.V311, "10 0d 0004 'MQTT' 04 02 003c 0001 'p'",
			&mqtt.Connect{Version: mqtt.V311, CleanStart: true, KeepAlive: 60, ClientID: "p"},
		},
		"connect 3.1": {
			mqtt.V31, "10 0f 0006 'MQIsdp' 03 00 000a 0001 'p'",
			&mqtt.Connect{Version: mqtt.V31, KeepAlive: 10, ClientID: "p"},
		},
		"connect 3.1.1 with all": {
			mqtt.V311, "10 1c 0004 'MQTT' 04 ee 003c 0001 'p' 0001 't' 0002 'hi' 0001 'u' 0003 010203",
			&mqtt.Connect{
				Version: mqtt.V311, CleanStart: true, KeepAlive: 60, ClientID: "p", HasUsername: true, Username: "u",
				HasPassword: true, Password: []byte{1, 2, 3}, Will: &mqtt.Will{Topic: "t", Payload: []byte("hi"), QoS: 1, Retain: true},
			},
		},
		"connect 5 with will delay": {
			mqtt.V5, "10 20 0004 'MQTT' 05 06 003c 05 11 00000e10 0001 'p' 05 18 00000005 0001 't' 0002 'hi'",
			&mqtt.Connect{
				Version: mqtt.V5, CleanStart: true, KeepAlive: 60, ClientID: "p",
				Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: 3600},
				Will: &mqtt.Will{
					Topic: "t", Payload: []byte("hi"),
					Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropWillDelay), WillDelay: 5},
				},
			},
		},
		"connack 3.1.1": {mqtt.V311, "20 02 01 00", &mqtt.Connack{SessionPresent: true}},
		"connack 5": {mqtt.V5, "20 0b 00 00 08 21 0064 22 0008 24 01", &mqtt.Connack{Properties: mqtt.Properties{
			Set:            mqtt.Of(mqtt.PropReceiveMaximum, mqtt.PropMaximumQoS, mqtt.PropTopicAliasMaximum),
			ReceiveMaximum: 100, MaximumQoS: 1, TopicAliasMaximum: 8,
		}}},
		"publish qos 0": {mqtt.V311, "30 05 0001 't' 'hi'", &mqtt.Publish{Topic: []byte("t"), Payload: []byte("hi")}},
		"publish qos 1 dup retain": {
			mqtt.V311, "3b 07 0001 't' 0007 'hi'",
			&mqtt.Publish{Dup: true, QoS: 1, Retain: true, Topic: []byte("t"), PacketID: 7, Payload: []byte("hi")},
		},
		"publish 5 with user properties": {
			mqtt.V5, "30 15 0001 't' 11 23 0001 26 0001 'a' 0001 '1' 26 0001 'a' 0001 '2'",
			&mqtt.Publish{Topic: []byte("t"), Payload: []byte{}, Properties: mqtt.Properties{
				Set: mqtt.Of(mqtt.PropTopicAlias), TopicAlias: 1, UserProperties: user,
			}},
		},
		"puback 3.1.1":          {mqtt.V311, "40 02 0007", &mqtt.Ack{Kind: mqtt.TypePuback, PacketID: 7}},
		"puback 5 success":      {mqtt.V5, "40 02 0007", &mqtt.Ack{Kind: mqtt.TypePuback, PacketID: 7}},
		"puback 5 unauthorized": {mqtt.V5, "40 03 0007 87", &mqtt.Ack{Kind: mqtt.TypePuback, PacketID: 7, Reason: mqtt.NotAuthorized}},
		"pubrel 5 with reason string": {mqtt.V5, "62 08 0007 92 04 1f 0001 'x'", &mqtt.Ack{
			Kind: mqtt.TypePubrel, PacketID: 7,
			Reason: mqtt.PacketIDNotFound, Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropReasonString), ReasonString: "x"},
		}},
		"subscribe 3.1.1": {
			mqtt.V311, "82 0a 0007 0001 'a' 00 0001 'b' 01",
			&mqtt.Subscribe{PacketID: 7, Subscriptions: []mqtt.Subscription{{Filter: "a"}, {Filter: "b", QoS: 1}}},
		},
		"subscribe 5": {
			mqtt.V5, "82 0a 0007 03 0b 8001 0001 'a' 2d",
			&mqtt.Subscribe{
				PacketID: 7, Properties: mqtt.Properties{SubscriptionIDs: []uint32{128}},
				Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}},
			},
		},
		"suback 3.1.1":      {mqtt.V311, "90 04 0007 01 80", &mqtt.Suback{PacketID: 7, Reasons: []mqtt.ReasonCode{1, 0x80}}},
		"suback 5":          {mqtt.V5, "90 05 0007 00 01 97", &mqtt.Suback{PacketID: 7, Reasons: []mqtt.ReasonCode{1, mqtt.QuotaExceeded}}},
		"unsubscribe 3.1.1": {mqtt.V311, "a2 05 0007 0001 'a'", &mqtt.Unsubscribe{PacketID: 7, Filters: []string{"a"}}},
		"unsuback 3.1.1":    {mqtt.V311, "b0 02 0007", &mqtt.Unsuback{PacketID: 7}},
		"unsuback 5":        {mqtt.V5, "b0 04 0007 00 11", &mqtt.Unsuback{PacketID: 7, Reasons: []mqtt.ReasonCode{mqtt.NoSubscriptionExisted}}},
		"pingreq":           {mqtt.V311, "c0 00", &mqtt.Pingreq{}},
		"pingresp":          {mqtt.V311, "d0 00", &mqtt.Pingresp{}},
		"disconnect 3.1.1":  {mqtt.V311, "e0 00", &mqtt.Disconnect{}},
		"disconnect 5":      {mqtt.V5, "e0 01 8e", &mqtt.Disconnect{Reason: mqtt.SessionTakenOver}},
		"disconnect 5 with expiry": {mqtt.V5, "e0 07 04 05 11 00000000", &mqtt.Disconnect{
			Reason:     mqtt.DisconnectWithWill,
			Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry)},
		}},
		"auth 5": {mqtt.V5, "f0 0c 18 0a 15 0001 'm' 16 0003 010203", &mqtt.Auth{
			Reason:     mqtt.ContinueAuthentication,
			Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropAuthMethod, mqtt.PropAuthData), AuthMethod: "m", AuthData: []byte{1, 2, 3}},
		}},
	}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for name, v := range vectors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := wire(t, v.wire)
			got, err := v.packet.Append([]byte("before"), v.version)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append([]byte("before"), want...), got); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
			packet, rest, err := mqtt.Frame(append(want, 0xC0), limit)
			if err != nil || len(rest) != 1 {
				t.Fatalf("Frame: %v, rest %x", err, rest)
			}
			decoded, err := mqtt.Decode(packet, v.version)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v.packet, decoded); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// Every proper prefix of a packet is incomplete, and every packet whose body
// is cut short is refused rather than misread.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for name, v := range vectors() {
		whole := wire(t, v.wire)
		for n := range whole {
			packet, _, err := mqtt.Frame(whole[:n], limit)
			if packet != nil || err != nil {
				t.Errorf("%s: Frame of %d bytes = %x, %v", name, n, packet, err)
			}
		}
		for n := range len(whole) - 2 {
			cut := append([]byte{whole[0], byte(n)}, whole[2:2+n]...)
			p, err := mqtt.Decode(cut, v.version)
			if err != nil {
				continue
			}
			again, err := p.Append(nil, v.version)
			if err != nil {
				t.Errorf("%s cut to %d decodes to what cannot be encoded: %v", name, n, err)
			}
			if len(again) > len(cut)+1 {
				t.Errorf("%s cut to %d decodes to %x", name, n, again)
			}
		}
	}
}

func TestFrameLimits(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		wire string
		want mqtt.ReasonCode
	}{
		"type 0 at once":                {"0a", mqtt.ProtocolError},
		"publish with qos 3":            {"36", mqtt.MalformedPacket},
		"publish qos 0 with dup":        {"38", mqtt.MalformedPacket},
		"subscribe without flag":        {"80", mqtt.MalformedPacket},
		"puback with flag":              {"41", mqtt.MalformedPacket},
		"five length bytes":             {"30 80808080", mqtt.MalformedPacket},
		"over the limit, body not here": {"30 ffff7f", mqtt.PacketTooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := mqtt.Frame(wire(t, tt.wire), limit)
			var e *mqtt.Error
			if !errors.As(err, &e) || e.Reason != tt.want {
				t.Errorf("Frame = %v, want 0x%02X", err, byte(tt.want))
			}
		})
	}
	exact := append(wire(t, "30 08 0001 't'"), "12345"...)
	if packet, _, err := mqtt.Frame(exact, len(exact)); err != nil || len(packet) != len(exact) {
		t.Errorf("a packet of exactly the limit: %x, %v", packet, err)
	}
	if _, _, err := mqtt.Frame(exact, len(exact)-1); err == nil {
		t.Error("a packet one byte over the limit is accepted")
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		version mqtt.Version
		wire    string
		want    mqtt.ReasonCode
	}{
		"connect, other protocol":         {4, "10 0c 0003 'MQT' 04 02 003c 0001 'p'", mqtt.MalformedPacket},
		"connect, level 6":                {4, "10 0d 0004 'MQTT' 06 02 003c 0001 'p'", mqtt.UnsupportedProtocolVersion},
		"connect, old name new level":     {4, "10 0f 0006 'MQIsdp' 04 02 003c 0001 'p'", mqtt.UnsupportedProtocolVersion},
		"connect, reserved flag":          {4, "10 0d 0004 'MQTT' 04 03 003c 0001 'p'", mqtt.MalformedPacket},
		"connect, will flags, no will":    {4, "10 0d 0004 'MQTT' 04 22 003c 0001 'p'", mqtt.MalformedPacket},
		"connect, password, no user":      {4, "10 0f 0004 'MQTT' 04 42 003c 0001 'p' 0000", mqtt.MalformedPacket},
		"connect, bytes behind":           {4, "10 0e 0004 'MQTT' 04 02 003c 0001 'p' 00", mqtt.MalformedPacket},
		"connect, will topic wildcard":    {5, "10 14 0004 'MQTT' 05 06 003c 00 0001 'p' 00 0001 '#' 0000", mqtt.TopicNameInvalid},
		"connect, expiry twice":           {5, "10 18 0004 'MQTT' 05 02 003c 0a 11 00000001 11 00000001 0001 'p'", mqtt.ProtocolError},
		"connect, receive maximum 0":      {5, "10 11 0004 'MQTT' 05 02 003c 03 21 0000 0001 'p'", mqtt.ProtocolError},
		"connect, property of CONNACK":    {5, "10 10 0004 'MQTT' 05 02 003c 02 24 01 0001 'p'", mqtt.ProtocolError},
		"connect, client id with NUL":     {5, "10 0e 0004 'MQTT' 05 02 003c 00 0001 00", mqtt.ClientIDNotValid},
		"connect, auth data, no method":   {5, "10 11 0004 'MQTT' 05 02 003c 03 16 0000 0001 'p'", mqtt.ProtocolError},
		"publish, empty topic":            {4, "30 02 0000", mqtt.ProtocolError},
		"publish, empty topic, no alias":  {5, "30 03 0000 00", mqtt.ProtocolError},
		"publish, alias 0":                {5, "30 06 0000 03 23 0000", mqtt.TopicAliasInvalid},
		"publish, wildcard":               {4, "30 03 0001 '#'", mqtt.MalformedPacket},
		"publish, packet id 0":            {4, "32 05 0001 't' 0000", mqtt.MalformedPacket},
		"publish, response to a wildcard": {5, "30 08 0001 't' 04 08 0001 '#'", mqtt.ProtocolError},
		"publish, session expiry":         {5, "30 09 0001 't' 05 11 00000001", mqtt.MalformedPacket},
		"publish, unknown property":       {5, "30 06 0001 't' 02 7f 00", mqtt.MalformedPacket},
		"publish, properties too long":    {5, "30 05 0001 't' 7f 01", mqtt.MalformedPacket},
		"publish, padded property id":     {5, "30 07 0001 't' 03 8100 00", mqtt.MalformedPacket},
		"publish, payload format 2":       {5, "30 06 0001 't' 02 01 02", mqtt.ProtocolError},
		"publish, NUL in topic":           {4, "30 03 0001 00", mqtt.MalformedPacket},
		"publish, C1 control":             {4, "30 04 0002 c29f", mqtt.MalformedPacket},
		"publish, non-character":          {4, "30 05 0003 efbfbf", mqtt.MalformedPacket},
		"publish, surrogate":              {4, "30 05 0003 eda080", mqtt.MalformedPacket},
		"publish, latin-1":                {4, "30 03 0001 ff", mqtt.MalformedPacket},
		"puback, foreign reason":          {5, "40 03 0001 8e", mqtt.ProtocolError},
		"subscribe, no filter":            {4, "82 02 0001", mqtt.MalformedPacket},
		"subscribe, no options byte":      {5, "82 06 0001 00 0001 'a'", mqtt.MalformedPacket},
		"subscribe, options of 5 in 4":    {4, "82 06 0001 0001 'a' 04", mqtt.MalformedPacket},
		"subscribe, retain handling 3":    {5, "82 07 0001 00 0001 'a' 30", mqtt.MalformedPacket},
		"subscribe, identifier 0":         {5, "82 09 0001 02 0b 00 0001 'a' 00", mqtt.ProtocolError},
		"subscribe, identifier twice":     {5, "82 0b 0001 04 0b 01 0b 01 0001 'a' 00", mqtt.ProtocolError},
		"unsubscribe, no filter":          {4, "a2 02 0001", mqtt.MalformedPacket},
		"unsubscribe, empty filter":       {4, "a2 04 0001 0000", mqtt.MalformedPacket},
		"suback, no reason":               {4, "90 02 0001", mqtt.MalformedPacket},
		"pingreq, body":                   {4, "c0 01 00", mqtt.MalformedPacket},
		"disconnect, body in 4":           {4, "e0 01 00", mqtt.MalformedPacket},
		"disconnect, foreign reason":      {5, "e0 01 85", mqtt.ProtocolError},
		"auth in 4":                       {4, "f0 00", mqtt.ProtocolError},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			packet, _, err := mqtt.Frame(wire(t, tt.wire), limit)
			if err != nil || packet == nil {
				t.Fatalf("Frame: %x, %v", packet, err)
			}
			_, err = mqtt.Decode(packet, tt.version)
			var e *mqtt.Error
			if !errors.As(err, &e) || e.Reason != tt.want {
				t.Errorf("Decode = %v, want 0x%02X", err, byte(tt.want))
			}
		})
	}
}

// MQTT 5, 2.2.2.2: each property may stand in the packets of its table row
// only. The table here is written down a second time on purpose.
func TestPropertyPlaces(t *testing.T) {
	t.Parallel()
	rows := map[string]string{
		"01 01": "publish", "02 00000001": "publish", "03 0001 'x'": "publish", "08 0001 'x'": "publish", "09 0001 00": "publish",
		"0b 01": "publish subscribe", "11 00000001": "connect connack disconnect", "12 0001 'x'": "connack", "13 0001": "connack",
		"15 0001 'x'": "connect connack auth", "17 01": "connect", "19 01": "connect", "1a 0001 'x'": "connack",
		"1c 0001 'x'": "connack disconnect", "1f 0001 'x'": "connack puback suback unsuback disconnect auth",
		"21 0001": "connect connack", "22 0001": "connect connack", "23 0001": "publish", "24 01": "connack", "25 01": "connack",
		"26 0001 'a' 0001 'b'": "connect connack publish puback subscribe suback unsubscribe unsuback disconnect auth",
		"27 00000001":          "connect connack", "28 01": "connack", "29 01": "connack", "2a 01": "connack", "18 00000001": "",
	}
	shells := map[string][3]string{ // first byte, before the block, behind the block
		"connect": {"10", "0004 'MQTT' 05 02 003c", "0001 'p'"}, "connack": {"20", "00 00", ""}, "publish": {"30", "0001 't'", ""},
		"puback": {"40", "0001 00", ""}, "subscribe": {"82", "0001", "0001 'a' 00"}, "suback": {"90", "0001", "00"},
		"unsubscribe": {"a2", "0001", "0001 'a'"}, "unsuback": {"b0", "0001", "00"}, "disconnect": {"e0", "00", ""}, "auth": {"f0", "18", ""},
	}
	for property, allowed := range rows {
		for name, shell := range shells {
			block := wire(t, property)
			inner := append(wire(t, shell[1]), byte(len(block)))
			inner = append(append(inner, block...), wire(t, shell[2])...)
			packet := append(wire(t, shell[0]), byte(len(inner)))
			_, err := mqtt.Decode(append(packet, inner...), mqtt.V5)
			if want := strings.Contains(" "+allowed+" ", " "+name+" "); want != (err == nil) {
				t.Errorf("property %s in %s: %v", property, name, err)
			}
		}
	}
}

func TestSetPacketID(t *testing.T) {
	t.Parallel()
	p := mqtt.Publish{QoS: 1, Topic: []byte("a/b"), PacketID: 1, Payload: bytes.Repeat([]byte("x"), 300)}
	encoded, err := p.Append(nil, mqtt.V5)
	if err != nil {
		t.Fatal(err)
	}
	mqtt.SetPacketID(encoded, 0xABCD)
	var got mqtt.Publish
	if err := got.Decode(encoded, mqtt.V5); err != nil || got.PacketID != 0xABCD {
		t.Errorf("packet id %x, %v", got.PacketID, err)
	}
}

func TestEncodingHasRoom(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 65536)
	for _, p := range []mqtt.Packet{
		&mqtt.Publish{Topic: []byte(long)},
		&mqtt.Connect{Version: mqtt.V5, ClientID: long},
		&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: long}}},
		&mqtt.Disconnect{Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropReasonString), ReasonString: long}},
	} {
		got, err := p.Append([]byte("kept"), mqtt.V5)
		if !errors.Is(err, mqtt.ErrStringTooLong) || string(got) != "kept" {
			t.Errorf("%s: %d bytes, %v", p.Type(), len(got), err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range vectors() {
		f.Add(wire(f, v.wire), byte(v.version))
	}
	f.Add(wire(f, "82 06 0001 00 0001 'a'"), byte(5))
	f.Fuzz(func(t *testing.T, buf []byte, version byte) {
		v := mqtt.V311
		if version == 5 {
			v = mqtt.V5
		}
		for {
			packet, rest, err := mqtt.Frame(buf, limit)
			if err != nil || packet == nil {
				return
			}
			buf = rest
			p, err := mqtt.Decode(packet, v)
			if err != nil {
				continue
			}
			encoded, err := p.Append(nil, v)
			if err != nil {
				t.Fatalf("%x decodes to what cannot be encoded: %v", packet, err)
			}
			again, err := mqtt.Decode(encoded, v)
			if err != nil {
				t.Fatalf("%x encodes to %x: %v", packet, encoded, err)
			}
			if diff := cmp.Diff(p, again, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%x is not stable:\n%s", packet, diff)
			}
		}
	})
}

func BenchmarkPublish(b *testing.B) {
	p := mqtt.Publish{QoS: 1, Topic: []byte("dt/site/a/dev0001/t"), PacketID: 7, Payload: make([]byte, 100)}
	for name, v := range map[string]mqtt.Version{"v4": mqtt.V311, "v5": mqtt.V5} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			var q mqtt.Publish
			for b.Loop() {
				buf, _ = p.Append(buf[:0], v)
				packet, _, _ := mqtt.Frame(buf, limit)
				if err := q.Decode(packet, v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
