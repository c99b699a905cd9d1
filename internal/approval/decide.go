package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/store"
)

var _ provisioning.Gate = (*Service)(nil)

// Decide implements provisioning.Gate.
func (s *Service) Decide(ctx context.Context, c provisioning.Candidate) (provisioning.Pass, error) {
	pass, err := s.decide(ctx, c)
	switch {
	case err == nil:
		s.decisions.WithLabelValues("passed").Inc()
	case errors.Is(err, provisioning.ErrPending):
		s.decisions.WithLabelValues("waits").Inc()
	case fault.CodeOf(err) == fault.Forbidden:
		s.decisions.WithLabelValues("refused").Inc()
	default:
		s.decisions.WithLabelValues("failed").Inc()
	}
	return pass, err
}

func (s *Service) decide(ctx context.Context, c provisioning.Candidate) (provisioning.Pass, error) {
	binding, err := s.bound(ctx, &c)
	if err != nil {
		return provisioning.Pass{}, err
	}
	if binding.version == 0 {
		// Of one that is registered only, who activates it decides.
		if err := s.unbound(binding.target); err != nil && c.Method != event.ProvisioningJITR {
			return provisioning.Pass{}, err
		}
		return provisioning.Pass{Join: func(ctx context.Context) (store.Batch, error) {
			b := &batch{reader: s.o.Store}
			err := s.stillUnbound(ctx, b, c.Account, binding.unbound)
			return b.Batch, err
		}}, nil
	}
	if err := s.admissible(&binding, &c); err != nil {
		return provisioning.Pass{}, err
	}
	var of ofRecord
	if _, err := read(ctx, s.o.Store, ofKey(c.Account, c.CertificateID, binding.target), &of); err != nil {
		return provisioning.Pass{}, err
	}
	if of.ID != "" {
		earlier, err := s.Request(ctx, c.Account, of.ID)
		if err != nil && fault.CodeOf(err) != fault.ResourceNotFound {
			return provisioning.Pass{}, err
		}
		if err == nil {
			if pass, decided, err := s.remembered(ctx, &binding, &c, &earlier); decided || err != nil {
				return pass, err
			}
		}
	}
	return s.ask(ctx, &binding, &c)
}

// bound is the binding that decides about a device: its template's, else that of the
// authority that its certificate comes under. It has no version when there is none.
func (s *Service) bound(ctx context.Context, c *provisioning.Candidate) (binding bindingRecord, err error) {
	var targets []string
	if c.Template != "" {
		targets = append(targets, c.Template)
	}
	if c.CA != "" {
		targets = append(targets, CATarget+c.CA)
	}
	for _, target := range targets {
		if binding.version, err = read(ctx, s.o.Store, bindingKey(c.Account, target), &binding); err != nil || binding.version != 0 {
			binding.target = target
			return binding, err
		}
		binding.unbound = append(binding.unbound, target)
	}
	if len(targets) > 0 {
		binding.target = targets[0]
	}
	return binding, nil
}

// stillUnbound adds to a batch that targets have no binding, and refuses when one has.
func (*Service) stillUnbound(ctx context.Context, b *batch, account fleet.Account, targets []string) error {
	for _, target := range targets {
		var r bindingRecord
		found, err := b.load(ctx, bindingKey(account, target), &r)
		if err != nil {
			return err
		}
		if found {
			return overtaken(target)
		}
	}
	return nil
}

// overtaken is the fault for a device about which others decide by the time of the commit.
func overtaken(target string) error {
	return fault.New(fault.Throttling, "Others decide about the devices of %s now; try again", named(target))
}

// named is what a binding is of, in words.
func named(target string) string {
	if id, ok := strings.CutPrefix(target, CATarget); ok {
		return "CA certificate " + id
	}
	return "template " + target
}

// refusal is the fault for a device that may not join.
func refusal(format string, args ...any) error {
	return fault.New(fault.Forbidden, format, args...)
}

// unwanted is the fault for a device that somebody says no to; the device is not told why.
func unwanted(why string) error {
	return fault.Wrap(fault.Forbidden, errors.New(why), "The authorities do not let the device in")
}

// admissible refuses what no authority can let in.
func (s *Service) admissible(binding *bindingRecord, c *provisioning.Candidate) error {
	if len(binding.Claims) > 0 && !slices.Contains(binding.Claims, c.ClaimID) {
		return provisioning.Misused(event.ClaimOtherTemplate, "the claim is not one of those that %s is bound to", named(binding.target))
	}
	if len(binding.Networks) > 0 && !within(binding.Networks, c.Address) {
		return provisioning.Misused(event.ClaimOtherNetwork, "devices of %s do not come from this network", named(binding.target))
	}
	if binding.From != binding.Until {
		now := s.o.Now().UTC()
		minute := now.Hour()*60 + now.Minute()
		inside := minute >= binding.From && minute < binding.Until
		if binding.Until < binding.From {
			inside = minute >= binding.From || minute < binding.Until
		}
		if !inside {
			return provisioning.Misused(event.ClaimAtOtherTime, "devices of %s do not join at this time of the day", named(binding.target))
		}
	}
	return nil
}

