package registry

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// twoAccounts is a rig with a second account.
func twoAccounts(t *testing.T) *rig {
	t.Helper()
	return newRig(t, func(o *Options) {
		o.AccountExists = func(_ context.Context, account fleet.Account) (bool, error) {
			return account == acct || account == other, nil
		}
	})
}

// idle registers an inactive certificate under an authority.
func (r *rig) idle(t *testing.T, ca *testCA) Certificate {
	t.Helper()
	return must[Certificate](t)(r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: ca.issue("pump")}))
}

// offerTo begins a transfer to the second account.
func (r *rig) offerTo(t *testing.T, id string) {
	t.Helper()
	must[string](t)(r.TransferCertificate(t.Context(), acct, id, other, "as agreed"))
}

// in describes a certificate in an account.
func (r *rig) in(t *testing.T, account fleet.Account, id string) Certificate {
	t.Helper()
	return must[Certificate](t)(r.DescribeCertificate(t.Context(), account, id))
}

func TestTransferAndAccept(t *testing.T) {
	t.Parallel()
	r := twoAccounts(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeDefault)
	c := r.idle(t, ca)
	mark := len(r.store.log())
	arn := must[string](t)(r.TransferCertificate(t.Context(), acct, c.ID, other, "as agreed"))
	wantEqual(t, arn, "arn:aws:iot:us-east-1:000000000002:cert/"+c.ID)
	moves := func(step event.CertificateTransfer) event.CertificateTransferChanged {
		return event.CertificateTransferChanged{CertificateID: c.ID, Change: step, From: acct, To: other}
	}
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.CertificateStatusChanged{CertificateID: c.ID, Status: StatusPendingTransfer, PreviousStatus: StatusInactive},
		event.CertificateCreated{CertificateID: c.ID, Status: StatusPendingTransfer, NotAfter: c.NotAfter},
		moves(event.CertificateTransferRequested), moves(event.CertificateTransferRequested),
	})
	envelopes := r.store.envelopes()[mark:]
	wantEqual(t, []fleet.Account{envelopes[0].Account, envelopes[1].Account, envelopes[2].Account, envelopes[3].Account}, []fleet.Account{acct, other, acct, other})
	begun := &Transfer{From: acct, To: other, Message: "as agreed", Began: start}
	for _, account := range []fleet.Account{acct, other} {
		got := r.in(t, account, c.ID)
		wantEqual(t, got.Status, StatusPendingTransfer)
		wantEqual(t, got.Owner, acct)
		wantEqual(t, got.Transfer, begun)
	}
	out := must[Listed[Certificate]](t)(r.ListOutgoingCertificates(t.Context(), acct, true, Page{}))
	wantEqual(t, len(out.Items), 1)
	wantEqual(t, out.Items[0].Transfer, begun)
	wantEqual(t, len(must[Listed[Certificate]](t)(r.ListOutgoingCertificates(t.Context(), other, true, Page{})).Items), 0)

	r.pass(60e9)
	mark = len(r.store.log())
	ok(t, r.AcceptCertificateTransfer(t.Context(), other, c.ID, true))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.CertificateDeleted{CertificateID: c.ID},
		moves(event.CertificateTransferAccepted), moves(event.CertificateTransferAccepted),
		event.CertificateStatusChanged{CertificateID: c.ID, Status: StatusActive, PreviousStatus: StatusPendingTransfer},
	})
	got := r.in(t, other, c.ID)
	wantEqual(t, []string{got.Status, string(got.Owner), string(got.PreviousOwner), got.CA, got.Mode}, []string{StatusActive, string(other), string(acct), ca.id(), ModeDefault})
	wantEqual(t, got.Transfer.Accepted, start.Add(60e9))
	_, err := r.DescribeCertificate(t.Context(), acct, c.ID)
	wantCode(t, err, fault.ResourceNotFound)
	for _, err := range []error{
		r.CancelCertificateTransfer(t.Context(), acct, c.ID),
		r.AcceptCertificateTransfer(t.Context(), other, c.ID, true),
		r.RejectCertificateTransfer(t.Context(), other, c.ID, ""),
	} {
		wantCode(t, err, fault.TransferAlreadyCompleted)
	}
	// It may go back, and nothing is left behind in the end.
	ok(t, r.UpdateCertificate(t.Context(), other, c.ID, StatusInactive))
	must[string](t)(r.TransferCertificate(t.Context(), other, c.ID, acct, ""))
	ok(t, r.AcceptCertificateTransfer(t.Context(), acct, c.ID, false))
	wantEqual(t, r.in(t, acct, c.ID).PreviousOwner, other)
	ok(t, r.DeleteCertificate(t.Context(), acct, c.ID, false))
	for _, k := range r.store.left() {
		if strings.Contains(k, c.ID) && k != "certificate-gone/"+string(other)+"/"+c.ID {
			t.Errorf("%s is left", k)
		}
	}
}

