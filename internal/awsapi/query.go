package awsapi

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/fault"
)

// maxForm bounds the parameters of a call of the query protocol, in bytes.
const maxForm = 64 << 10

// QueryCall is what an adapter of the query protocol learns about a request.
type QueryCall struct {
	Caller    Caller
	RequestID string
	// Form are the parameters, without those that say which operation is meant and
	// who signed.
	Form url.Values
}

// QueryHandler answers an operation of the query protocol with what stands in its
// Result element. It authorizes the caller itself: sts has operations that need
// no permission. One that commits something tells the trail before that the caller
// may.
type QueryHandler func(ctx context.Context, call *QueryCall) (result any, err error)

// queryOperation is one operation of the query protocol.
type queryOperation struct {
	service catalog.Service
	name    string
	// version and space are the version and XML name space of the service.
	version, space string
	run            QueryHandler
}

// HandleQuery registers an operation of a service whose calls are forms and whose
// answers are XML. It panics on a wrong registration, which is a mistake in the
// program.
func (s *Server) HandleQuery(service catalog.Service, version, name string, run QueryHandler) {
	if !s.options.Catalog.Knows(service, name) || s.query(service, name) != nil {
		panic(fmt.Sprintf("awsapi: %s has no operation %s, or it is registered twice", service, name))
	}
	s.queries = append(s.queries, &queryOperation{
		service: service, name: name, version: version, run: run,
		space: "https://" + string(service) + ".amazonaws.com/doc/" + version + "/",
	})
}

// query finds a registered operation of the query protocol.
func (s *Server) query(service catalog.Service, name string) *queryOperation {
	i := slices.IndexFunc(s.queries, func(q *queryOperation) bool { return q.service == service && q.name == name })
	if i < 0 {
		return nil
	}
	return s.queries[i]
}

// routeQuery finds which operation of the query protocol a request means.
func (s *Server) routeQuery(x *exchange) *queryOperation {
	if len(x.services) == 0 || protocolOf(x.services[0], x.r) != queryXML {
		return nil
	}
	form, err := formOf(x.r, x.body)
	if err != nil {
		return nil
	}
	return s.query(x.services[0], form.Get("Action"))
}

// formOf returns the parameters of a request: of its body when that is a form, of
// its query otherwise.
func formOf(r *http.Request, body []byte) (url.Values, error) {
	raw := r.URL.RawQuery
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method == http.MethodPost && kind == "application/x-www-form-urlencoded" && len(body) > 0 {
		raw = string(body)
	}
	if len(raw) > maxForm {
		return nil, fault.New(fault.InvalidRequest, "The parameters are longer than %d bytes", maxForm)
	}
	form, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "The parameters are malformed")
	}
	return form, nil
}

// runQuery answers a call of the query protocol.
func (s *Server) runQuery(ctx context.Context, x *exchange, q *queryOperation) {
	ctx = x.call.In(ctx)
	form, err := formOf(x.r, x.body)
	if err == nil {
		if v := form.Get("Version"); v != "" && v != q.version {
			err = fault.New(fault.InvalidRequest, "The version %.20q of %s is not offered, %s is", v, q.service, q.version)
		}
	}
	var result any
	if err == nil {
		for _, name := range []string{
			"Action", "Version", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires",
			"X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-Content-Sha256",
		} {
			form.Del(name)
		}
		x.call.Ask(formMembers(form))
		result, err = q.run(ctx, &QueryCall{Caller: x.caller, RequestID: x.id, Form: form})
	}
	if err != nil {
		s.refuse(x, queryProblem(err))
		return
	}
	body, err := queryAnswer(q, result, x.id)
	if err != nil {
		s.refuse(x, queryProblem(err))
		return
	}
	x.call.Finish()
	x.w.Header().Set("Content-Type", "text/xml")
	x.status = http.StatusOK
	x.w.WriteHeader(x.status)
	_, _ = x.w.Write(body) // The client is gone if this fails; there is nobody to tell.
}

// formMembers are the parameters as the audit trail takes them.
func formMembers(form url.Values) map[string]any {
	members := make(map[string]any, len(form))
	for name, values := range form {
		members[name] = strings.Join(values, ",")
	}
	return members
}

// queryProblem chooses exception and status for an error of a query service.
func queryProblem(err error) *problem {
	f := fault.From(err)
	p := &problem{message: f.Message, cause: err}
	switch f.Code {
	case fault.InvalidRequest:
		return p.as("ValidationError", http.StatusBadRequest)
	case fault.Forbidden:
		return p.as(accessDenied, http.StatusForbidden)
	case fault.NotOffered:
		return p.as(unsupported, http.StatusBadRequest)
	case fault.Throttling:
		return p.as("Throttling", http.StatusBadRequest)
	case fault.Unavailable:
		return p.as("ServiceUnavailable", http.StatusServiceUnavailable)
	default:
		return p.as(internalFailure, http.StatusInternalServerError)
	}
}

// queryAnswer wraps a result as the protocol does.
func queryAnswer(q *queryOperation, result any, requestID string) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(xml.Header)
	_, _ = fmt.Fprintf(&out, "<%sResponse xmlns=%q>", q.name, q.space) // a buffer takes everything
	if err := xml.NewEncoder(&out).EncodeElement(result, xml.StartElement{Name: xml.Name{Local: q.name + "Result"}}); err != nil {
		return nil, fmt.Errorf("encode answer of %s: %w", q.name, err)
	}
	_, _ = fmt.Fprintf(&out, "<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></%sResponse>\n", requestID, q.name) // as above
	return out.Bytes(), nil
}