// within reports whether an address, with or without port, is in a network.
func within(networks []string, address string) bool {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(networks, func(text string) bool {
		network, err := netip.ParsePrefix(text)
		return err == nil && network.Contains(ip.Unmap())
	})
}

// remembered goes by an earlier request of the same certificate; decided is false
// when it says nothing any more.
func (s *Service) remembered(
	ctx context.Context, binding *bindingRecord, c *provisioning.Candidate, r *Request,
) (pass provisioning.Pass, decided bool, err error) {
	if !s.o.Now().Before(r.Expires) || r.State == Expired || r.State == Used || r.Version != c.Version {
		return pass, false, nil
	}
	if r.Thing != c.Thing || !maps.Equal(r.Parameters, c.Parameters) {
		// Nobody has said yes to this one, and it is not asked about beside the other.
		return pass, true, refusal("request %s of the certificate is about another thing or other parameters", r.ID)
	}
	switch r.State {
	case Pending:
		return pass, true, provisioning.Waits(r.ID)
	case Approved:
		// What was enough for an earlier binding may not be for this one, which is asked
		// anew then.
		if enough, err := s.enough(ctx, binding, c, r); err != nil || !enough {
			return pass, false, err
		}
		return s.pass(binding, c, r.ID, r.Lists, evidence(binding, r.Lists, r.Votes, r.ID)), true, nil
	case Denied:
		return pass, true, refusal("request %s was denied", r.ID)
	case Expired, Used:
	}
	return pass, false, nil
}

// enough reports whether the votes of a request let its device in by a binding.
func (s *Service) enough(ctx context.Context, binding *bindingRecord, c *provisioning.Candidate, r *Request) (bool, error) {
	asked, err := s.asked(ctx, c.Account, binding)
	if err != nil {
		return false, err
	}
	author, err := s.o.Templates.Author(ctx, c.Account, binding.target)
	if err != nil {
		return false, err //nolint:wrapcheck // coded
	}
	return tally(binding, r.Votes, people(asked), author) == Yes, nil
}

// ask collects the verdicts that come at once, and leaves a request when people have
// to speak.
func (s *Service) ask(ctx context.Context, binding *bindingRecord, c *provisioning.Candidate) (provisioning.Pass, error) {
	asked, err := s.asked(ctx, c.Account, binding)
	if err != nil {
		return provisioning.Pass{}, err
	}
	looked, listed, err := s.lookUp(ctx, asked, c)
	if err != nil {
		return provisioning.Pass{}, err
	}
	request := Request{
		ID: "apr_" + s.o.NewID(), Template: binding.target, Version: c.Version, Method: string(c.Method), CertificateID: c.CertificateID, ClaimID: c.ClaimID, ClientID: c.ClientID,
		Address: c.Address, Thing: c.Thing, Parameters: c.Parameters, Received: s.o.Now(), Lists: listed,
	}
	request.Expires = request.Received.Add(time.Duration(binding.Patience) * time.Millisecond)
	author, err := s.o.Templates.Author(ctx, c.Account, binding.target)
	if err != nil {
		return provisioning.Pass{}, err //nolint:wrapcheck // coded
	}
	request.Votes = append([]Vote{}, looked...)
	// Functions are not asked about a device that lists have refused whatever they say, and
	// no query lets it in: a list is a check and nobody's word.
	refused := tally(binding, request.Votes, notLists(asked), author) == No
	if !refused && binding.AutoIf != "" && holds(binding.AutoIf, c, listed) {
		rule := event.ProvisioningEvidence{Kind: event.EvidenceRule, Ref: named(binding.target), Detail: "its rule lets the device in unasked"}
		return s.pass(binding, c, "", listed, append(evidence(binding, listed, nil, ""), rule)), nil
	}
	if !refused {
		verdicts, err := s.verdicts(ctx, asked, c, &request)
		if err != nil {
			return provisioning.Pass{}, err
		}
		request.Votes = append(request.Votes, verdicts...)
	}
	switch tally(binding, request.Votes, people(asked), author) {
	case Yes:
		return s.pass(binding, c, "", listed, evidence(binding, listed, request.Votes, "")), nil
	case No:
		return provisioning.Pass{}, unwanted(reasons(request.Votes))
	case Abstain:
	}
	if err := s.wait(ctx, c, &request); err != nil {
		return provisioning.Pass{}, err
	}
	return provisioning.Pass{}, provisioning.Waits(request.ID)
}

