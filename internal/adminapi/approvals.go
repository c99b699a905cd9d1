package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions on who decides who joins, on resource "*". Who approves must not be who
// supplies templates: see iampolicy.Separated.
const (
	ActionListApprovals            = "ops:ListApprovals"
	ActionGetApproval              = "ops:GetApproval"
	ActionApproveProvisioning      = "ops:ApproveProvisioning"
	ActionDenyProvisioning         = "ops:DenyProvisioning"
	ActionListApprovalAuthorities  = "ops:ListApprovalAuthorities"
	ActionGetApprovalAuthority     = "ops:GetApprovalAuthority"
	ActionPutApprovalAuthority     = "ops:PutApprovalAuthority"
	ActionDeleteApprovalAuthority  = "ops:DeleteApprovalAuthority"
	ActionListApprovalBindings     = "ops:ListApprovalBindings"
	ActionGetApprovalBinding       = "ops:GetApprovalBinding"
	ActionPutApprovalBinding       = "ops:PutApprovalBinding"
	ActionDeleteApprovalBinding    = "ops:DeleteApprovalBinding"
	approvalsPath, authoritiesPath = Prefix + "approvals", Prefix + "approval-authorities"
	bindingsPath                   = Prefix + "approval-bindings"
)

// Approvals decides who joins.
type Approvals interface {
	Requests(ctx context.Context, account fleet.Account, state approval.State, template, after string, limit int) (page []approval.Request, next string, err error)
	Request(ctx context.Context, account fleet.Account, id string) (approval.Request, error)
	Vote(ctx context.Context, account fleet.Account, c approval.VoteCommand) (approval.Request, error)
	Authorities(ctx context.Context, account fleet.Account, after string, limit int) (page []approval.Authority, next string, err error)
	Authority(ctx context.Context, account fleet.Account, id string) (approval.Authority, error)
	PutAuthority(ctx context.Context, account fleet.Account, want approval.Authority) (approval.Authority, error)
	DeleteAuthority(ctx context.Context, account fleet.Account, id string) error
	Bindings(ctx context.Context, account fleet.Account, after string, limit int) (page []approval.Binding, next string, err error)
	Binding(ctx context.Context, account fleet.Account, template string) (approval.Binding, error)
	PutBinding(ctx context.Context, account fleet.Account, want approval.Binding) (approval.Binding, error)
	DeleteBinding(ctx context.Context, account fleet.Account, template string) error
}

// voteOutput is what an authority has said.
type voteOutput struct {
	Authority string           `json:"authority"`
	Verdict   approval.Verdict `json:"verdict"`
	By        string           `json:"by,omitempty"`
	At        string           `json:"at"`
	Reason    string           `json:"reason,omitempty"`
}

// approvalOutput is a device that waits or has waited. Times are RFC 3339 in UTC with
// milliseconds.
type approvalOutput struct {
	RequestID          string            `json:"requestId"`
	State              approval.State    `json:"state"`
	TemplateName       string            `json:"templateName"`
	Method             string            `json:"method"`
	CertificateID      string            `json:"certificateId"`
	ClaimCertificateID string            `json:"claimCertificateId,omitempty"`
	ClientID           string            `json:"clientId,omitempty"`
	SourceIP           string            `json:"sourceIp,omitempty"`
	ThingName          string            `json:"thingName,omitempty"`
	Parameters         map[string]string `json:"parameters"`
	ReceivedAt         string            `json:"receivedAt"`
	ExpiresAt          string            `json:"expiresAt"`
	Decisions          []voteOutput      `json:"decisions"`
	// AllowLists is where list authorities have found the device.
	AllowLists []approval.Listed `json:"allowLists,omitempty"`
}

func approvalOf(r *approval.Request) approvalOutput {
	out := approvalOutput{
		RequestID: r.ID, State: r.State, TemplateName: r.Template, Method: r.Method, CertificateID: r.CertificateID, ClaimCertificateID: r.ClaimID,
		ClientID: r.ClientID, SourceIP: r.Address, ThingName: r.Thing, Parameters: r.Parameters, ReceivedAt: stamp(r.Received), ExpiresAt: stamp(r.Expires),
		Decisions: make([]voteOutput, len(r.Votes)), AllowLists: r.Lists,
	}
	for i, v := range r.Votes {
		out.Decisions[i] = voteOutput{Authority: v.Authority, Verdict: v.Verdict, By: v.By, At: stamp(v.At), Reason: v.Reason}
	}
	return out
}

// voteInput is a person's word.
type voteInput struct {
	// Authority may be absent for who is in one group only that is asked.
	Authority string `json:"authority"`
	Reason    string `json:"reason"`
}

// authorityBody is an authority, in requests without its id and times.
type authorityBody struct {
	AuthorityID string        `json:"authorityId,omitempty"`
	Kind        approval.Kind `json:"kind"`
	UserGroup   string        `json:"userGroup,omitempty"`
	Function    string        `json:"function,omitempty"`
	SupplierID  string        `json:"supplierId,omitempty"`
	// SerialParameter and ModelParameter are which parameters of a device are its
	// serial number and model.
	SerialParameter string `json:"serialParameter,omitempty"`
	ModelParameter  string `json:"modelParameter,omitempty"`
	CreatedAt       string `json:"createdAt,omitempty"`
	ChangedAt       string `json:"changedAt,omitempty"`
}

