package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// chain is one account's trail in a batch.
type chain struct {
	head    Head
	version uint64
}

// Apply is the log's durable consumer: it turns events into the next records of
// their accounts' chains. The runner commits them with its cursor, so that each
// event becomes a record once.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	var b store.Batch
	chains := map[fleet.Account]*chain{}
	n := 0
	for i := range events {
		record, ok, err := s.recordOf(&events[i])
		if err != nil {
			return store.Batch{}, err
		}
		if !ok {
			continue
		}
		if err := s.add(ctx, &b, chains, record); err != nil {
			return store.Batch{}, err
		}
		n++
	}
	if err := s.closeChains(&b, chains); err != nil {
		return store.Batch{}, err
	}
	s.records.Add(float64(n))
	return b, nil
}

// add makes a record the next of its chain.
func (s *Service) add(ctx context.Context, b *store.Batch, chains map[fleet.Account]*chain, r *Record) error {
	account := fleet.Account(r.RecipientAccountID)
	c := chains[account]
	if c == nil {
		var err error
		if c, err = s.open(ctx, b, chains, account); err != nil {
			return err
		}
	}
	r.Seq, r.PrevHash = c.head.Seq+1, c.head.Hash
	line, hash, err := r.line()
	if err != nil {
		return err
	}
	c.head.Seq, c.head.Hash = r.Seq, hash
	// Nothing that is there is ever written over.
	b.Expect = append(b.Expect, store.Expect{Key: recordKey(account, r.Seq)})
	b.Writes = append(b.Writes, store.Write{Key: recordKey(account, r.Seq), Value: line})
	for _, row := range r.rows() {
		b.Writes = append(b.Writes, store.Write{Key: row, Value: []byte(plainRow)})
	}
	return nil
}

// closeChains signs the new ends.
func (s *Service) closeChains(b *store.Batch, chains map[fleet.Account]*chain) error {
	for account, c := range chains {
		head, err := sign(s.key, c.head, s.o.Now())
		if err != nil {
			return err
		}
		value, err := head.encode()
		if err != nil {
			return err
		}
		b.Expect = append(b.Expect, store.Expect{Key: headKey(account), Version: c.version})
		b.Writes = append(b.Writes, store.Write{Key: headKey(account), Value: value})
	}
	return nil
}

// Rebuild carries on when the log was trimmed past the trail. What was lost
// cannot be known any more; that something was, is a record of its own in every
// trail.
func (s *Service) Rebuild(ctx context.Context) (store.Cursor, error) {
	cursor, err := s.store.Oldest(ctx)
	if err != nil {
		return cursor, fmt.Errorf("rebuild the audit trail: %w", err)
	}
	accounts, err := s.Accounts(ctx)
	if err != nil || len(accounts) == 0 {
		// A trail that begins now has lost nothing.
		return cursor, err
	}
	s.o.Logger.ErrorContext(ctx, "audit trail has a gap: events were trimmed before they were recorded", slog.String("up_to", cursor.String()))
	var b store.Batch
	chains := map[fleet.Account]*chain{}
	for _, account := range accounts {
		gap := serviceEvent("AuditTrailGap", map[string]any{"eventsTrimmedUpTo": cursor.String()})
		record, _, err := s.recordOf(&event.Envelope{Account: account, At: s.o.Now(), Actor: fleet.System, Event: gap})
		if err != nil {
			return cursor, err
		}
		if err := s.add(ctx, &b, chains, record); err != nil {
			return cursor, err
		}
	}
	if err := s.closeChains(&b, chains); err != nil {
		return cursor, err
	}
	if _, err := s.store.Commit(ctx, b); err != nil {
		return cursor, fmt.Errorf("record a gap in the audit trail: %w", err)
	}
	return cursor, nil
}

// recordOf turns an event into a record without a place, or says that it is none.
func (s *Service) recordOf(env *event.Envelope) (*Record, bool, error) {
	r := &Record{
		Schema: schema, EventVersion: eventVersion, EventTime: env.At.UTC().Format(timeLayout),
		EventCategory: "Management", ManagementEvent: true,
		AWSRegion: s.o.Region, RecipientAccountID: string(env.Account),
		SourceIPAddress: env.Actor.SourceAddress, RequestID: env.Actor.RequestID,
	}
	switch e := env.Event.(type) {
	case event.APICalled:
		s.called(r, env, &e)
	case event.ConfigurationChanged:
		details := make(map[string]any, len(e.Settings))
		for name, value := range e.Settings {
			details[name] = value
		}
		r.service(env, "ConfigurationChanged", details)
	default:
		elsewhere := fromElsewhere(env)
		if elsewhere == "" && !unasked(env) {
			return nil, false, nil
		}
		encoded, err := json.Marshal(e)
		if err != nil {
			return nil, false, fmt.Errorf("encode the event of a record: %w", err)
		}
		var details map[string]any
		if err := json.Unmarshal(encoded, &details); err != nil {
			return nil, false, fmt.Errorf("encode the event of a record: %w", err)
		}
		r.service(env, event.TypeName(e), details)
		r.resources(resourcesOf(fleet.Scope{Region: s.o.Region, Account: env.Account}, []event.Envelope{*env}))
		if elsewhere != "" {
			r.anonymize(elsewhere)
		}
	}
	if r.EventID == "" {
		// The place in the log is the event's own and stays the same.
		r.EventID = fmt.Sprintf("%08x-0000-4000-8000-%012x", env.Partition, env.Seq)
	}
	return r, true, nil
}