// reasons are the words of those who did not say yes; the device is not told.
func reasons(votes []Vote) string {
	var words []string
	for _, v := range votes {
		if v.Verdict != Yes {
			words = append(words, fmt.Sprintf("%s: %s %s", v.Authority, v.Verdict, v.Reason))
		}
	}
	return strings.Join(words, "; ")
}

// approvers names the authorities that said yes, and who spoke for them.
func approvers(votes []Vote) string {
	var who []string
	for _, v := range votes {
		switch {
		case v.Verdict != Yes:
		case v.By == "":
			who = append(who, v.Authority)
		default:
			who = append(who, v.Authority+" by "+v.By)
		}
	}
	return strings.Join(who, ", ")
}

// evidence is what speaks for a device that is let in: lists that have it, and people
// and functions that said yes, in a request or at once.
func evidence(binding *bindingRecord, listed []Listed, votes []Vote, request string) []event.ProvisioningEvidence {
	var all []event.ProvisioningEvidence
	lists := map[string]bool{}
	for _, l := range listed {
		lists[l.Authority] = true
		all = append(all, event.ProvisioningEvidence{
			Kind: event.EvidenceList, Ref: fmt.Sprintf("revision %d of allow list %s", l.Revision, l.List), Detail: "found by " + strings.ToLower(string(l.Match)),
		})
	}
	others := slices.DeleteFunc(slices.Clone(votes), func(v Vote) bool { return lists[v.Authority] })
	if who := approvers(others); who != "" {
		ref := named(binding.target)
		if request != "" {
			ref = request
		}
		all = append(all, event.ProvisioningEvidence{Kind: event.EvidenceApproval, Ref: ref, Detail: who})
	}
	return all
}

// wait keeps a request, and its certificate for as long. A certificate that is not
// registered until somebody has decided does not wait.
func (s *Service) wait(ctx context.Context, c *provisioning.Candidate, r *Request) error {
	keep := func(b *batch) error {
		var of ofRecord
		if _, err := b.load(ctx, ofKey(c.Account, c.CertificateID, r.Template), &of); err != nil {
			return err
		}
		b.move(c.Account, r, Pending)
		if err := b.save(c.Account, r, nil); err != nil {
			return err
		}
		return b.put(ofKey(c.Account, c.CertificateID, r.Template), ofRecord{Schema: schemaVersion, ID: r.ID})
	}
	if c.Method == event.ProvisioningJITR {
		return s.change(ctx, c.Account, keep)
	}
	b := &batch{reader: s.o.Store}
	if err := keep(b); err != nil {
		return err
	}
	return s.o.Certificates.Prolong(ctx, c.Account, c.CertificateID, r.Expires, b.Batch) //nolint:wrapcheck // coded
}

// pass lets a device in: its place in the day's quota is taken, and its request used
// up, in the commit of the registration, and so is its entry in lists.
func (s *Service) pass(
	binding *bindingRecord, c *provisioning.Candidate, request string, listed []Listed, why []event.ProvisioningEvidence,
) provisioning.Pass {
	return provisioning.Pass{Evidence: why, Join: func(ctx context.Context) (store.Batch, error) {
		b := &batch{reader: s.o.Store}
		var now bindingRecord
		if _, err := b.load(ctx, bindingKey(c.Account, binding.target), &now); err != nil {
			return store.Batch{}, err
		}
		if b.Expect[0].Version != binding.version {
			return store.Batch{}, overtaken(binding.target)
		}
		if err := s.stillUnbound(ctx, b, c.Account, binding.unbound); err != nil {
			return store.Batch{}, err
		}
		if binding.Quota > 0 {
			k := quotaKey(c.Account, binding.target, s.o.Now())
			var quota quotaRecord
			if _, err := b.load(ctx, k, &quota); err != nil {
				return store.Batch{}, err
			}
			if quota.Joined >= binding.Quota {
				return store.Batch{}, provisioning.Misused(event.ClaimOverQuota, "%d devices of %s have joined today, the most allowed", quota.Joined, named(binding.target))
			}
			if err := b.put(k, quotaRecord{Schema: schemaVersion, Joined: quota.Joined + 1}); err != nil {
				return store.Batch{}, err
			}
		}
		if err := s.claim(ctx, b, c, listed); err != nil || request == "" {
			return b.Batch, err
		}
		var r requestRecord
		if _, err := b.load(ctx, requestKey(c.Account, request), &r); err != nil {
			return store.Batch{}, err
		}
		if r.State != Approved {
			return store.Batch{}, refusal("request %s is %s", request, r.State)
		}
		b.move(c.Account, &r.Request, Used)
		return b.Batch, b.save(c.Account, &r.Request, nil)
	}}
}

