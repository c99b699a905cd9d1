package awsapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/catalog/wire"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/pagetoken"
)

// DefaultMaxBody bounds a request body unless the operation says otherwise.
const DefaultMaxBody = 1 << 20

// Lines about refused callers that nobody has proven to be: of one address,
// and of all, in a window.
const (
	strangerLines    = 100
	allStrangerLines = 1000
	strangerWindow   = 10 * time.Second
)

// promisedBody bounds the memory that is taken before bytes have come.
const promisedBody = 16 << 10

// Options are what a Server needs.
type Options struct {
	Catalog *catalog.Catalog
	Keys    Keys
	// Sessions is nil where no session tokens are accepted.
	Sessions   Sessions
	Authorizer Authorizer
	// Devices is nil where no client certificates are accepted.
	Devices Devices
	// Directory is nil where there is one account only.
	Directory Directory
	// Custom is nil where there are no custom authorizers.
	Custom Custom
	// Region is the one configured region; any signing region is accepted.
	Region string
	// TokenKey seals page tokens: pagetoken.KeySize secret bytes, the same on every
	// node and after a restart.
	TokenKey   []byte
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Trail keeps what is called; nil for nothing.
	Trail *audit.Recorder
	// Strict turns an error code that the operation's model does not list into
	// an internal failure that says so; for tests and development.
	Strict bool
}

// Server answers the AWS services on one listener.
type Server struct {
	options  Options
	routers  map[catalog.Service]*router
	handlers map[*catalog.Operation]*handler
	// queries are the operations of services that have no wire structs.
	queries []*queryOperation
	tokens  *pagetoken.Sealer
	metrics *metrics
	// strangers bounds what refusals of unproven callers write to the log.
	strangers *inlet.Quota
}

// New builds a Server without any registered operation.
func New(options Options) (*Server, error) {
	if options.Catalog == nil || options.Keys == nil || options.Authorizer == nil || options.Now == nil || options.Logger == nil || options.Registerer == nil {
		return nil, errors.New("awsapi: Catalog, Keys, Authorizer, Now, Logger and Registerer are needed")
	}
	tokens, err := pagetoken.New(options.TokenKey)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(options.Registerer)
	if err != nil {
		return nil, err
	}
	s := &Server{
		options: options, routers: map[catalog.Service]*router{}, handlers: map[*catalog.Operation]*handler{}, tokens: tokens, metrics: m,
		strangers: inlet.NewQuota(strangerLines, allStrangerLines, strangerWindow),
	}
	for _, service := range options.Catalog.Services() {
		s.routers[service] = newRouter(options.Catalog.Operations(service))
	}
	return s, nil
}

// exchange is one request under way and what is known about it for the log.
type exchange struct {
	w http.ResponseWriter
	r *http.Request
	// id is the request id in the reply, the log and the events.
	id       string
	services []catalog.Service
	op       *catalog.Operation
	// query is the operation of a service without wire structs.
	query   *queryOperation
	labels  map[string]string
	caller  Caller
	body    []byte
	problem *problem
	status  int
	// call is the exchange in the audit trail, nil where it is none of it.
	call *audit.Call
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: w, r: r, id: randomID(), caller: Caller{SourceAddress: sourceAddress(r), Secure: r.TLS != nil}}
	w.Header().Set("X-Amzn-Requestid", x.id)
	defer s.finish(r.Context(), x, s.options.Now())
	s.serve(r.Context(), x)
}

// finish turns a panic of an adapter into an answer, and records the request.
// It must be deferred itself for that.
func (s *Server) finish(ctx context.Context, x *exchange, begun time.Time) {
	if cause := recover(); cause != nil {
		if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(cause)
		}
		s.refuse(x, &problem{
			name: internalFailure, status: http.StatusInternalServerError, message: "Internal failure",
			cause: fmt.Errorf("panic: %v\n%s", cause, debug.Stack()),
		})
	}
	x.call.Finish()
	s.record(ctx, x, s.options.Now().Sub(begun))
}