// called fills in a call.
func (s *Service) called(r *Record, env *event.Envelope, e *event.APICalled) {
	r.EventID, r.EventSource, r.EventName, r.EventType = e.ID, e.Source, e.Name, e.Kind
	if r.EventType == "" {
		r.EventType = event.CallAPI
	}
	r.ReadOnly, r.UserAgent = e.ReadOnly, e.UserAgent
	if e.DataEvent {
		r.EventCategory, r.ManagementEvent = "Data", false
	}
	r.UserIdentity = identity(env.Account, env.Actor, e.SessionBegan)
	if len(e.Parameters) > 0 && string(e.Parameters) != "null" {
		r.RequestParameters = e.Parameters
		if r.EventType == event.CallService {
			r.RequestParameters, r.ServiceEventDetails = nil, e.Parameters
		}
	}
	r.ErrorCode, r.ErrorMessage = e.ErrorCode, e.ErrorMessage
	r.resources(e.Resources)
	if e.TLSVersion != "" {
		r.TLSDetails = &TLSDetails{TLSVersion: e.TLSVersion, CipherSuite: e.CipherSuite, ClientProvidedHostHeader: e.ServerName}
	}
	if e.Suppressed > 0 || env.Actor.ClientID != "" {
		r.AdditionalEventData = &Additional{SuppressedCalls: e.Suppressed, ClientID: env.Actor.ClientID}
	}
}

// service fills in what happened without a call.
func (r *Record) service(env *event.Envelope, name string, details map[string]any) {
	r.EventSource, r.EventName, r.EventType = serviceSource, name, event.CallService
	r.UserIdentity = identity(env.Account, env.Actor, env.At)
	r.UserIdentity.InvokedBy = invokedBy
	if r.UserIdentity.SessionContext != nil {
		r.UserIdentity.SessionContext.Attributes = nil
	}
	r.ServiceEventDetails = Parameters(details)
	if env.Actor.ClientID != "" {
		r.AdditionalEventData = &Additional{ClientID: env.Actor.ClientID}
	}
}

// anonymize leaves of who acted no more than the account: the call has its record
// in the trail of that account, and what its operators are called and where they
// sit is not for others.
func (r *Record) anonymize(actor fleet.Account) {
	r.UserIdentity = UserIdentity{Type: identityAccount, AccountID: string(actor), InvokedBy: invokedBy}
	r.SourceIPAddress, r.RequestID, r.AdditionalEventData = "", "", nil
}

// resources names what a record is about.
func (r *Record) resources(arns []string) {
	for _, arn := range arns {
		r.Resources = append(r.Resources, Resource{ARN: arn, Type: resourceType(arn)})
	}
}

// serviceSource is the source of what no request asked for.
const serviceSource = "muster"

// serviceEvent is an act of the server itself.
func serviceEvent(name string, details map[string]any) event.APICalled {
	return event.APICalled{Kind: event.CallService, Source: serviceSource, Name: name, Parameters: Parameters(details)}
}

// fromElsewhere is the account from which a call changed something of the event's
// account, "" for none: a transfer that the other side steps on, an account that
// the default one closes. The call itself is recorded there alone.
func fromElsewhere(env *event.Envelope) fleet.Account {
	switch env.Event.(type) {
	case event.CertificateTransferChanged, event.AccountChanged:
		if of := accountOf(env.Actor.Principal.ARN); of != env.Account {
			return of
		}
	default:
	}
	return ""
}

// accountOf is the account part of an ARN, "" when there is none.
func accountOf(arn string) fleet.Account {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 {
		return ""
	}
	return fleet.Account(parts[4])
}

// unasked reports whether an event is about credentials or operators, about how
// devices join, or about the course of a task, and no recorded call is behind it: a device registered a
// certificate, an operator used a tool on the host, an edit came to its end.
func unasked(env *event.Envelope) bool {
	if env.Actor.RequestID != "" {
		return false
	}
	switch env.Event.(type) {
	case event.CertificateCreated, event.CertificateStatusChanged, event.CertificateDeleted,
		event.CACertificateChanged, event.RegistrationCodeChanged, event.RevocationListImported, event.CertificateTransferChanged,
		event.PolicyChanged, event.PolicyAttached, event.PolicyDetached, event.AuthorizerChanged,
		event.OperatorChanged, event.AccountChanged, event.BulkEditChanged,
		event.ProvisioningTemplateChanged, event.DeviceProvisioned, event.ProvisioningRefused, event.CertificateAutoRegistered,
		event.ProvisioningClaimCreated, event.RegistrationTaskChanged, event.CertificateProviderChanged, event.CertificateRenewalChanged,
		event.ApprovalChanged, event.ApprovalAuthorityChanged, event.ApprovalBindingChanged,
		event.ProvisioningPlanChanged, event.OnboardingChanged, event.OnboardingCriteriaFailed,
		event.ClaimMisused, event.ClaimMisuseSettled,
		event.SupplierChanged, event.AllowListChanged, event.AllowListRead, event.AllowListEntryChanged, event.DuplicateSerial,
		event.RogueDevice, event.LedgerAnchored,
		event.PromiseSettled,
		event.CertificatePurposeChanged, event.BirthCertificateChanged, event.BirthCertificateMisused, event.ThingQuarantined, event.ThingReleased,
		event.BootstrapAssignmentChanged, event.BootstrapAnswered, event.BootstrapRefused:
		return true
	default:
		// Devices and the server itself change the rest all the time.
		return false
	}
}
