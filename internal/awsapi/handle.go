package awsapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/catalog/wire"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Call is what an adapter learns about the request besides its input.
type Call struct {
	// Scope is the account that the request is for and the region of this
	// installation; it makes ARNs.
	fleet.Scope
	Caller    Caller
	RequestID string
	Operation *catalog.Operation
	// Base is the scheme and host that the caller knows the server by.
	Base   string
	server *Server
	trail  *audit.Call
}

// AnyResource is what operations are authorized on that name no resource.
const AnyResource = "*"

// All is the resource function of operations that name no resource.
func All[In any](*Call, *In) []string { return []string{AnyResource} }

// Authorize asks for a permission beyond the operation's own, which has been
// checked before the adapter runs.
func (c *Call) Authorize(ctx context.Context, action, resource string) error {
	c.trail.About(resource)
	return c.server.options.Authorizer.Authorize(ctx, c.Caller, action, resource)
}

// PageKey opens the token of a list call: the key that the page before ended
// with, "" for the first page. The filters are whatever else decides what is
// listed; they must be those that NextToken got.
func (c *Call) PageKey(token *string, filter ...string) (string, error) {
	if token == nil {
		return "", nil
	}
	return c.server.tokens.Open(c.Account, c.operationKey(), filter, *token, c.server.options.Now())
}

// NextToken makes the token for the page after last, nil for "": no more pages.
func (c *Call) NextToken(last string, filter ...string) *string {
	if last == "" {
		return nil
	}
	return new(c.server.tokens.Seal(c.Account, c.operationKey(), filter, last, c.server.options.Now()))
}

// operationKey names the operation across services.
func (c *Call) operationKey() string { return string(c.Operation.Service) + "." + c.Operation.Name }

// handler is a registered operation.
type handler struct {
	run     func(context.Context, *Call, wire.Request) (wire.Reply, error)
	maxBody int64
	gap     string
}

// HandleOption adjusts a registration.
type HandleOption func(*handler)

// Partial marks an operation that lacks something; operations.md names the gap.
func Partial(gap string) HandleOption { return func(h *handler) { h.gap = gap } }

// MaxBody replaces the default limit on the request body, in bytes.
func MaxBody(limit int64) HandleOption { return func(h *handler) { h.maxBody = limit } }

// Handle registers the adapter of one operation. In and Out must be the wire
// structs of its catalog row. resources names what the caller needs the
// operation's action on; there is no way to leave the question out, and no
// answer at all is a failure. It panics on a wrong registration, which is a
// mistake in the program.
func Handle[In, Out any](
	s *Server, service catalog.Service, name string,
	resources func(*Call, *In) []string,
	adapter func(context.Context, *Call, *In) (*Out, error),
	options ...HandleOption,
) {
	op, ok := s.options.Catalog.Operation(service, name)
	if !ok {
		panic(fmt.Sprintf("awsapi: %s has no operation %s", service, name))
	}
	if _, ok := op.Input().(*In); !ok {
		panic(fmt.Sprintf("awsapi: %s takes %T, not %T", name, op.Input(), new(In)))
	}
	if _, ok := op.Output().(*Out); !ok {
		panic(fmt.Sprintf("awsapi: %s answers %T, not %T", name, op.Output(), new(Out)))
	}
	if resources == nil || adapter == nil || s.handlers[op] != nil {
		panic(fmt.Sprintf("awsapi: %s is registered twice, or without resources or adapter", name))
	}
	h := &handler{maxBody: DefaultMaxBody}
	for _, option := range options {
		option(h)
	}
	codec := s.options.Catalog.Codec(service)
	h.run = func(ctx context.Context, call *Call, request wire.Request) (wire.Reply, error) {
		in := new(In)
		if err := codec.Decode(in, request); err != nil {
			return wire.Reply{}, err
		}
		call.ask(in)
		if err := call.mayAll(ctx, resources(call, in)); err != nil {
			return wire.Reply{}, err
		}
		call.trail.Grant()
		out, err := adapter(ctx, call, in)
		if err != nil {
			return wire.Reply{}, err
		}
		if out == nil {
			return wire.Reply{}, fmt.Errorf("adapter of %s gave neither reply nor error", name)
		}
		reply, err := codec.Encode(out)
		if err != nil {
			return wire.Reply{}, fmt.Errorf("encode reply of %s: %w", name, err)
		}
		return reply, nil
	}
	s.handlers[op] = h
}

// mayAll asks for the operation's action on every resource.
func (c *Call) mayAll(ctx context.Context, resources []string) error {
	if len(resources) == 0 {
		return fmt.Errorf("%s names no resource to authorize", c.Operation.Name)
	}
	for _, resource := range resources {
		if err := c.Authorize(ctx, c.Operation.Action(), resource); err != nil {
			return err
		}
	}
	return nil
}

// notOffered refuses an operation that the catalog knows and nobody registered.
func notOffered(op *catalog.Operation) error {
	return fault.New(fault.NotOffered, "The operation %s is not offered by this version of Muster", op.Name)
}

// unknown refuses what no operation of the services matches.
func unknown(services []catalog.Service, r *http.Request, m match) *problem {
	if m.otherMethod && len(services) > 0 && services[0] == catalog.IoTData {
		return &problem{name: "MethodNotAllowedException", status: http.StatusMethodNotAllowed, message: "The method " + r.Method + " is not allowed on this path"}
	}
	return &problem{name: unknownOperation, status: http.StatusNotFound, message: fmt.Sprintf("No operation of %s answers %s on this path", serviceNames(services), r.Method)}
}

// serviceNames lists services for a message.
func serviceNames(services []catalog.Service) string {
	names := make([]string, len(services))
	for i, service := range services {
		names[i] = string(service)
	}
	return strings.Join(names, " or ")
}