// serve takes the steps in order. What a request means is found first, because
// that decides how much body is read and how an error looks; but nothing is
// said about it before the caller is proven.
func (s *Server) serve(ctx context.Context, x *exchange) {
	signature, err := parseSignature(x.r)
	signed := ""
	if signature != nil {
		signed = signature.Service
	}
	x.services = candidates(x.r, signed, s.options.Region)
	if err != nil {
		s.refuse(x, signatureProblem(err))
		return
	}
	var p *problem
	signs := signature != nil || s.certified(x.r, x.services)
	if !signs {
		// Nobody needs to send a body to be told that this is no proof.
		if x.caller, p = s.byCustom(x.r, x.services, x.caller); p != nil {
			s.refuse(x, p)
			return
		}
	}
	found := s.route(x)
	if p := s.readBody(x); p != nil {
		s.refuse(x, p)
		return
	}
	if signs {
		if x.caller, p = s.authenticate(x.r, x.services, signature, x.body); p != nil {
			if x.op != nil && fault.CodeOf(p.cause) == fault.Unavailable {
				p = s.problemOf(x.op, p.cause) // as the operation itself would say
			}
			s.refuse(x, p)
			return
		}
	}
	s.begin(x)
	if p := s.misdirected(x.r, &x.caller); p != nil {
		s.refuse(x, p)
		return
	}
	if x.query = s.routeQuery(x); x.query != nil {
		s.runQuery(x.withActor(ctx), x, x.query)
		return
	}
	if x.op == nil {
		s.refuse(x, s.unroutable(x, signed, found))
		return
	}
	s.run(x.call.In(x.withActor(ctx)), x)
}

// customHeader names a custom authorizer, which may find its token in the
// header that signatures use.
const customHeader = "X-Amz-Customauthorizer-Name"

// parseSignature returns nil without error for a request that has none.
func parseSignature(r *http.Request) (*sigv4.Authorization, error) {
	if header := r.Header.Get("Authorization"); r.Header.Get(customHeader) != "" && !strings.HasPrefix(header, "AWS4-") && !r.URL.Query().Has("X-Amz-Signature") {
		return nil, nil //nolint:nilnil // absent is neither.
	}
	signature, err := sigv4.Parse(r)
	if errors.Is(err, sigv4.ErrMissing) {
		return nil, nil //nolint:nilnil // absent is neither.
	}
	return signature, err
}

// route finds the operation among the services that the request can mean.
func (s *Server) route(x *exchange) match {
	var missed match
	for _, service := range x.services {
		routes, ok := s.routers[service]
		if !ok {
			continue
		}
		m, ok := routes.find(x.r.Method, x.r.URL.EscapedPath())
		if ok {
			x.op, x.labels = m.op, m.labels
			return m
		}
		missed.otherMethod = missed.otherMethod || m.otherMethod
	}
	return missed
}

// readBody reads the body up to the operation's limit.
func (s *Server) readBody(x *exchange) *problem {
	limit := int64(DefaultMaxBody)
	if h := s.handlers[x.op]; h != nil {
		limit = h.maxBody
	}
	tooLarge := fault.New(fault.RequestEntityTooLarge, "The request body is larger than %d bytes", limit)
	if x.r.ContentLength > limit {
		return s.bodyProblem(x, tooLarge)
	}
	var buffer bytes.Buffer
	if x.r.ContentLength > 0 {
		// A length is only a promise while the caller is unknown.
		buffer.Grow(int(min(x.r.ContentLength, promisedBody)))
	}
	_, err := io.Copy(&buffer, http.MaxBytesReader(x.w, x.r.Body, limit))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return s.bodyProblem(x, tooLarge)
	}
	if err != nil {
		return s.bodyProblem(x, fault.Wrap(fault.InvalidRequest, err, "The request body could not be read"))
	}
	x.body = buffer.Bytes()
	return nil
}

