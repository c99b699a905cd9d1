package index

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Fields of our own about the certificates that are attached to a thing.
const (
	// fieldCertNotAfter is when the first of the active ones ends, in
	// milliseconds; no thing without an active one has it.
	fieldCertNotAfter = prefixOwn + "certificate.notAfter"
	// fieldCertCount counts all of them, and is 0 for a thing without any.
	fieldCertCount = prefixOwn + "certificate.count"
	// fieldCertStatus holds their distinct states.
	fieldCertStatus = prefixOwn + "certificate.status"
)

// certificateActive is the state in which a certificate may connect.
const certificateActive = "ACTIVE"

// Certificate is what the index keeps of a certificate that acts as a thing.
type Certificate struct {
	Status   string
	NotAfter time.Time
}

// Certificates tells which certificates act as which things at the moment. The
// index asks it whenever an event says that something about that changed, so
// that it needs no memory of certificates. It is called by several goroutines at
// once.
type Certificates interface {
	ThingCertificates(ctx context.Context, account fleet.Account, thing string) ([]Certificate, error)
	CertificateThings(ctx context.Context, account fleet.Account, id string) ([]string, error)
}

// certificateARN stands in the ARN of a certificate and of no other principal.
const certificateARN = ":" + fleet.ARNCertificate + "/"

// attached are the certificates of the things that a batch is about.
type attached struct {
	byThing map[thingKey][]Certificate
	// things are those of each certificate whose state has changed, by the id in
	// place of a thing's name.
	things map[thingKey][]string
}

// sources are what applying a batch needs beside its events.
type sources struct {
	attached

	states map[thingKey]State
}

// loadSources asks for what a batch needs, before any of it is applied.
func (x *Index) loadSources(ctx context.Context, batch []event.Envelope) (sources, error) {
	states, err := x.loadStates(ctx, batch)
	if err != nil {
		return sources{}, err
	}
	certificates, err := x.loadCertificates(ctx, batch)
	return sources{attached: certificates, states: states}, err
}

// loadCertificates asks for the certificates of all things for which a batch
// changes them, before any of it is applied. What it reads may be newer than the
// event: then another event follows.
func (x *Index) loadCertificates(ctx context.Context, batch []event.Envelope) (attached, error) {
	found := attached{byThing: map[thingKey][]Certificate{}, things: map[thingKey][]string{}}
	if x.options.Certificates == nil {
		return found, nil
	}
	for _, e := range batch {
		switch v := e.Event.(type) {
		case event.PrincipalAttached:
			found.want(e.Account, v.Thing, v.Principal)
		case event.PrincipalDetached:
			found.want(e.Account, v.Thing, v.Principal)
		case event.CertificateStatusChanged:
			found.things[thingKey{e.Account, v.CertificateID}] = nil
		default:
		}
	}
	err := loadEach(ctx, found.things, x.options.Certificates.CertificateThings)
	if err != nil {
		return attached{}, fmt.Errorf("load things of a certificate: %w", err)
	}
	for of, things := range found.things {
		for _, thing := range things {
			found.byThing[thingKey{of.account, thing}] = nil
		}
	}
	if err := loadEach(ctx, found.byThing, x.options.Certificates.ThingCertificates); err != nil {
		return attached{}, fmt.Errorf("load certificates of a thing: %w", err)
	}
	return found, nil
}

// want notes a thing whose attachments have changed.
func (a *attached) want(account fleet.Account, thing, principal string) {
	if strings.Contains(principal, certificateARN) {
		a.byThing[thingKey{account, thing}] = nil
	}
}

// loadEach fills a map by asking for the value of each key.
func loadEach[T any](ctx context.Context, into map[thingKey]T, load func(context.Context, fleet.Account, string) (T, error)) error {
	keys := make([]thingKey, 0, len(into))
	for key := range into {
		keys = append(keys, key)
	}
	loaded := make([]T, len(keys))
	loading, ctx := errgroup.WithContext(ctx)
	loading.SetLimit(stateLoaders)
	for i, key := range keys {
		loading.Go(func() (err error) {
			loaded[i], err = load(ctx, key.account, key.thing)
			return err
		})
	}
	if err := loading.Wait(); err != nil {
		return err //nolint:wrapcheck // the callers say what was asked for
	}
	for i, key := range keys {
		into[key] = loaded[i]
	}
	return nil
}

// refreshCertificates sets what is known of the certificates of a thing, if the
// batch has asked for it.
func (s *shard) refreshCertificates(account fleet.Account, thing string, a attached) {
	if list, ok := a.byThing[thingKey{account, thing}]; ok {
		s.setCertificates(thing, list)
	}
}

// setCertificates sets the certificate fields of a thing that exists.
func (s *shard) setCertificates(thing string, list []Certificate) {
	doc, ok := s.things.doc(thing)
	if !ok {
		return
	}
	var states []string
	var ends values
	for _, c := range list {
		states = append(states, fleetquery.Fold(c.Status))
		if end := float64(c.NotAfter.UnixMilli()); c.Status == certificateActive && (len(ends.numbers) == 0 || end < ends.numbers[0]) {
			ends.numbers = []float64{end}
		}
	}
	slices.Sort(states)
	s.things.putNumber(fieldCertCount, doc, float64(len(list)))
	s.things.put(fieldCertStatus, doc, values{texts: slices.Compact(states)})
	s.things.put(fieldCertNotAfter, doc, ends)
}

// PutCertificate adds a certificate of a thing.
func (b *Builder) PutCertificate(account fleet.Account, thing string, c Certificate) {
	b.shard(account).addCertificate(thing, c)
}

// addCertificate adds to the certificate fields of a thing that exists.
func (s *shard) addCertificate(thing string, c Certificate) {
	doc, ok := s.things.doc(thing)
	if !ok {
		return
	}
	count, _ := s.things.number(fieldCertCount, doc)
	s.things.putNumber(fieldCertCount, doc, count+1)
	var had values
	if n := s.things.nodes[fieldCertStatus]; n != nil && n.field != nil {
		n.field.appendTo(doc, &had)
	}
	if status := fleetquery.Fold(c.Status); !slices.Contains(had.texts, status) {
		texts := append(slices.Clone(had.texts), status)
		slices.Sort(texts)
		s.things.put(fieldCertStatus, doc, values{texts: texts})
	}
	end := float64(c.NotAfter.UnixMilli())
	if known, ok := s.things.number(fieldCertNotAfter, doc); c.Status == certificateActive && (!ok || end < known) {
		s.things.putNumber(fieldCertNotAfter, doc, end)
	}
}
