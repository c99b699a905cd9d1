package approval

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// State is how a request stands.
type State string

// States of a request.
const (
	Pending  State = "PENDING"
	Approved State = "APPROVED"
	Denied   State = "DENIED"
	// Expired waited too long for people, or for its device.
	Expired State = "EXPIRED"
	// Used has let its device in.
	Used State = "USED"
)

// known reports whether it is a state.
func (s State) known() bool {
	return slices.Contains([]State{Pending, Approved, Denied, Expired, Used}, s)
}

// open reports whether a request can still let a device in.
func (s State) open() bool { return s == Pending || s == Approved }

// Verdict is what an authority says.
type Verdict string

// Verdicts.
const (
	Yes Verdict = "APPROVED"
	No  Verdict = "DENIED"
	// Abstain leaves it to others.
	Abstain Verdict = "DEFER"
)

// Vote is an authority's verdict.
type Vote struct {
	Authority string    `json:"authority"`
	Verdict   Verdict   `json:"verdict"`
	By        string    `json:"by,omitempty"`
	At        time.Time `json:"at"`
	Reason    string    `json:"reason,omitempty"`
	// Check says that it is a list's, which is nobody's word.
	Check bool `json:"check,omitempty"`
}

// Request is a device that waits for people, or has waited.
type Request struct {
	ID            string            `json:"id"`
	State         State             `json:"state"`
	Template      string            `json:"template"`
	Version       int64             `json:"version"`
	Method        string            `json:"method"`
	CertificateID string            `json:"certificateId"`
	ClaimID       string            `json:"claimId,omitempty"`
	ClientID      string            `json:"clientId,omitempty"`
	Address       string            `json:"address,omitempty"`
	Thing         string            `json:"thing,omitempty"`
	Parameters    map[string]string `json:"parameters,omitempty"`
	Received      time.Time         `json:"received"`
	Expires       time.Time         `json:"expires"`
	Votes         []Vote            `json:"votes"`
	// Lists is where list authorities have found the device.
	Lists []Listed `json:"lists,omitempty"`
}

// maxReason bounds the words of a vote.
const maxReason = 1024

// Request returns one.
func (s *Service) Request(ctx context.Context, account fleet.Account, id string) (Request, error) {
	var r requestRecord
	version, err := read(ctx, s.o.Store, requestKey(account, id), &r)
	if err == nil && version == 0 {
		err = noRequest(id)
	}
	return r.Request, err
}

func noRequest(id string) error {
	return fault.New(fault.ResourceNotFound, "approval %.64q does not exist", id)
}

// Requests returns a page of those in a state, the newest first, and what the next
// one begins after. An empty template is any.
func (s *Service) Requests(ctx context.Context, account fleet.Account, state State, template, after string, limit int) (page []Request, next string, err error) {
	if !state.known() {
		return nil, "", fault.New(fault.InvalidRequest, "state must be PENDING, APPROVED, DENIED, EXPIRED or USED")
	}
	page = []Request{}
	next, err = s.list(ctx, store.Under(kindState, string(account), string(state)), after, limit, func(row store.Record) (bool, error) {
		found, err := s.Request(ctx, account, row.Key.Last())
		if fault.CodeOf(err) == fault.ResourceNotFound || err == nil && (found.State != state || template != "" && found.Template != template) {
			return false, nil
		}
		if err == nil {
			page = append(page, found)
		}
		return true, err
	})
	return page, next, err
}

// move gives a request another state.
func (b *batch) move(account fleet.Account, r *Request, to State) {
	if r.State != "" {
		b.remove(stateKey(account, r))
	}
	b.remove(endKey(account, r))
	r.State = to
	b.row(stateKey(account, r))
	if to.open() {
		b.row(endKey(account, r))
	}
}

// save writes a request and reports it.
func (b *batch) save(account fleet.Account, r *Request, vote *Vote) error {
	e := event.ApprovalChanged{Request: r.ID, State: string(r.State), Template: r.Template, CertificateID: r.CertificateID, Thing: r.Thing}
	if vote != nil {
		e.Authority, e.Verdict, e.Reason = vote.Authority, string(vote.Verdict), vote.Reason
	}
	b.emit(e)
	return b.put(requestKey(account, r.ID), requestRecord{Schema: schemaVersion, Request: *r})
}

// VoteCommand is what a person says about a request.
type VoteCommand struct {
	ID string
	// Authority is for which of the caller's groups it votes; empty when it is in one
	// only that is asked.
	Authority string
	Verdict   Verdict
	Reason    string
}