// bodyProblem words a body that was not read, with or without an operation.
func (s *Server) bodyProblem(x *exchange, err *fault.Error) *problem {
	if x.op != nil {
		return s.problemOf(x.op, err)
	}
	return &problem{name: invalidRequest, status: http.StatusBadRequest, message: err.Message, cause: err}
}

// unroutable words a call that has no row in the catalog: another service, or
// a path that no operation has.
func (s *Server) unroutable(x *exchange, signed string, found match) *problem {
	if len(x.services) == 0 {
		return &problem{name: unsupported, status: http.StatusBadRequest, message: fmt.Sprintf("The service %q is not offered by this version of Muster", signed)}
	}
	service := x.services[0]
	if _, ok := s.routers[service]; ok {
		return unknown(x.services, x.r, found)
	}
	message := fmt.Sprintf("The service %s is not offered by this version of Muster", service)
	if name := operationName(protocolOf(service, x.r), x.r, x.body); name != "" {
		message = fmt.Sprintf("The operation %s of %s is not offered by this version of Muster", name, service)
		if !s.options.Catalog.Knows(service, name) {
			return &problem{name: unknownOperation, status: http.StatusBadRequest, message: fmt.Sprintf("The service %s has no operation %s", service, name)}
		}
	}
	return &problem{name: unsupported, status: http.StatusBadRequest, message: message}
}

// run calls the adapter and writes its answer.
func (s *Server) run(ctx context.Context, x *exchange) {
	h := s.handlers[x.op]
	if h == nil {
		s.refuse(x, s.problemOf(x.op, notOffered(x.op)))
		return
	}
	query, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		s.refuse(x, s.problemOf(x.op, fault.Wrap(fault.InvalidRequest, err, "The query string is malformed")))
		return
	}
	call := &Call{
		Scope:  fleet.Scope{Region: s.options.Region, Account: x.caller.Account},
		Caller: x.caller, RequestID: x.id, Operation: x.op, Base: base(x.r), server: s, trail: x.call,
	}
	reply, err := h.run(ctx, call, wire.Request{Labels: x.labels, Query: query, Header: x.r.Header, Body: x.body})
	if err != nil {
		s.refuse(x, s.problemOf(x.op, err))
		return
	}
	x.call.Finish()
	header := x.w.Header()
	maps.Copy(header, reply.Header)
	header.Set("Content-Type", "application/json")
	x.status = x.op.Status
	x.w.WriteHeader(x.status)
	_, _ = x.w.Write(reply.Body) // The client is gone if this fails; there is nobody to tell.
}

// base is the address that a request was sent to.
func base(r *http.Request) string {
	if r.TLS == nil {
		return "http://" + r.Host
	}
	return "https://" + r.Host
}

// withActor adds the actor that every event will carry.
func (x *exchange) withActor(ctx context.Context) context.Context {
	return fleet.WithActor(ctx, fleet.Actor{
		Principal: x.caller.Principal, SourceAddress: x.caller.SourceAddress, AccessKeyID: x.caller.AccessKeyID, RequestID: x.id,
		Trace: traceParent(x.r.Header.Get("Traceparent")),
	})
}

// refuse writes an error, unless an answer is under way.
func (s *Server) refuse(x *exchange, p *problem) {
	x.problem = p
	s.conclude(x)
	if x.status != 0 {
		return
	}
	x.status = p.status
	var service catalog.Service
	switch {
	case x.op != nil:
		service = x.op.Service
	case len(x.services) > 0:
		service = x.services[0]
	}
	writeProblem(x.w, protocolOf(service, x.r), service, p, x.id)
}

// sourceAddress is the peer's address without port.
func sourceAddress(r *http.Request) string { return hostName(r.RemoteAddr) }

// hostName drops the port of host:port.
func hostName(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return hostPort
}

// traceParent passes a W3C trace context on if it has the right shape.
func traceParent(text string) string {
	const size = len("00-00000000000000000000000000000000-0000000000000000-00")
	if len(text) != size || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return ""
	}
	for i := range len(text) {
		c := text[i]
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return text
}