// holds decides a binding's query about a candidate.
func holds(query string, c *provisioning.Candidate, listed []Listed) bool {
	parsed, err := fleetquery.Parse(query)
	if err != nil {
		return false // it was checked when it was bound
	}
	fields := map[string][]fleetquery.Value{
		"template": {fleetquery.Text(c.Template)}, "method": {fleetquery.Text(string(c.Method))}, "claim": {fleetquery.Text(c.ClaimID)},
		"clientId": {fleetquery.Text(c.ClientID)}, "address": {fleetquery.Text(c.Address)}, "thing": {fleetquery.Text(c.Thing)},
	}
	for _, l := range listed {
		fields["allowList.list"] = append(fields["allowList.list"], fleetquery.Text(l.List))
		fields["allowList.supplier"] = append(fields["allowList.supplier"], fleetquery.Text(l.Supplier))
		fields["allowList.match"] = append(fields["allowList.match"], fleetquery.Text(string(l.Match)))
	}
	for name, value := range c.Parameters {
		fields["parameters."+name] = fleetquery.Attribute(value)
	}
	return fleetquery.Eval(parsed.Root, fleetquery.Document{Fields: fields})
}

// asked are the authorities of a binding.
func (s *Service) asked(ctx context.Context, account fleet.Account, binding *bindingRecord) ([]Authority, error) {
	all := make([]Authority, len(binding.Asked))
	for i, id := range binding.Asked {
		var err error
		if all[i], err = s.Authority(ctx, account, id); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// notLists are the ids of authorities that are no lists.
func notLists(asked []Authority) []string {
	var ids []string
	for _, authority := range asked {
		if !authority.Kind.isList() {
			ids = append(ids, authority.ID)
		}
	}
	return ids
}

// verdicts asks all functions of a binding at once.
func (s *Service) verdicts(ctx context.Context, all []Authority, c *provisioning.Candidate, r *Request) ([]Vote, error) {
	var asked []Authority
	for _, authority := range all {
		if authority.Kind == Webhook {
			asked = append(asked, authority)
		}
	}
	if len(asked) == 0 {
		return []Vote{}, nil
	}
	input, err := json.Marshal(question{
		RequestID: r.ID, State: Pending, Account: c.Account, TemplateName: c.Template, Method: r.Method, CertificateID: c.CertificateID, ClaimCertificateID: c.ClaimID,
		ClientID: c.ClientID, SourceIP: c.Address, ThingName: c.Thing, Parameters: c.Parameters, AllowLists: r.Lists, ReceivedAt: r.Received, ExpiresAt: r.Expires,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the question to authorities: %w", err)
	}
	votes := make([]Vote, len(asked))
	var running sync.WaitGroup
	for i, authority := range asked {
		running.Go(func() { votes[i] = s.verdict(ctx, authority, input) })
	}
	running.Wait()
	return votes, nil
}

// question is what a function is told.
type question struct {
	RequestID          string            `json:"requestId"`
	State              State             `json:"state"`
	Account            fleet.Account     `json:"account"`
	TemplateName       string            `json:"templateName"`
	Method             string            `json:"method"`
	CertificateID      string            `json:"certificateId"`
	ClaimCertificateID string            `json:"claimCertificateId,omitempty"`
	ClientID           string            `json:"clientId,omitempty"`
	SourceIP           string            `json:"sourceIp,omitempty"`
	ThingName          string            `json:"thingName,omitempty"`
	Parameters         map[string]string `json:"parameters"`
	AllowLists         []Listed          `json:"allowLists,omitempty"`
	ReceivedAt         time.Time         `json:"receivedAt"`
	ExpiresAt          time.Time         `json:"expiresAt"`
}

// verdict asks one function. What is no clear answer is no.
func (s *Service) verdict(ctx context.Context, authority Authority, input []byte) Vote {
	vote := Vote{Authority: authority.ID, Verdict: No, At: s.o.Now()}
	answer, err := s.o.Functions.Invoke(ctx, authority.Function, input, AskLimit)
	if err != nil {
		s.o.Logger.WarnContext(ctx, "authority gave no verdict", slog.String("authority", authority.ID), slog.Any("err", err))
		vote.Reason = "it gave no verdict"
		return vote
	}
	var out struct {
		Verdict Verdict `json:"verdict"`
		Reason  string  `json:"reason"`
	}
	if err := json.Unmarshal(answer, &out); err != nil || out.Verdict != Yes && out.Verdict != No && out.Verdict != Abstain {
		s.o.Logger.WarnContext(ctx, "authority gave no verdict", slog.String("authority", authority.ID), slog.Any("err", err))
		vote.Reason = "its answer is no verdict"
		return vote
	}
	vote.Verdict, vote.Reason = out.Verdict, clip(out.Reason)
	return vote
}

// clip bounds what a function says.
func clip(text string) string {
	if len(text) <= maxReason {
		return text
	}
	for i := maxReason; i > 0; i-- {
		if text[i]&0xc0 != 0x80 {
			return text[:i]
		}
	}
	return ""
}
