package bootstrap

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Transports by which devices ask.
const (
	HTTPS = "HTTPS"
	MQTT  = "MQTT"
)

// Question is a device that asks where to join.
type Question struct {
	// Certificate is the one whose key the device has proved to hold.
	Certificate *x509.Certificate
	Transport   string
	// Address is with or without port; ClientID is empty for HTTPS.
	Address, ClientID string
}

// Method is how a device goes on.
type Method string

// Methods.
const (
	// ByClaim is fleet provisioning with the certificate that the device has, by the
	// template: it gets one of its own.
	ByClaim Method = "CLAIM"
	// ByBirth goes on with the certificate that the device has.
	ByBirth Method = "BIRTH_CERTIFICATE"
)

// Answer is where and how a device joins.
type Answer struct {
	Account  fleet.Account
	Region   string
	Endpoint string
	Ports    Ports
	// Roots are the authorities that the device has to trust, PEM; empty for unknown.
	Roots                     string
	Method                    Method
	Template                  string
	Parameters, Configuration map[string]string
	Standing                  Standing
	// Expires is when the answer is over, zero for never: the device asks again then.
	Expires time.Time
}

// Ask tells a device where to join. Faults are Forbidden for a certificate that is not
// known or that somebody says no to, ResourceNotFound for one that is sent nowhere,
// Conflict for one that cannot go at this time where it is sent, and Throttling.
func (s *Service) Ask(ctx context.Context, q Question) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := s.ask(ctx, &q)
	outcome := "answered"
	if err != nil {
		outcome = string(fault.CodeOf(err))
	}
	s.asks.WithLabelValues(q.Transport, outcome).Inc()
	return answer, err
}

// matched is a question with what became known about it.
type matched struct {
	*Question

	id, serial string
	owner      fleet.Account
	voucher    registry.Voucher
	// assignment is empty until one was found; stored is its record's version.
	assignment Assignment
	stored     uint64
	told       *turn
}

// turn is taken once for each question, however often it is decided.
type turn struct {
	taken, ok  bool
	suppressed int
}

// take asks a quota the first time.
func (t *turn) take(q *inlet.Quota, caller string, now time.Time) bool {
	if !t.taken {
		t.taken = true
		t.suppressed, t.ok = q.Take(caller, now)
	}
	return t.ok
}

// nobody is what all are told whom nobody stands for.
func nobody() error { return fault.New(fault.Forbidden, "The certificate is not known here") }

func (s *Service) ask(ctx context.Context, q *Question) (Answer, error) {
	now := s.o.Now()
	id := registry.CertificateID(q.Certificate.Raw)
	if !within(s.addresses, networkOf(q.Address), now) || !within(s.certificates, id, now) {
		return Answer{}, fault.New(fault.Throttling, "Too many requests; try again in a minute")
	}
	told := &turn{}
	for range 4 {
		m := &matched{Question: q, id: id, told: told}
		answer, err := s.decide(ctx, m)
		if err != nil {
			return Answer{}, s.refused(ctx, m, err)
		}
		err = s.answered(ctx, m, &answer)
		if errors.Is(err, store.ErrConflict) {
			continue // the assignment was changed meanwhile
		}
		return answer, store.Fault(err)
	}
	return Answer{}, fault.New(fault.Throttling, "The assignment of the certificate is being changed; try again")
}

// within takes one from a quota, if there is one.
func within(q *inlet.Quota, caller string, now time.Time) bool {
	if q == nil {
		return true
	}
	_, ok := q.Take(caller, now)
	return ok
}

// networkOf is what an address counts as: itself, or its /64 in IPv6, of which one
// peer has them all.
func networkOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	const host6 = 64
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		if network, err := ip.Prefix(host6); err == nil {
			return network.String()
		}
	}
	return ip.String()
}

// SerialOf is the serial number that the subject of a certificate gives, or the common
// name of one that gives none; empty for one that nobody could write down.
func SerialOf(c *x509.Certificate) string {
	const serialNumber, commonName = "2.5.4.5", "2.5.4.3"
	for _, oid := range []string{serialNumber, commonName} {
		for _, attribute := range c.Subject.Names {
			text, ok := attribute.Value.(string)
			if !ok || text == "" || attribute.Type.String() != oid {
				continue
			}
			if readable(text, 1, maxSerial) {
				return text
			}
			return ""
		}
	}
	return ""
}

