package awsapi

import (
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strings"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
)

// protocol is how a client expects errors to be written.
type protocol int

// Protocols.
const (
	restJSON protocol = iota
	targetJSON
	queryXML
	restXML
	rpcCBOR
)

// protocolOf tells the protocol from the service and, where a service has
// several, from the request.
func protocolOf(service catalog.Service, r *http.Request) protocol {
	switch {
	case r.Header.Get("Smithy-Protocol") == "rpc-v2-cbor":
		return rpcCBOR
	case r.Header.Get("X-Amz-Target") != "":
		return targetJSON
	}
	switch service {
	case catalog.S3:
		return restXML
	case catalog.Monitoring, catalog.SNS, catalog.STS:
		return queryXML
	case catalog.Firehose, catalog.Logs:
		return targetJSON
	default:
		return restJSON
	}
}

// operationName reads which operation of a service without wire structs is
// meant; empty when the request does not say.
func operationName(p protocol, r *http.Request, body []byte) string {
	name := ""
	switch p {
	case targetJSON:
		_, name, _ = strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	case rpcCBOR:
		name = r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	case queryXML:
		name = formValue(r.URL.RawQuery, "Action")
		if name == "" {
			name = formValue(string(body), "Action")
		}
	case restJSON, restXML:
	}
	const longest = 128
	if len(name) > longest {
		return ""
	}
	return name
}

// formValue finds one plain value of a form without building the rest.
func formValue(form, name string) string {
	for part := range strings.SplitSeq(form, "&") {
		if value, ok := strings.CutPrefix(part, name+"="); ok {
			return value
		}
	}
	return ""
}

// writeProblem renders an error. Header and body both name the exception: old
// clients read one, new ones the other.
func writeProblem(w http.ResponseWriter, p protocol, service catalog.Service, e *problem, requestID string) {
	h := w.Header()
	h.Set("X-Amzn-Errortype", e.name)
	contentType, body := "application/json", []byte(nil)
	switch p {
	case targetJSON:
		contentType = "application/x-amz-json-1.1"
		body = jsonText(map[string]string{"__type": e.name, "message": e.message})
	case rpcCBOR:
		contentType = "application/cbor"
		h.Set("Smithy-Protocol", "rpc-v2-cbor")
		body = cborText([2]string{"__type", e.name}, [2]string{"message", e.message})
	case queryXML, restXML:
		contentType = "text/xml"
		body = xmlText(p, e, requestID)
	case restJSON:
		body = jsonText(restBody(service, e, requestID))
	}
	h.Set("Content-Type", contentType)
	w.WriteHeader(e.status)
	_, _ = w.Write(body) // The client is gone if this fails; there is nobody to tell.
}

// restBody returns the members of a REST-JSON error. The data plane adds the
// request id as traceId, and conflicts name what is in the way.
func restBody(service catalog.Service, e *problem, requestID string) map[string]string {
	members := map[string]string{"message": e.message}
	if service == catalog.IoTData {
		members["traceId"] = requestID
	}
	if e.id != "" {
		members["resourceId"] = e.id
	}
	if e.arn != "" {
		members["resourceArn"] = e.arn
	}
	return members
}

// jsonText encodes strings, which cannot fail.
func jsonText(members map[string]string) []byte {
	text, err := json.Marshal(members)
	if err != nil {
		return []byte("{}")
	}
	return text
}

// xmlText renders the error of a query service or of s3.
func xmlText(p protocol, e *problem, requestID string) []byte {
	type detail struct {
		Type    string `xml:"Type,omitempty"`
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
		ID      string `xml:"RequestId,omitempty"`
	}
	type response struct {
		XMLName xml.Name `xml:"ErrorResponse"`
		Error   detail   `xml:"Error"`
		ID      string   `xml:"RequestId"`
	}
	type bare struct {
		XMLName xml.Name `xml:"Error"`
		detail
	}
	var text []byte
	var err error
	code := queryCode(e.name)
	if p == restXML {
		text, err = xml.Marshal(bare{detail: detail{Code: code, Message: e.message, ID: requestID}})
	} else {
		kind := "Sender"
		if e.status >= http.StatusInternalServerError {
			kind = "Receiver"
		}
		text, err = xml.Marshal(response{Error: detail{Type: kind, Code: code, Message: e.message}, ID: requestID})
	}
	if err != nil {
		return nil
	}
	return append([]byte(xml.Header), text...)
}

// queryCode names an exception as the query services and s3 do.
func queryCode(name string) string {
	switch name {
	case "UnrecognizedClientException":
		return "InvalidClientTokenId"
	case "InvalidSignatureException":
		return "SignatureDoesNotMatch"
	}
	return strings.TrimSuffix(name, "Exception")
}

// cborText encodes a map of at most 23 pairs of strings.
func cborText(pairs ...[2]string) []byte {
	const mapType, textType, twoBytes = 0xa0, 0x60, 25
	out := []byte{mapType | byte(len(pairs))}
	for _, pair := range pairs {
		for _, text := range pair {
			if len(text) > 0xffff {
				text = text[:0xffff]
			}
			out = append(out, textType|twoBytes)
			out = binary.BigEndian.AppendUint16(out, uint16(len(text)))
			out = append(out, text...)
		}
	}
	return out
}
