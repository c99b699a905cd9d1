package approval

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/store"
)

// Rule says how many authorities must say yes.
type Rule string

// Rules of bindings.
const (
	AllOf Rule = "ALL_OF"
	AnyOf Rule = "ANY_OF"
	KOfN  Rule = "K_OF_N"
)

// CATarget begins what a binding is of when it is of an authority: its certificate id
// follows. It decides about devices under the authority whose template has no binding,
// or that have no template.
const CATarget = "ca:"

// Binding says who decides about the devices of a template, or of an authority.
type Binding struct {
	// Template is its name, or CATarget with the id of a CA certificate.
	Template string
	Rule     Rule
	// K is how many of the authorities must say yes, for KOfN.
	K           int
	Authorities []string
	// Claims are the ids of the only claim certificates with which a device may come,
	// Networks the only networks; empty for any.
	Claims, Networks []string
	// AutoApproveIf is a query over the device that says yes for everybody: template,
	// method, claim, clientId, address and parameters.<name>.
	AutoApproveIf string
	// DailyQuota is how many devices may join in a day of UTC; 0 is no bound.
	DailyQuota int
	// From and Until are minutes of the day in UTC between which devices may join; both
	// 0 for always. Until before From is over midnight.
	From, Until int
	// Patience is how long a device waits for people.
	Patience          time.Duration
	Created, Modified time.Time
}

// Bounds of a binding.
const (
	maxAuthorities = 16
	maxClaims      = 100
	maxNetworks    = 100
	maxQuery       = 1000
	day            = 24 * 60
	maxPatience    = 30 * 24 * time.Hour
)

// PutBinding binds a template, or changes its binding.
func (s *Service) PutBinding(ctx context.Context, account fleet.Account, want Binding) (Binding, error) {
	if err := want.check(); err != nil {
		return Binding{}, err
	}
	if _, err := s.o.Templates.Author(ctx, account, want.Template); err != nil {
		return Binding{}, err //nolint:wrapcheck // coded
	}
	if want.Patience == 0 {
		want.Patience = s.o.Patience
	}
	var out Binding
	err := s.change(ctx, account, func(b *batch) error {
		var r bindingRecord
		found, err := b.load(ctx, bindingKey(account, want.Template), &r)
		if err != nil {
			return err
		}
		for _, id := range want.Authorities {
			var known authorityRecord
			if found, err := b.load(ctx, authorityKey(account, id), &known); err != nil || !found {
				if err == nil {
					err = fault.New(fault.InvalidRequest, "authorities: there is no authority %.64q", id)
				}
				return err
			}
		}
		now := s.o.Now().UnixMilli()
		change := event.ApprovalUpdated
		if !found {
			r.Created, change = now, event.ApprovalCreated
		}
		r = bindingRecord{
			Schema: schemaVersion, Rule: want.Rule, K: want.K, Asked: want.Authorities, Claims: want.Claims, Networks: want.Networks,
			AutoIf: want.AutoApproveIf, Quota: want.DailyQuota, From: want.From, Until: want.Until, Patience: want.Patience.Milliseconds(),
			Created: r.Created, Modified: now, By: fleet.ActorFrom(ctx),
		}
		b.emit(event.ApprovalBindingChanged{Template: want.Template, Change: change})
		out = bindingOf(want.Template, &r)
		return b.put(bindingKey(account, want.Template), r)
	})
	return out, err
}