// decide finds where a device is sent, and has it admitted there.
func (s *Service) decide(ctx context.Context, m *matched) (Answer, error) {
	if err := s.match(ctx, m); err != nil {
		return Answer{}, err
	}
	a, now := &m.assignment, s.o.Now()
	switch {
	case !a.Enabled:
		return Answer{}, fault.New(fault.Forbidden, "The assignment of the certificate is disabled")
	case !a.Expires.IsZero() && !now.Before(a.Expires):
		return Answer{}, fault.New(fault.Forbidden, "The assignment of the certificate is over")
	case !slices.Contains(s.o.Accounts.Open(), a.Account):
		return Answer{}, notNow(errors.New("the account that it sends to is closed"))
	}
	answer := Answer{
		Account: a.Account, Region: s.o.Region, Endpoint: s.o.Accounts.Endpoint(a.Account), Ports: s.o.Ports(), Roots: s.o.Roots,
		Method: ByBirth, Template: a.Template, Parameters: a.Parameters, Configuration: a.Configuration, Expires: a.Expires,
		Standing: Standing{Approval: NotNeeded},
	}
	if a.Template != "" {
		answer.Method = ByClaim
		if err := s.o.Templates.Usable(ctx, a.Account, a.Template); err != nil {
			return Answer{}, unlessOurs(err)
		}
	}
	var err error
	if answer.Standing, err = s.look(ctx, m); err != nil || a.Template == "" {
		return answer, err
	}
	until := now.Add(s.o.Window)
	if !a.Expires.IsZero() && a.Expires.Before(until) {
		until = a.Expires
	}
	ends, err := s.o.Certificates.AdmitGuest(ctx, a.Account, m.Certificate, a.Template, until)
	if err != nil {
		return Answer{}, unlessOurs(err)
	}
	if !ends.IsZero() {
		answer.Expires = ends
	}
	return answer, nil
}

// notNow is the fault for a device that cannot go where it is sent; the cause is for
// operators.
func notNow(cause error) error {
	return fault.Wrap(fault.Conflict, cause, "The assignment of the certificate cannot be carried out at this time")
}

// unlessOurs is notNow for faults that are not the server's own.
func unlessOurs(err error) error {
	switch fault.CodeOf(err) { //nolint:exhaustive // the others are about the assignment
	case fault.Internal, fault.Unavailable, fault.Throttling:
		return err
	}
	return notNow(err)
}

// look asks all gates; the standing that asks most of the device counts.
func (s *Service) look(ctx context.Context, m *matched) (Standing, error) {
	order := []Approval{NotNeeded, Approved, Pending, Required}
	most := Standing{Approval: NotNeeded}
	d := &Device{
		Account: m.assignment.Account, Template: m.assignment.Template, Certificate: m.Certificate, CertificateID: m.id, CA: m.voucher.CA, Serial: m.serial,
		Shared: m.assignment.Kind == Claim, Address: m.Address, ClientID: m.ClientID, Parameters: m.assignment.Parameters,
	}
	for _, gate := range s.o.Gates {
		standing, err := gate.Look(ctx, d)
		if err != nil {
			return Standing{}, err //nolint:wrapcheck // coded
		}
		if slices.Index(order, standing.Approval) > slices.Index(order, most.Approval) {
			most = standing
		}
	}
	return most, nil
}

// match finds the account that a device belongs to, and what it says of it. Accounts
// that have proved something about the certificate come first, the default account
// last; others could send anybody's devices to themselves.
func (s *Service) match(ctx context.Context, m *matched) error {
	open := slices.DeleteFunc(slices.Clone(s.o.Accounts.Open()), func(of fleet.Account) bool { return of == s.o.Default })
	may, err := s.o.Certificates.MayVouch(ctx, append(open, s.o.Default), m.Certificate)
	if err != nil {
		return err //nolint:wrapcheck // coded
	}
	refused := errors.New("no account knows the certificate or its authority")
	for _, of := range may {
		voucher, err := s.o.Certificates.Vouch(ctx, of, m.Certificate)
		switch fault.CodeOf(err) { //nolint:exhaustive // the others are about the certificate
		case fault.Unavailable, fault.Internal:
			return err //nolint:wrapcheck // coded
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err != nil:
			if fault.CodeOf(err) != fault.ResourceNotFound {
				refused = err
			}
			continue
		case !voucher.Proved && of != s.o.Default:
			refused = errors.New("an account knows the certificate that has proved nothing about it")
			continue
		}
		m.owner, m.voucher, m.serial = of, voucher, SerialOf(m.Certificate)
		if found, err := s.assigned(ctx, m); err != nil || found {
			return err
		}
	}
	if m.owner == "" {
		nobody := fault.From(nobody())
		nobody.Cause = refused
		return nobody
	}
	return fault.New(fault.ResourceNotFound, "Nothing is assigned to the certificate")
}