func TestRejectAndCancel(t *testing.T) {
	t.Parallel()
	r := twoAccounts(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	rejected, cancelled := r.idle(t, ca), r.idle(t, ca)
	r.offerTo(t, rejected.ID)
	r.offerTo(t, cancelled.ID)
	// Each end has its own way out.
	wantCode(t, r.AcceptCertificateTransfer(t.Context(), acct, rejected.ID, true), fault.InvalidRequest)
	wantCode(t, r.RejectCertificateTransfer(t.Context(), acct, rejected.ID, ""), fault.InvalidRequest)
	wantCode(t, r.CancelCertificateTransfer(t.Context(), other, rejected.ID), fault.InvalidRequest)
	wantCode(t, r.RejectCertificateTransfer(t.Context(), other, rejected.ID, strings.Repeat("é", 129)), fault.InvalidRequest)
	ok(t, r.RejectCertificateTransfer(t.Context(), other, rejected.ID, "not ours"))
	ok(t, r.CancelCertificateTransfer(t.Context(), acct, cancelled.ID))
	got := r.in(t, acct, rejected.ID)
	wantEqual(t, got.Status, StatusInactive)
	wantEqual(t, got.Transfer, &Transfer{From: acct, To: other, Message: "as agreed", Reason: "not ours", Began: start, Rejected: start})
	wantEqual(t, r.in(t, acct, cancelled.ID).Status, StatusInactive)
	for _, id := range []string{rejected.ID, cancelled.ID} {
		_, err := r.DescribeCertificate(t.Context(), other, id)
		wantCode(t, err, fault.ResourceNotFound)
		wantCode(t, r.CancelCertificateTransfer(t.Context(), acct, id), fault.TransferAlreadyCompleted)
		wantCode(t, r.AcceptCertificateTransfer(t.Context(), other, id, true), fault.ResourceNotFound)
	}
	wantEqual(t, len(must[Listed[Certificate]](t)(r.ListOutgoingCertificates(t.Context(), acct, false, Page{})).Items), 0)
	wantEqual(t, len(must[Listed[Certificate]](t)(r.ListCertificates(t.Context(), other, false, Page{})).Items), 0)
	// An offer that is over can be made again.
	r.offerTo(t, rejected.ID)
	ok(t, r.AcceptCertificateTransfer(t.Context(), other, rejected.ID, false))
}

func TestTransferRefuses(t *testing.T) {
	t.Parallel()
	r := twoAccounts(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	r.addThing(t, "T")
	r.addPolicy(t, "P")
	try := func(id string, to fleet.Account, message string) error {
		_, err := r.TransferCertificate(t.Context(), acct, id, to, message)
		return err
	}
	active := r.registerUnder(t, ca, "active")
	withPolicy, withThing, revoked, twin := r.idle(t, ca), r.idle(t, ca), r.idle(t, ca), r.idle(t, ca)
	ok(t, r.AttachPolicy(t.Context(), acct, "P", withPolicy.ARN))
	ok(t, r.AttachThingPrincipal(t.Context(), acct, "T", withThing.ARN, ""))
	ok(t, r.UpdateCertificate(t.Context(), acct, revoked.ID, StatusRevoked))
	must[Certificate](t)(r.RegisterCertificateWithoutCA(t.Context(), other, twin.PEM, ""))
	idle := r.idle(t, ca)
	for name, c := range map[string]struct {
		err  error
		code fault.Code
	}{
		"active":       {try(active.ID, other, ""), fault.CertificateState},
		"policy":       {try(withPolicy.ID, other, ""), fault.TransferConflict},
		"thing":        {try(withThing.ID, other, ""), fault.TransferConflict},
		"revoked":      {try(revoked.ID, other, ""), fault.CertificateState},
		"twin":         {try(twin.ID, other, ""), fault.TransferConflict},
		"self":         {try(idle.ID, acct, ""), fault.InvalidRequest},
		"nobody":       {try(idle.ID, "000000000009", ""), fault.InvalidRequest},
		"no account":   {try(idle.ID, "9", ""), fault.InvalidRequest},
		"long message": {try(idle.ID, other, strings.Repeat("x", 129)), fault.InvalidRequest},
		"unknown":      {try(strings.Repeat("0", 64), other, ""), fault.ResourceNotFound},
		"no id":        {try("x", other, ""), fault.InvalidRequest},
		"no transfer":  {r.CancelCertificateTransfer(t.Context(), acct, idle.ID), fault.InvalidRequest},
	} {
		if fault.CodeOf(c.err) != c.code {
			t.Errorf("%s: %v, want %s", name, c.err, c.code)
		}
	}
}

// What is on its way is used by nobody.
func TestPendingTransferTakesNothing(t *testing.T) {
	t.Parallel()
	r := twoAccounts(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	c := r.idle(t, ca)
	for _, account := range []fleet.Account{acct, other} {
		must[Thing](t)(r.CreateThing(t.Context(), account, CreateThingCommand{Name: "T"}))
		must[Policy](t)(r.CreatePolicy(t.Context(), account, "P", "{}"))
	}
	r.offerTo(t, c.ID)
	for _, account := range []fleet.Account{acct, other} {
		arn := r.in(t, account, c.ID).ARN
		wantCode(t, r.AttachPolicy(t.Context(), account, "P", arn), fault.InvalidRequest)
		wantCode(t, r.AttachThingPrincipal(t.Context(), account, "T", arn, ""), fault.InvalidRequest)
		wantCode(t, r.UpdateCertificate(t.Context(), account, c.ID, StatusActive), fault.CertificateState)
		wantCode(t, r.DeleteCertificate(t.Context(), account, c.ID, true), fault.CertificateState)
		wantCode(t, r.UpdateCertificate(t.Context(), account, c.ID, StatusPendingTransfer), fault.InvalidRequest)
		_, err := r.TransferCertificate(t.Context(), account, c.ID, otherThan(account), "")
		wantCode(t, err, fault.CertificateState)
	}
}

func otherThan(account fleet.Account) fleet.Account {
	if account == acct {
		return other
	}
	return acct
}

// Of those who end a transfer at the same time one succeeds, and the
// certificate is in one account then.
func TestTransferIsEndedOnce(t *testing.T) {
	t.Parallel()
	r := twoAccounts(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	for range 20 {
		c := r.idle(t, ca)
		r.offerTo(t, c.ID)
		ends := []func() error{
			func() error { return r.AcceptCertificateTransfer(t.Context(), other, c.ID, true) },
			func() error { return r.RejectCertificateTransfer(t.Context(), other, c.ID, "") },
			func() error { return r.CancelCertificateTransfer(t.Context(), acct, c.ID) },
		}
		errs := make([]error, len(ends))
		var wait sync.WaitGroup
		for i, end := range ends {
			wait.Go(func() { errs[i] = end() })
		}
		wait.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if code := fault.CodeOf(err); code != fault.TransferAlreadyCompleted && code != fault.ResourceNotFound {
				t.Error(err)
			}
		}
		_, here := r.DescribeCertificate(t.Context(), acct, c.ID)
		_, there := r.DescribeCertificate(t.Context(), other, c.ID)
		if won != 1 || (here == nil) == (there == nil) {
			t.Fatalf("%d succeeded (%v); here %v, there %v", won, errors.Join(errs...), here, there)
		}
	}
}