func authorityOf(a *approval.Authority) authorityBody {
	return authorityBody{
		AuthorityID: a.ID, Kind: a.Kind, UserGroup: a.Group, Function: a.Function, SupplierID: a.Supplier, SerialParameter: a.SerialParameter,
		ModelParameter: a.ModelParameter, CreatedAt: stamp(a.Created), ChangedAt: stamp(a.Modified),
	}
}

// bindingBody is a binding, in requests without its template and times.
type bindingBody struct {
	TemplateName string        `json:"templateName,omitempty"`
	Rule         approval.Rule `json:"rule"`
	K            int           `json:"k,omitempty"`
	Authorities  []string      `json:"authorities"`
	// ClaimCertificateIDs and SourceNetworks are the only ones; absent for any.
	ClaimCertificateIDs []string `json:"claimCertificateIds,omitempty"`
	SourceNetworks      []string `json:"sourceNetworks,omitempty"`
	AutoApproveIf       string   `json:"autoApproveIf,omitempty"`
	DailyQuota          int      `json:"dailyQuota,omitempty"`
	// WindowStart and WindowEnd are times of the day in UTC, HH:MM.
	WindowStart string `json:"windowStart,omitempty"`
	WindowEnd   string `json:"windowEnd,omitempty"`
	// ApprovalWindow is how long a device waits for people, such as 72h0m0s.
	ApprovalWindow string `json:"approvalWindow,omitempty"`
	CreatedAt      string `json:"createdAt,omitempty"`
	ChangedAt      string `json:"changedAt,omitempty"`
}

func bindingOf(b *approval.Binding) bindingBody {
	out := bindingBody{
		TemplateName: b.Template, Rule: b.Rule, K: b.K, Authorities: b.Authorities, ClaimCertificateIDs: b.Claims, SourceNetworks: b.Networks,
		AutoApproveIf: b.AutoApproveIf, DailyQuota: b.DailyQuota, ApprovalWindow: b.Patience.String(), CreatedAt: stamp(b.Created), ChangedAt: stamp(b.Modified),
	}
	if b.From != b.Until {
		out.WindowStart, out.WindowEnd = clock(b.From), clock(b.Until)
	}
	return out
}

const hour = 60

func clock(minute int) string { return fmt.Sprintf("%02d:%02d", minute/hour, minute%hour) }

// wish is the domain's form of a binding in a request.
func (b *bindingBody) wish(template string) (approval.Binding, error) {
	out := approval.Binding{
		Template: template, Rule: b.Rule, K: b.K, Authorities: b.Authorities, Claims: b.ClaimCertificateIDs, Networks: b.SourceNetworks,
		AutoApproveIf: b.AutoApproveIf, DailyQuota: b.DailyQuota,
	}
	if b.TemplateName != "" || b.CreatedAt != "" || b.ChangedAt != "" {
		return out, fault.New(fault.InvalidRequest, "templateName, createdAt and changedAt are not for requests")
	}
	if (b.WindowStart == "") != (b.WindowEnd == "") {
		return out, fault.New(fault.InvalidRequest, "windowStart and windowEnd come together")
	}
	for _, w := range []struct {
		name, text string
		minute     *int
	}{{"windowStart", b.WindowStart, &out.From}, {"windowEnd", b.WindowEnd, &out.Until}} {
		if w.text == "" {
			continue
		}
		at, err := time.Parse("15:04", w.text)
		if err != nil {
			return out, fault.New(fault.InvalidRequest, "%s must be a time of the day such as 08:30", w.name)
		}
		*w.minute = at.Hour()*hour + at.Minute()
	}
	if b.ApprovalWindow != "" {
		var err error
		if out.Patience, err = time.ParseDuration(b.ApprovalWindow); err != nil {
			return out, fault.New(fault.InvalidRequest, "approvalWindow must be a time such as 72h")
		}
	}
	return out, nil
}

// handleApprovals adds the operations.
func (h *handler) handleApprovals(mux *routes) {
	mux.HandleFunc("GET "+approvalsPath, h.read(ActionListApprovals, h.listApprovals))
	mux.HandleFunc("GET "+approvalsPath+"/{approval}", h.read(ActionGetApproval, func(ctx context.Context, r *http.Request) (any, error) {
		found, err := h.o.Approvals.Request(ctx, h.o.Account(ctx), r.PathValue("approval"))
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return approvalOf(&found), nil
	}))
	for word, v := range map[string]struct {
		action  string
		verdict approval.Verdict
	}{
		"approve":  {ActionApproveProvisioning, approval.Yes},
		"deny":     {ActionDenyProvisioning, approval.No},
		"withdraw": {ActionDenyProvisioning, approval.Abstain},
	} {
		mux.HandleFunc("POST "+approvalsPath+"/{approval}/"+word, h.operate(v.action, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
			var in voteInput
			if err := decodeStrictly(body, &in); err != nil {
				return nil, err
			}
			after, err := h.o.Approvals.Vote(ctx, h.o.Account(ctx), approval.VoteCommand{
				ID: r.PathValue("approval"), Authority: in.Authority, Verdict: v.verdict, Reason: in.Reason,
			})
			if err != nil {
				return nil, err //nolint:wrapcheck // coded
			}
			return approvalOf(&after), nil
		}))
	}
	h.handleAuthorities(mux)
	h.handleBindings(mux)
}