// assigned finds the most specific assignment of the owner.
func (s *Service) assigned(ctx context.Context, m *matched) (bool, error) {
	who := []Who{{Kind: Certificate, CertificateID: m.id}}
	if m.voucher.CA != "" {
		if m.serial != "" {
			who = append(who, Who{Kind: Serial, CACertificateID: m.voucher.CA, Serial: m.serial})
		}
		who = append(who, Who{Kind: Authority, CACertificateID: m.voucher.CA})
	}
	keys := make([]store.Key, len(who))
	for i, w := range who {
		keys[i] = assignmentKey(m.owner, w.id())
	}
	found, err := s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return false, store.Fault(err)
	}
	for i, one := range found {
		if one.Version == 0 {
			continue
		}
		var r record
		if err := decode(one, &r); err != nil {
			return false, err
		}
		m.assignment, m.stored = r.assignment(who[i].id()), one.Version
		return true, nil
	}
	return false, nil
}

// answered leaves the trace of an answer, ahead of the answer. It is a conflict when
// the assignment is not that of before any more.
func (s *Service) answered(ctx context.Context, m *matched, answer *Answer) error {
	now := s.o.Now()
	if !m.told.take(s.known, m.id, now) {
		return nil
	}
	told := event.BootstrapAnswered{
		CertificateID: m.id, Serial: m.serial, Assignment: m.assignment.ID, Owner: m.owner, Target: answer.Account, Template: answer.Template,
		Approval: string(answer.Standing.Approval), Request: answer.Standing.Request, Transport: m.Transport, ClientID: m.ClientID, Suppressed: m.told.suppressed,
	}
	b := s.batch(ctx, m.owner, told)
	if answer.Account != m.owner {
		b.Events = append(b.Events, s.batch(ctx, answer.Account, told).Events...)
	}
	b.Expect = []store.Expect{{Key: assignmentKey(m.owner, m.assignment.ID), Version: m.stored}}
	err := put(&b, askedKey(m.owner, m.assignment.ID), askedRecord{Schema: schemaVersion, At: now.UnixMilli(), By: m.id, From: fleet.ActorFrom(ctx).SourceAddress})
	if err == nil {
		_, err = s.o.Store.Commit(ctx, b)
	}
	return err //nolint:wrapcheck // the caller understands it
}

// refused leaves the trace of a refusal, and returns it. What is the server's fault
// leaves none.
func (s *Service) refused(ctx context.Context, m *matched, err error) error {
	code := fault.CodeOf(err)
	if code == fault.Unavailable || code == fault.Internal || code == fault.Throttling || ctx.Err() != nil {
		return err
	}
	quota, account := s.known, m.owner
	if account == "" {
		quota, account = s.strangers, s.o.Default
	}
	if !m.told.take(quota, m.id+string(code), s.o.Now()) {
		return err
	}
	b := s.batch(ctx, account, event.BootstrapRefused{
		CertificateID: m.id, Serial: m.serial, Assignment: m.assignment.ID, Code: string(code), Reason: reasonOf(err),
		Transport: m.Transport, ClientID: m.ClientID, Suppressed: m.told.suppressed,
	})
	if _, failed := s.o.Store.Commit(ctx, b); failed != nil {
		return store.Fault(failed)
	}
	return err
}

// maxReason bounds the words of a refusal in its event, in bytes.
const maxReason = 1024

// reasonOf is what operators learn: the message, and the cause that devices are not
// told.
func reasonOf(err error) string {
	text := fault.From(err).Message
	if cause := errors.Unwrap(err); cause != nil {
		text += ": " + cause.Error()
	}
	if len(text) <= maxReason {
		return text
	}
	n := maxReason
	for n > 0 && text[n]&0xc0 == 0x80 {
		n--
	}
	return text[:n]
}
