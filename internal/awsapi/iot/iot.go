// Package iot adapts the control plane's operations on the registry and the
// fleet index: each takes a decoded request apart, makes one domain call and
// puts the answer together. What may be done and what a request means is
// decided in the domains; this package knows only the wire's shapes. Its only
// goroutines read the documents of a search and end with it.
package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/authorizer"
	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/certprovider"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registrationtask"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/tag"
)

// Index answers fleet queries with names in order.
type Index interface {
	ParseThings(query string) (fleetquery.Query, error)
	ParseGroups(query string) (fleetquery.Query, error)
	Search(account fleet.Account, q fleetquery.Query, after string, limit int) (things []string, next string, err error)
	SearchGroups(account fleet.Account, q fleetquery.Query, after string, limit int) (groups []string, next string, err error)
	Statistics(account fleet.Account, over index.Aggregation) (index.Statistics, error)
	Cardinality(account fleet.Account, over index.Aggregation) (int, error)
	Percentiles(account fleet.Account, over index.Aggregation, percents []float64) ([]index.Percentile, error)
	Buckets(ctx context.Context, account fleet.Account, over index.Aggregation, limit int) (index.Buckets, error)
	// StatusOf returns the states of the account's two indexes, empty for one that
	// its stored configuration does not have.
	StatusOf(account fleet.Account, stored *fleet.Indexing) (things, groups index.Status)
	// Indexing is the configuration that searches see at present.
	Indexing(account fleet.Account) fleet.Indexing
}

// Shadows reads the shadows that search answers show.
type Shadows interface {
	Documents(ctx context.Context, account fleet.Account, thing string) ([]shadow.Document, error)
}

// Deps are the domains behind the operations.
type Deps struct {
	Registry    *registry.Service
	Index       Index
	Shadows     Shadows
	Connections Connections
	Authorizers *authorizer.Service
	Tags        *tag.Service
	// Provisioning lets devices join, CertificateProviders sign for them.
	Provisioning         *provisioning.Service
	CertificateProviders *certprovider.Service
	// Tasks registers devices from files, Reports makes links to what became of
	// the lines.
	Tasks   *registrationtask.Service
	Reports *ReportLinks
	// DeleteThing removes a thing and what goes with it elsewhere; the registry's
	// own when nil.
	DeleteThing func(ctx context.Context, account fleet.Account, name string, expected *int64) error
	Devices     Devices
}

// api holds the domains for the adapters.
type api struct{ Deps }

// Register offers this package's operations on the server.
func Register(s *awsapi.Server, d Deps) {
	if d.DeleteThing == nil {
		d.DeleteThing = d.Registry.DeleteThing
	}
	a := &api{d}
	a.registerThings(s)
	a.registerThingTypes(s)
	a.registerThingGroups(s)
	a.registerMembership(s)
	a.registerDynamicGroups(s)
	a.registerCertificates(s)
	a.registerCACertificates(s)
	a.registerTransfers(s)
	a.registerPolicies(s)
	a.registerAttachments(s)
	a.registerPrincipals(s)
	a.registerIndex(s)
	a.registerAggregations(s)
	a.registerAuthorizers(s)
	a.registerProvisioning(s)
	a.registerCertificateProviders(s)
	a.registerRegistrationTasks(s)
	a.registerBillingGroups(s)
	a.registerTags(s)
	a.registerEventConfigurations(s)
	a.registerTestAuthorization(s)
	offer(s, "DescribeEndpoint", awsapi.All, a.describeEndpoint)
}

// offer registers an operation of the control plane.
func offer[In, Out any](
	s *awsapi.Server, name string, resources func(*awsapi.Call, *In) []string,
	adapter func(context.Context, *awsapi.Call, *In) (*Out, error), options ...awsapi.HandleOption,
) {
	awsapi.Handle(s, catalog.IoT, name, resources, adapter, options...)
}

// on makes a resource function of a kind and the member that names it.
func on[In any](kind string, name func(*In) string) func(*awsapi.Call, *In) []string {
	return func(c *awsapi.Call, in *In) []string { return []string{c.ARN(kind, name(in))} }
}

// page reads the two paging members of a list request.
func page(c *awsapi.Call, token *string, limit *int32, filter ...string) (registry.Page, error) {
	after, err := c.PageKey(token, filter...)
	if err != nil {
		return registry.Page{}, err
	}
	p := registry.Page{After: after}
	if limit != nil {
		p.Limit = int(*limit)
	}
	return p, nil
}

// refuse says that a member of the request would have no effect.
func refuse(member string, given bool) error {
	if !given {
		return nil
	}
	return fault.New(fault.NotOffered, "%s is not offered by this version of Muster", member)
}

// value is what a pointer holds, the zero value without one.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// optional leaves out an empty text.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// word is a flag's text in the filter that a page token is bound to.
func word(flag *bool) string {
	switch {
	case flag == nil:
		return ""
	case *flag:
		return "true"
	}
	return "false"
}

// each converts a list; the result is never nil, so that an empty list is sent
// as one.
func each[From, To any](list []From, convert func(From) To) []To {
	converted := make([]To, len(list))
	for i, item := range list {
		converted[i] = convert(item)
	}
	return converted
}

// filled is the map itself, never nil.
func filled(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
