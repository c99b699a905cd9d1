package event

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fleet"
)

// fill sets every field of a struct to a non-zero value, so that a field that
// does not survive the stored form shows up.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_750_000_000, 5).UTC()))
			return
		}
		for _, field := range v.Fields() {
			fill(field)
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.Set(reflect.ValueOf(json.RawMessage(`{"a":1}`)))
			return
		}
		one := reflect.MakeSlice(v.Type(), 1, 1)
		fill(one.Index(0))
		v.Set(one)
	case reflect.Float64:
		v.SetFloat(7.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	default:
		panic("fill: kind " + v.Kind().String())
	}
}

func TestEveryEventSurvivesTheStoredForm(t *testing.T) {
	t.Parallel()
	for _, zero := range kinds() {
		t.Run(TypeName(zero), func(t *testing.T) {
			t.Parallel()
			value := reflect.New(reflect.TypeOf(zero)).Elem()
			fill(value)
			want := Envelope{
				Account: "000000000000",
				At:      time.Unix(1_750_000_000, 123456789).UTC(),
				Actor:   fleet.Actor{Principal: fleet.Principal{Kind: "user", ID: "root", ARN: "a"}, SourceAddress: "127.0.0.1", RequestID: "r", ClientID: "c", Trace: "t"},
				Event:   value.Interface().(Event),
			}
			data, err := Encode(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("decode(encode(e)) differs (-want +got):\n%s", diff)
			}
		})
	}
}

// standard is the stored form as encoding/json writes it from the tags, which
// earlier programs read.
func standard(tb testing.TB, env Envelope) []byte {
	tb.Helper()
	body, err := json.Marshal(env.Event)
	if err != nil {
		tb.Fatal(err)
	}
	data, err := json.Marshal(stored{
		Schema: schemaVersion, Type: TypeName(env.Event), Account: env.Account, At: env.At.UnixNano(), Actor: env.Actor, Event: body,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestStoredFormIsThatOfTheTags(t *testing.T) {
	t.Parallel()
	for _, zero := range kinds() {
		for _, filled := range []bool{false, true} {
			value := reflect.New(reflect.TypeOf(zero)).Elem()
			env := Envelope{At: time.Unix(1_750_000_000, 0)}
			if filled {
				fill(value)
				fill(reflect.ValueOf(&env.Actor).Elem())
				env.Account = "000000000000"
			} else if value.Type() == reflect.TypeFor[ShadowUpdated]() {
				value.Set(reflect.ValueOf(ShadowUpdated{Patch: json.RawMessage("{}")}))
			}
			env.Event = value.Interface().(Event)
			got, err := Encode(env)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(standard(t, env)), string(got)); diff != "" {
				t.Errorf("%s (-encoding/json +ours):\n%s", TypeName(zero), diff)
			}
		}
	}
}

// FuzzShadowUpdated holds the event that is written by hand against the same
// written from its tags.
func FuzzShadowUpdated(f *testing.F) {
	f.Add("pump-1", "", "10.0.0.1", `{"reported":{"a":1}}`, "")
	f.Add("a\"b\\", "config", "fe80::1%eth0", `{"desired":null}`, `{"led":"<on>"}`)
	f.Add("\x00\xff\u2028", "é", "", `{}`, `{`)
	f.Fuzz(func(t *testing.T, thing, shadow, address, patch, delta string) {
		env := Envelope{
			At:    time.Unix(1_750_000_000, 0).UTC(),
			Actor: fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalAnonymous}, SourceAddress: address, ClientID: thing},
			Event: ShadowUpdated{Thing: thing, Shadow: shadow, Version: 3, Patch: json.RawMessage(patch), Delta: json.RawMessage(delta), Timestamp: 1},
		}
		data, err := Encode(env)
		if valid := json.Valid([]byte(patch)) && (delta == "" || json.Valid([]byte(delta))); valid != (err == nil) {
			t.Fatalf("patch %q, delta %q: error %v", patch, delta, err)
		}
		if err != nil {
			return
		}
		var ours, theirs any
		if err := json.Unmarshal(data, &ours); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if err := json.Unmarshal(standard(t, env), &theirs); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Errorf("(-encoding/json +ours):\n%s", diff)
		}
	})
}

// BenchmarkEncode is the event that a busy server writes most.
func BenchmarkEncode(b *testing.B) {
	env := Envelope{
		Account: "000000000000", At: time.Unix(1_750_000_000, 123456789),
		Actor: fleet.Actor{Principal: fleet.Principal{Kind: "certificate", ID: "5a3f", ARN: "arn:aws:iot:us-east-1:000000000000:cert/5a3f"}, SourceAddress: "127.0.0.1", ClientID: "pump-1"},
		Event: ShadowUpdated{Thing: "pump-1", Version: 7, Patch: json.RawMessage(`{"reported":{"temp":21,"battery":73,"firmware":"1.2.0","rssi":-51,"uptime":81234}}`), Timestamp: 1_750_000_000},
	}
	for name, encode := range map[string]func() ([]byte, error){
		"own":           func() ([]byte, error) { return Encode(env) },
		"encoding/json": func() ([]byte, error) { return standard(b, env), nil },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := encode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"newer schema": `{"v":2,"type":"ThingCreated","event":{}}`,
		"unknown type": `{"v":1,"type":"ThingPolished","event":{}}`,
		"no JSON":      `{`,
	} {
		if _, err := Decode([]byte(data)); err == nil {
			t.Errorf("%s: decoded without error", name)
		}
	}
}

// Events that have gained members are still read as earlier programs wrote them.
func TestDecodeReadsEarlierForms(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]Event{
		`{"v":1,"type":"ThingTypeDeleted","event":{"typeName":"Pump","typeId":"t"}}`:          ThingTypeDeleted{ThingType: ThingType{TypeName: "Pump", TypeID: "t"}},
		`{"v":1,"type":"ThingGroupDeleted","event":{"group":"G","groupId":"g","parent":"P"}}`: ThingGroupDeleted{Group: "G", GroupID: "g", Parent: "P"},
		`{"v":1,"type":"MembershipChanged","event":{"group":"G","thing":"T","added":true}}`:   MembershipChanged{Group: "G", Thing: "T", Added: true},
		`{"v":1,"type":"ThingDeleted","event":{"thing":"T","thingId":"t","version":2,"groups":["G"]}}`: ThingDeleted{
			Thing: "T", ThingID: "t", Version: 2, Groups: []string{"G"},
		},
	} {
		got, err := Decode([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Event); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}
