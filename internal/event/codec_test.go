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
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.Set(reflect.ValueOf(json.RawMessage(`{"a":1}`)))
			return
		}
		v.Set(reflect.ValueOf([]string{"x"}))
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