// listApprovals lists those of a state, PENDING unless one is given.
func (h *handler) listApprovals(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.approvals", "", "state", "template")
	if err != nil {
		return nil, err
	}
	state := approval.State(l.values.Get("state"))
	if state == "" {
		state = approval.Pending
	}
	found, next, err := h.o.Approvals.Requests(ctx, l.account, state, l.values.Get("template"), l.after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := struct {
		Approvals []approvalOutput `json:"approvals"`
		NextToken string           `json:"nextToken,omitempty"`
	}{make([]approvalOutput, len(found)), h.nextToken(&l, next)}
	for i := range found {
		out.Approvals[i] = approvalOf(&found[i])
	}
	return out, nil
}

func (h *handler) handleAuthorities(mux *routes) {
	const one = authoritiesPath + "/{authority}"
	mux.HandleFunc("GET "+authoritiesPath, h.read(ActionListApprovalAuthorities, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.approval-authorities", "")
		if err != nil {
			return nil, err
		}
		found, next, err := h.o.Approvals.Authorities(ctx, l.account, l.after, l.limit)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		out := struct {
			Authorities []authorityBody `json:"authorities"`
			NextToken   string          `json:"nextToken,omitempty"`
		}{make([]authorityBody, len(found)), h.nextToken(&l, next)}
		for i := range found {
			out.Authorities[i] = authorityOf(&found[i])
		}
		return out, nil
	}))
	mux.HandleFunc("GET "+one, h.read(ActionGetApprovalAuthority, func(ctx context.Context, r *http.Request) (any, error) {
		found, err := h.o.Approvals.Authority(ctx, h.o.Account(ctx), r.PathValue("authority"))
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return authorityOf(&found), nil
	}))
	mux.HandleFunc("PUT "+one, h.operate(ActionPutApprovalAuthority, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in authorityBody
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		if in.AuthorityID != "" || in.CreatedAt != "" || in.ChangedAt != "" {
			return nil, fault.New(fault.InvalidRequest, "authorityId, createdAt and changedAt are not for requests")
		}
		made, err := h.o.Approvals.PutAuthority(ctx, h.o.Account(ctx), approval.Authority{
			ID: r.PathValue("authority"), Kind: in.Kind, Group: in.UserGroup, Function: in.Function, Supplier: in.SupplierID,
			SerialParameter: in.SerialParameter, ModelParameter: in.ModelParameter,
		})
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return authorityOf(&made), nil
	}))
	mux.HandleFunc("DELETE "+one, h.operate(ActionDeleteApprovalAuthority, func(ctx context.Context, r *http.Request, _ []byte) (any, error) {
		return nil, h.o.Approvals.DeleteAuthority(ctx, h.o.Account(ctx), r.PathValue("authority")) //nolint:wrapcheck // coded
	}))
}

func (h *handler) handleBindings(mux *routes) {
	const one = bindingsPath + "/{template}"
	mux.HandleFunc("GET "+bindingsPath, h.read(ActionListApprovalBindings, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.approval-bindings", "")
		if err != nil {
			return nil, err
		}
		found, next, err := h.o.Approvals.Bindings(ctx, l.account, l.after, l.limit)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		out := struct {
			Bindings  []bindingBody `json:"bindings"`
			NextToken string        `json:"nextToken,omitempty"`
		}{make([]bindingBody, len(found)), h.nextToken(&l, next)}
		for i := range found {
			out.Bindings[i] = bindingOf(&found[i])
		}
		return out, nil
	}))
	mux.HandleFunc("GET "+one, h.read(ActionGetApprovalBinding, func(ctx context.Context, r *http.Request) (any, error) {
		found, err := h.o.Approvals.Binding(ctx, h.o.Account(ctx), r.PathValue("template"))
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return bindingOf(&found), nil
	}))
	mux.HandleFunc("PUT "+one, h.operate(ActionPutApprovalBinding, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in bindingBody
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		want, err := in.wish(r.PathValue("template"))
		if err != nil {
			return nil, err
		}
		made, err := h.o.Approvals.PutBinding(ctx, h.o.Account(ctx), want)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return bindingOf(&made), nil
	}))
	mux.HandleFunc("DELETE "+one, h.operate(ActionDeleteApprovalBinding, func(ctx context.Context, r *http.Request, _ []byte) (any, error) {
		return nil, h.o.Approvals.DeleteBinding(ctx, h.o.Account(ctx), r.PathValue("template")) //nolint:wrapcheck // coded
	}))
}
