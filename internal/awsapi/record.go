package awsapi

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// begin opens the record of a call whose caller is proven.
func (s *Server) begin(x *exchange) {
	actor := fleet.Actor{
		Principal: x.caller.Principal, SourceAddress: x.caller.SourceAddress, AccessKeyID: claimedKey(x.r), RequestID: x.id,
		Trace: traceParent(x.r.Header.Get("Traceparent")),
	}
	x.call = s.options.Trail.Begin(x.caller.Account, actor, x.fact())
	x.call.Ask(textMembers(x.labels))
	if x.r.TLS != nil {
		x.call.Secured(x.r.TLS.Version, x.r.TLS.CipherSuite, x.r.TLS.ServerName)
	}
}

// conclude ends the record of a call that is refused or fails. One that was
// refused before its caller was proven, or that no operation answers, has its
// record begin here.
func (s *Server) conclude(x *exchange) {
	if x.call == nil {
		if x.op == nil && x.caller.Principal.Kind == "" && claimedKey(x.r) == "" {
			// Nobody asked for nothing: a scanner that found a port.
			return
		}
		s.begin(x)
	}
	x.call.Fail(x.problem.name, x.problem.message)
	x.call.Finish()
}

// fact is what is known of a call from its request.
func (x *exchange) fact() event.APICalled {
	var service catalog.Service
	if len(x.services) > 0 {
		service = x.services[0]
	}
	fact := event.APICalled{
		Name: operationName(protocolOf(service, x.r), x.r, x.body), UserAgent: x.r.UserAgent(),
		DataEvent: service == catalog.IoTData || service == catalog.IoTJobsData,
	}
	if x.op != nil {
		service = x.op.Service
		fact.Name, fact.DataEvent = x.op.Name, service == catalog.IoTData || service == catalog.IoTJobsData
	}
	if fact.Name == "" {
		fact.Name = "UnknownOperation"
	}
	fact.Source, fact.ReadOnly = eventSource(service), readOnly(fact.Name)
	fact.SessionBegan = x.caller.SessionBegan
	return fact
}

// eventSource is how the trail names a service.
func eventSource(service catalog.Service) string {
	switch service {
	case "":
		return "unknown"
	case catalog.IoTData:
		return "iotdata.amazonaws.com"
	default:
		return string(service) + ".amazonaws.com"
	}
}

// readOnly tells by an operation's name whether it changes nothing.
func readOnly(name string) bool {
	for _, verb := range []string{"Get", "List", "Describe", "Search", "Test", "Validate"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}

// claimedKey is the access key that a request says to be signed with, "" for
// none.
func claimedKey(r *http.Request) string {
	signature, err := sigv4.Parse(r)
	if err != nil || signature == nil || len(signature.AccessKeyID) > maxKeyID {
		return ""
	}
	return signature.AccessKeyID
}

// maxKeyID bounds what an unproven caller can have recorded as a key.
const maxKeyID = 128

// ask notes what a call asks for.
func (c *Call) ask(in any) {
	if c.trail == nil {
		return
	}
	if members, ok := plain(reflect.ValueOf(in)).(map[string]any); ok {
		c.trail.Ask(members)
	}
}

// textMembers are values from a path.
func textMembers(labels map[string]string) map[string]any {
	if len(labels) == 0 {
		return nil
	}
	out := make(map[string]any, len(labels))
	for name, value := range labels {
		out[name] = value
	}
	return out
}

// plain turns a wire struct into what JSON is made of, under the names of the
// wire. Members that the struct does not have were never decoded.
func plain(v reflect.Value) any {
	v = reflect.Indirect(v)
	if !v.IsValid() {
		return nil
	}
	if at, ok := reflect.TypeAssert[time.Time](v); ok {
		return at.UTC().Format(time.RFC3339Nano)
	}
	switch v.Kind() {
	case reflect.Struct:
		return plainStruct(v)
	case reflect.Map:
		out := make(map[string]any, v.Len())
		for _, key := range v.MapKeys() {
			out[key.String()] = plain(v.MapIndex(key))
		}
		return out
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%d bytes", v.Len())
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i))
		}
		return out
	default:
		return v.Interface()
	}
}

// plainStruct leaves out what is absent.
func plainStruct(v reflect.Value) map[string]any {
	out := map[string]any{}
	for i := range v.NumField() {
		member := v.Field(i)
		switch member.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			if member.IsNil() {
				continue
			}
		default:
		}
		out[v.Type().Field(i).Tag.Get("wire")] = plain(member)
	}
	return out
}