// check refuses what breaks a rule by itself.
func (w *Binding) check() error {
	refuse := func(format string, args ...any) error { return fault.New(fault.InvalidRequest, format, args...) }
	switch {
	case len(w.Authorities) == 0 || len(w.Authorities) > maxAuthorities:
		return refuse("authorities must have 1 to %d entries", maxAuthorities)
	case w.Rule != AllOf && w.Rule != AnyOf && w.Rule != KOfN:
		return refuse("rule must be %s, %s or %s", AllOf, AnyOf, KOfN)
	case w.Rule == KOfN && (w.K < 1 || w.K > len(w.Authorities)):
		return refuse("k must be from 1 to the number of authorities")
	case w.Rule != KOfN && w.K != 0:
		return refuse("k is for the rule %s", KOfN)
	case len(w.Claims) > maxClaims:
		return refuse("claims must have at most %d entries", maxClaims)
	case len(w.Networks) > maxNetworks:
		return refuse("networks must have at most %d entries", maxNetworks)
	case w.DailyQuota < 0:
		return refuse("dailyQuota must not be negative")
	case w.From < 0 || w.From >= day || w.Until < 0 || w.Until >= day:
		return refuse("from and until must be times of a day")
	case w.Patience < 0 || w.Patience > maxPatience:
		return refuse("patience must be at most %v", maxPatience)
	case len(w.AutoApproveIf) > maxQuery:
		return refuse("autoApproveIf must have at most %d characters", maxQuery)
	}
	for i, id := range w.Authorities {
		if slices.Contains(w.Authorities[:i], id) {
			return refuse("authorities: %.64q comes twice", id)
		}
	}
	for _, id := range w.Claims {
		if !fleet.ValidCertificateID(id) {
			return refuse("claims: %.64q is no certificate id", id)
		}
	}
	for _, network := range w.Networks {
		if _, err := netip.ParsePrefix(network); err != nil {
			return refuse("networks: %.64q is no network such as 10.0.0.0/8", network)
		}
	}
	if w.AutoApproveIf != "" {
		if _, err := fleetquery.Parse(w.AutoApproveIf); err != nil {
			return fault.Wrap(fault.InvalidRequest, err, "autoApproveIf: %v", err)
		}
	}
	return nil
}

func bindingOf(template string, r *bindingRecord) Binding {
	return Binding{
		Template: template, Rule: r.Rule, K: r.K, Authorities: r.Asked, Claims: r.Claims, Networks: r.Networks, AutoApproveIf: r.AutoIf, DailyQuota: r.Quota,
		From: r.From, Until: r.Until, Patience: time.Duration(r.Patience) * time.Millisecond, Created: moment(r.Created), Modified: moment(r.Modified),
	}
}

// Binding returns that of a template.
func (s *Service) Binding(ctx context.Context, account fleet.Account, template string) (Binding, error) {
	var r bindingRecord
	version, err := read(ctx, s.o.Store, bindingKey(account, template), &r)
	if err == nil && version == 0 {
		err = fault.New(fault.ResourceNotFound, "template %.64q has no binding", template)
	}
	return bindingOf(template, &r), err
}

// Bindings returns a page in the order of templates, and what the next one begins
// after.
func (s *Service) Bindings(ctx context.Context, account fleet.Account, after string, limit int) (page []Binding, next string, err error) {
	page = []Binding{}
	next, err = s.list(ctx, store.Under(kindBinding, string(account)), after, limit, func(found store.Record) (bool, error) {
		var r bindingRecord
		if err := decode(found, &r); err != nil {
			return false, err
		}
		page = append(page, bindingOf(found.Key.Last(), &r))
		return true, nil
	})
	return page, next, err
}

// DeleteBinding unbinds a template. Requests that wait are decided by nobody then, and
// end at their time.
func (s *Service) DeleteBinding(ctx context.Context, account fleet.Account, template string) error {
	return s.change(ctx, account, func(b *batch) error {
		var r bindingRecord
		found, err := b.load(ctx, bindingKey(account, template), &r)
		if err != nil {
			return err
		}
		if !found {
			return fault.New(fault.ResourceNotFound, "template %.64q has no binding", template)
		}
		b.emit(event.ApprovalBindingChanged{Template: template, Change: event.ApprovalDeleted})
		b.remove(bindingKey(account, template))
		return nil
	})
}

func decode(found store.Record, v any) error {
	if err := json.Unmarshal(found.Value, v); err != nil {
		return fmt.Errorf("decode record %s: %w", found.Key, err)
	}
	return nil
}