// Vote takes a person's verdict. It may be changed or withdrawn (Abstain) while the
// request is PENDING; the last word of an authority counts. Who has made or last
// changed the template cannot be the only one who says yes.
func (s *Service) Vote(ctx context.Context, account fleet.Account, c VoteCommand) (Request, error) {
	switch {
	case c.Verdict != Yes && c.Verdict != No && c.Verdict != Abstain:
		return Request{}, fault.New(fault.InvalidRequest, "verdict must be %s, %s or %s", Yes, No, Abstain)
	case utf8.RuneCountInString(c.Reason) > maxReason || !utf8.ValidString(c.Reason):
		return Request{}, fault.New(fault.InvalidRequest, "reason must have at most %d characters", maxReason)
	case c.Verdict == No && strings.TrimSpace(c.Reason) == "":
		return Request{}, fault.New(fault.InvalidRequest, "reason must say why a device is denied")
	}
	who := fleet.ActorFrom(ctx).Principal
	var out Request
	err := s.change(ctx, account, func(b *batch) error {
		var r requestRecord
		if found, err := b.load(ctx, requestKey(account, c.ID), &r); err != nil || !found {
			if err == nil {
				err = noRequest(c.ID)
			}
			return err
		}
		if r.State != Pending {
			return fault.New(fault.InvalidRequest, "approval %s is %s: nothing is decided about it any more", c.ID, r.State)
		}
		if !s.o.Now().Before(r.Expires) {
			return fault.New(fault.InvalidRequest, "approval %s has waited too long", c.ID)
		}
		var binding bindingRecord
		found, err := b.load(ctx, bindingKey(account, r.Template), &binding)
		if err != nil {
			return err
		}
		if !found {
			return fault.New(fault.InvalidRequest, "%s has no binding any more: nobody decides about its devices", named(r.Template))
		}
		asked, err := s.asked(ctx, account, &binding)
		if err != nil {
			return err
		}
		authority, err := s.votesFor(ctx, account, asked, c.Authority, who)
		if err != nil {
			return err
		}
		for _, listed := range r.Lists {
			if who.ARN != "" && listed.UploadedBy == who.ARN {
				return fault.New(fault.Forbidden, "you have uploaded revision %d of allow list %s, which has the device: others decide", listed.Revision, listed.List)
			}
		}
		vote := Vote{Authority: authority, Verdict: c.Verdict, By: who.ARN, At: s.o.Now(), Reason: c.Reason}
		r.Votes = slices.DeleteFunc(r.Votes, func(v Vote) bool { return v.Authority == authority })
		r.Votes = append(r.Votes, vote)
		author, err := s.o.Templates.Author(ctx, account, r.Template)
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		switch tally(&binding, r.Votes, people(asked), author) {
		case Yes:
			b.move(account, &r.Request, Approved)
		case No:
			b.move(account, &r.Request, Denied)
		case Abstain:
		}
		out = r.Request
		return b.save(account, &r.Request, &vote)
	})
	if err == nil && out.State != Pending {
		s.decisions.WithLabelValues(strings.ToLower(string(out.State))).Inc()
	}
	return out, err
}

// votesFor finds the authority that a person speaks for.
func (s *Service) votesFor(ctx context.Context, account fleet.Account, asked []Authority, wanted string, who fleet.Principal) (string, error) {
	var mine []string
	for _, authority := range asked {
		if authority.Kind != UserGroup {
			continue
		}
		member, err := s.o.People.IsMember(ctx, account, authority.Group, who)
		if err != nil {
			return "", err //nolint:wrapcheck // coded
		}
		if member {
			mine = append(mine, authority.ID)
		}
	}
	switch {
	case wanted != "" && slices.Contains(mine, wanted):
		return wanted, nil
	case wanted != "":
		return "", fault.New(fault.Forbidden, "you are in no user group that speaks for authority %.64q of this binding", wanted)
	case len(mine) == 0:
		return "", fault.New(fault.Forbidden, "you are in no user group that is asked about this template")
	case len(mine) > 1:
		return "", fault.New(fault.InvalidRequest, "authority must be one of %s: you are in the groups of all of them", strings.Join(mine, ", "))
	}
	return mine[0], nil
}

// people are the authorities that people speak for.
func people(asked []Authority) []string {
	var all []string
	for _, authority := range asked {
		if authority.Kind == UserGroup {
			all = append(all, authority.ID)
		}
	}
	return all
}

// tally counts votes: Yes or No when that is decided whatever else is said, else
// Abstain. Only people can still speak. Of those who say yes one must be another
// than the author of the template, and no list, unless it is enough without the author.
func tally(binding *bindingRecord, votes []Vote, people []string, author string) Verdict {
	yes, no, open, authors := 0, 0, 0, 0
	others := false
	for _, id := range binding.Asked {
		i := slices.IndexFunc(votes, func(v Vote) bool { return v.Authority == id })
		switch {
		case i >= 0 && votes[i].Verdict == Yes:
			yes++
			if votes[i].By != "" && votes[i].By == author {
				authors++
			} else if !votes[i].Check {
				others = true
			}
		case i >= 0 && votes[i].Verdict == No:
			no++
		case slices.Contains(people, id):
			open++
		}
	}
	needed := len(binding.Asked)
	switch binding.Rule {
	case AnyOf:
		needed = 1
	case KOfN:
		needed = binding.K
	case AllOf:
	}
	switch {
	case yes >= needed && others, yes-authors >= needed:
		return Yes
	case yes+open < needed, yes >= needed && open == 0:
		return No
	}
	return Abstain
}

// Sweep ends the requests whose time is over.
func (s *Service) Sweep(ctx context.Context) error {
	now := s.o.Now()
	var over []store.Key
	err := s.o.Store.Scan(ctx, store.Under(kindEnd), func(row store.Record) error {
		if row.Key.Parts()[1] > endKey("", &Request{Expires: now}).Parts()[1] {
			return store.Stop
		}
		over = append(over, row.Key)
		return nil
	})
	if err != nil {
		return store.Fault(err)
	}
	for _, row := range over {
		account := fleet.Account(row.Parts()[2])
		ended := false
		err := s.change(ctx, account, func(b *batch) error {
			ended = false
			var r requestRecord
			found, err := b.load(ctx, requestKey(account, row.Last()), &r)
			if err != nil {
				return err
			}
			if !found || !r.State.open() || now.Before(r.Expires) {
				b.remove(row)
				return nil
			}
			ended = true
			b.move(account, &r.Request, Expired)
			return b.save(account, &r.Request, nil)
		})
		if err != nil {
			return err
		}
		if ended {
			s.decisions.WithLabelValues("expired").Inc()
		}
	}
	return nil
}
