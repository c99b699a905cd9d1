package adminapi

import (
	"bytes"
	"context"
	"net/http"
	"time"

	operators "github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// maxResults bounds a page of operators.
const maxResults = 1000

// subject says what a request about operators is about: a kind of IAM resource
// and its name, as policies name it. of is the caller's account.
type subject func(r *http.Request, of fleet.Account) (kind, name string)

// named takes the name from the path.
func named(kind string) subject {
	return func(r *http.Request, _ fleet.Account) (string, string) { return kind, r.PathValue("name") }
}

// every is about all of a kind, or one that the body names.
func every(kind string) subject {
	return func(*http.Request, fleet.Account) (string, string) { return kind, "*" }
}

// keyOwner is the user whose access key the path names, all users for a key that
// is nobody's.
func (h *handler) keyOwner(r *http.Request, of fleet.Account) (kind, name string) {
	name = h.o.Operators.KeyUser(r.Context(), of, r.PathValue("name"))
	if name == "" {
		name = "*"
	}
	return "user", name
}

// operatorCall is a request about operators, allowed.
type operatorCall struct {
	*http.Request

	ctx     context.Context //nolint:containedctx // it is the request's, with the actor
	account fleet.Account
	name    string
	body    []byte
}

// in decodes the body.
func (c *operatorCall) in(into any) error { return decodeStrictly(c.body, into) }

// op is the handler of one operation about operators: it asks for the action on
// the subject, calls, and answers.
func (h *handler) op(action string, about subject, do func(*operatorCall) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		asked := r
		r, body, err := h.enterOn(w, r, action, func(of fleet.Account) string {
			kind, name := about(asked, of)
			return "arn:" + fleet.Partition + ":iam::" + string(of) + ":" + kind + "/" + name
		})
		if err != nil {
			h.fail(w, r, err)
			return
		}
		call := &operatorCall{Request: r, ctx: r.Context(), account: h.o.Account(r.Context()), name: r.PathValue("name"), body: body} //nolint:contextcheck // enterOn returned the same request with the actor
		out, err := do(call)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		if out == nil {
			out = struct{}{}
		}
		h.answer(w, r, out)
	}
}

// listed is the handler of a list: names in order, page by page.
func (h *handler) listed(action, kind, operation string, page func(ctx context.Context, of fleet.Account, after string, limit int) (any, string, error)) http.HandlerFunc {
	return h.op(action, every(kind), func(c *operatorCall) (any, error) {
		l, err := h.openList(c.ctx, c.Request, operation, kind)
		if err != nil {
			return nil, err
		}
		if l.limit < 1 || l.limit > maxResults {
			return nil, fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", maxResults)
		}
		found, next, err := page(c.ctx, c.account, l.after, l.limit)
		if err != nil {
			return nil, err
		}
		out := map[string]any{kind + "s": found}
		if next != "" {
			out["nextToken"] = h.o.Tokens.Seal(c.account, operation, []string{kind}, next, h.o.Now())
		}
		return out, nil
	})
}

// Shapes of answers. Times are RFC 3339 in UTC.
type (
	userOutput struct {
		UserName           string     `json:"userName"`
		UserID             string     `json:"userId"`
		ARN                string     `json:"arn"`
		CreatedAt          time.Time  `json:"createdAt"`
		Groups             []string   `json:"groups,omitempty"`
		Policies           []string   `json:"policies,omitempty"`
		InlinePolicies     []string   `json:"inlinePolicies,omitempty"`
		AccessKeys         []string   `json:"accessKeys,omitempty"`
		HasPassword        bool       `json:"hasPassword"`
		MustChangePassword bool       `json:"mustChangePassword,omitempty"`
		SessionsRevokedAt  *time.Time `json:"sessionsRevokedAt,omitempty"`
	}
	groupOutput struct {
		GroupName      string    `json:"groupName"`
		GroupID        string    `json:"groupId"`
		ARN            string    `json:"arn"`
		CreatedAt      time.Time `json:"createdAt"`
		Users          []string  `json:"users,omitempty"`
		Policies       []string  `json:"policies,omitempty"`
		InlinePolicies []string  `json:"inlinePolicies,omitempty"`
	}
	roleOutput struct {
		RoleName           string     `json:"roleName"`
		RoleID             string     `json:"roleId"`
		ARN                string     `json:"arn"`
		Description        string     `json:"description,omitempty"`
		CreatedAt          time.Time  `json:"createdAt"`
		TrustPolicy        string     `json:"trustPolicy"`
		MaxSessionDuration int        `json:"maxSessionDuration"`
		Policies           []string   `json:"policies,omitempty"`
		InlinePolicies     []string   `json:"inlinePolicies,omitempty"`
		SessionsRevokedAt  *time.Time `json:"sessionsRevokedAt,omitempty"`
	}
	policyOutput struct {
		PolicyName     string     `json:"policyName"`
		PolicyID       string     `json:"policyId,omitempty"`
		ARN            string     `json:"arn"`
		Description    string     `json:"description,omitempty"`
		PolicyDocument string     `json:"policyDocument,omitempty"`
		Builtin        bool       `json:"builtin,omitempty"`
		CreatedAt      *time.Time `json:"createdAt,omitempty"`
		UpdatedAt      *time.Time `json:"updatedAt,omitempty"`
		AttachedTo     []string   `json:"attachedTo,omitempty"`
	}
	keyOutput struct {
		AccessKeyID string     `json:"accessKeyId"`
		UserName    string     `json:"userName"`
		Status      string     `json:"status"`
		CreatedAt   time.Time  `json:"createdAt"`
		LastUsedAt  *time.Time `json:"lastUsedAt,omitempty"`
	}
)

// some is nil for a time that never was.
func some(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func showUser(u operators.User) userOutput {
	return userOutput{
		UserName: u.Name, UserID: u.ID, ARN: u.ARN, CreatedAt: u.CreatedAt, Groups: u.Groups, Policies: u.Policies,
		InlinePolicies: u.Inline, AccessKeys: u.Keys, HasPassword: u.HasPassword, MustChangePassword: u.MustChangePassword,
		SessionsRevokedAt: some(u.SessionsRevokedAt),
	}
}

func showGroup(g operators.Group) groupOutput {
	return groupOutput{
		GroupName: g.Name, GroupID: g.ID, ARN: g.ARN, CreatedAt: g.CreatedAt, Users: g.Users, Policies: g.Policies, InlinePolicies: g.Inline,
	}
}

func showRole(r operators.Role) roleOutput {
	return roleOutput{
		RoleName: r.Name, RoleID: r.ID, ARN: r.ARN, Description: r.Description, CreatedAt: r.CreatedAt, TrustPolicy: r.Trust,
		MaxSessionDuration: r.MaxSession, Policies: r.Policies, InlinePolicies: r.Inline, SessionsRevokedAt: some(r.SessionsRevokedAt),
	}
}

func showPolicy(p operators.Policy) policyOutput {
	return policyOutput{
		PolicyName: p.Name, PolicyID: p.ID, ARN: p.ARN, Description: p.Description, PolicyDocument: p.Document, Builtin: p.Builtin,
		CreatedAt: some(p.CreatedAt), UpdatedAt: some(p.UpdatedAt), AttachedTo: p.Attached,
	}
}

// shown describes each of a list, which is never null.
func shown[In, Out any](all []In, show func(In) Out) []Out {
	out := make([]Out, len(all))
	for i := range all {
		out[i] = show(all[i])
	}
	return out
}

// routeOperators adds the operations about users, groups, roles, policies and
// keys.
func (h *handler) routeOperators(mux *routes) {
	h.routeUsers(mux)
	h.routeUserGroups(mux)
	h.routeRoles(mux)
	h.routeAccessPolicies(mux)
	h.routeAccessKeys(mux)
	for path, kind := range map[string]string{"users": "user", "user-groups": "group", "roles": "role"} {
		h.routeOwned(mux, Prefix+path+"/{name}/", kind)
	}
}

func (h *handler) routeUsers(mux *routes) {
	s := h.o.Operators
	const kind = "user"
	mux.HandleFunc("GET "+Prefix+"users", h.listed("ops:ListUsers", kind, "ListUsers", func(ctx context.Context, of fleet.Account, after string, limit int) (any, string, error) {
		found, next, err := s.Users(ctx, of, after, limit)
		return shown(found, showUser), next, err
	}))
	mux.HandleFunc("POST "+Prefix+"users", h.op("ops:CreateUser", every(kind), func(c *operatorCall) (any, error) {
		var in struct {
			UserName string `json:"userName"`
		}
		if err := c.in(&in); err != nil {
			return nil, err
		}
		u, err := s.CreateUser(c.ctx, c.account, in.UserName)
		return showUser(u), err
	}))
	mux.HandleFunc("GET "+Prefix+"users/{name}", h.op("ops:GetUser", named(kind), func(c *operatorCall) (any, error) {
		u, err := s.User(c.ctx, c.account, c.name)
		return showUser(u), err
	}))
	mux.HandleFunc("DELETE "+Prefix+"users/{name}", h.op("ops:DeleteUser", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.DeleteUser(c.ctx, c.account, c.name)
	}))
	mux.HandleFunc("PUT "+Prefix+"users/{name}/password", h.op("ops:SetUserPassword", named(kind), func(c *operatorCall) (any, error) {
		var in struct {
			Password   string `json:"password"`
			MustChange bool   `json:"mustChange"`
		}
		if err := c.in(&in); err != nil {
			return nil, err
		}
		return nil, s.SetPassword(c.ctx, c.account, c.name, in.Password, in.MustChange)
	}))
	mux.HandleFunc("DELETE "+Prefix+"users/{name}/password", h.op("ops:DeleteUserPassword", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.DeletePassword(c.ctx, c.account, c.name)
	}))
	mux.HandleFunc("POST "+Prefix+"users/{name}/revoke-sessions", h.op("ops:RevokeUserSessions", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.RevokeSessions(c.ctx, c.account, operators.Owner{Kind: kind, Name: c.name})
	}))
}

func (h *handler) routeUserGroups(mux *routes) {
	s := h.o.Operators
	const kind, path = "group", Prefix + "user-groups"
	mux.HandleFunc("GET "+path, h.listed("ops:ListUserGroups", kind, "ListUserGroups", func(ctx context.Context, of fleet.Account, after string, limit int) (any, string, error) {
		found, next, err := s.Groups(ctx, of, after, limit)
		return shown(found, showGroup), next, err
	}))
	mux.HandleFunc("POST "+path, h.op("ops:CreateUserGroup", every(kind), func(c *operatorCall) (any, error) {
		var in struct {
			GroupName string `json:"groupName"`
		}
		if err := c.in(&in); err != nil {
			return nil, err
		}
		g, err := s.CreateGroup(c.ctx, c.account, in.GroupName)
		return showGroup(g), err
	}))
	mux.HandleFunc("GET "+path+"/{name}", h.op("ops:GetUserGroup", named(kind), func(c *operatorCall) (any, error) {
		g, err := s.Group(c.ctx, c.account, c.name)
		return showGroup(g), err
	}))
	mux.HandleFunc("DELETE "+path+"/{name}", h.op("ops:DeleteUserGroup", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.DeleteGroup(c.ctx, c.account, c.name)
	}))
	mux.HandleFunc("PUT "+path+"/{name}/users/{user}", h.op("ops:AddUserToGroup", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.AddUserToGroup(c.ctx, c.account, c.name, c.PathValue("user"))
	}))
	mux.HandleFunc("DELETE "+path+"/{name}/users/{user}", h.op("ops:RemoveUserFromGroup", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.RemoveUserFromGroup(c.ctx, c.account, c.name, c.PathValue("user"))
	}))
}

// roleInput makes or changes a role.
type roleInput struct {
	RoleName           string `json:"roleName"`
	Description        string `json:"description"`
	TrustPolicy        string `json:"trustPolicy"`
	MaxSessionDuration int    `json:"maxSessionDuration"`
}

// spec is what the domain takes.
func (in *roleInput) spec() operators.RoleSpec {
	return operators.RoleSpec{Description: in.Description, Trust: in.TrustPolicy, MaxSession: in.MaxSessionDuration}
}

func (h *handler) routeRoles(mux *routes) {
	s := h.o.Operators
	const kind = "role"
	mux.HandleFunc("GET "+Prefix+"roles", h.listed("ops:ListRoles", kind, "ListRoles", func(ctx context.Context, of fleet.Account, after string, limit int) (any, string, error) {
		found, next, err := s.Roles(ctx, of, after, limit)
		return shown(found, showRole), next, err
	}))
	mux.HandleFunc("POST "+Prefix+"roles", h.op("ops:CreateRole", every(kind), func(c *operatorCall) (any, error) {
		var in roleInput
		if err := c.in(&in); err != nil {
			return nil, err
		}
		r, err := s.CreateRole(c.ctx, c.account, in.RoleName, in.spec())
		return showRole(r), err
	}))
	mux.HandleFunc("GET "+Prefix+"roles/{name}", h.op("ops:GetRole", named(kind), func(c *operatorCall) (any, error) {
		r, err := s.Role(c.ctx, c.account, c.name)
		return showRole(r), err
	}))
	mux.HandleFunc("PATCH "+Prefix+"roles/{name}", h.op("ops:UpdateRole", named(kind), func(c *operatorCall) (any, error) {
		var in roleInput
		if err := c.in(&in); err != nil {
			return nil, err
		}
		if in.RoleName != "" {
			return nil, fault.New(fault.InvalidRequest, "roleName: a role keeps its name")
		}
		r, err := s.UpdateRole(c.ctx, c.account, c.name, in.spec())
		return showRole(r), err
	}))
	mux.HandleFunc("DELETE "+Prefix+"roles/{name}", h.op("ops:DeleteRole", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.DeleteRole(c.ctx, c.account, c.name)
	}))
	mux.HandleFunc("POST "+Prefix+"roles/{name}/revoke-sessions", h.op("ops:RevokeRoleSessions", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.RevokeSessions(c.ctx, c.account, operators.Owner{Kind: kind, Name: c.name})
	}))
}

// accessPolicyInput makes or changes an own policy.
type accessPolicyInput struct {
	PolicyName     string `json:"policyName"`
	Description    string `json:"description"`
	PolicyDocument string `json:"policyDocument"`
}

func (h *handler) routeAccessPolicies(mux *routes) {
	s := h.o.Operators
	const kind, path = "policy", Prefix + "access-policies"
	mux.HandleFunc("GET "+path, h.op("ops:ListAccessPolicies", every(kind), func(c *operatorCall) (any, error) {
		l, err := h.openList(c.ctx, c.Request, "ListAccessPolicies", kind)
		if err != nil {
			return nil, err
		}
		if l.limit < 1 || l.limit > maxResults {
			return nil, fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", maxResults)
		}
		found, next, err := s.Policies(c.ctx, c.account, l.after, l.limit)
		if err != nil {
			return nil, err
		}
		out := map[string]any{"policies": shown(found, showPolicy)}
		if l.after == "" {
			out["builtin"] = shown(s.BuiltinPolicies(), showPolicy)
		}
		if next != "" {
			out["nextToken"] = h.o.Tokens.Seal(c.account, "ListAccessPolicies", []string{kind}, next, h.o.Now())
		}
		return out, nil
	}))
	mux.HandleFunc("POST "+path, h.op("ops:CreateAccessPolicy", every(kind), func(c *operatorCall) (any, error) {
		var in accessPolicyInput
		if err := c.in(&in); err != nil {
			return nil, err
		}
		p, err := s.CreatePolicy(c.ctx, c.account, in.PolicyName, in.Description, in.PolicyDocument)
		return showPolicy(p), err
	}))
	mux.HandleFunc("GET "+path+"/{name}", h.op("ops:GetAccessPolicy", named(kind), func(c *operatorCall) (any, error) {
		p, err := s.Policy(c.ctx, c.account, c.name)
		return showPolicy(p), err
	}))
	mux.HandleFunc("PUT "+path+"/{name}", h.op("ops:UpdateAccessPolicy", named(kind), func(c *operatorCall) (any, error) {
		var in struct {
			PolicyDocument string `json:"policyDocument"`
		}
		if err := c.in(&in); err != nil {
			return nil, err
		}
		p, err := s.UpdatePolicy(c.ctx, c.account, c.name, in.PolicyDocument)
		return showPolicy(p), err
	}))
	mux.HandleFunc("DELETE "+path+"/{name}", h.op("ops:DeleteAccessPolicy", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.DeletePolicy(c.ctx, c.account, c.name)
	}))
}

func (h *handler) routeAccessKeys(mux *routes) {
	s := h.o.Operators
	const kind = "user"
	mux.HandleFunc("GET "+Prefix+"users/{name}/access-keys", h.op("ops:ListAccessKeys", named(kind), func(c *operatorCall) (any, error) {
		found, err := s.AccessKeys(c.ctx, c.account, c.name)
		return map[string]any{"accessKeys": shown(found, func(k operators.KeyInfo) keyOutput {
			return keyOutput{AccessKeyID: k.ID, UserName: k.User, Status: k.Status, CreatedAt: k.CreatedAt, LastUsedAt: some(k.LastUsed)}
		})}, err
	}))
	mux.HandleFunc("POST "+Prefix+"users/{name}/access-keys", h.op("ops:CreateAccessKey", named(kind), func(c *operatorCall) (any, error) {
		key, err := s.CreateAccessKey(c.ctx, c.account, c.name)
		return map[string]string{"userName": c.name, "accessKeyId": key.ID, "secretAccessKey": key.Secret, "status": operators.KeyActive}, err
	}))
	// Keys are asked for by id and permitted on their user, so that a denial about
	// one user holds for its keys.
	mux.HandleFunc("PUT "+Prefix+"access-keys/{name}", h.op("ops:UpdateAccessKey", h.keyOwner, func(c *operatorCall) (any, error) {
		var in struct {
			Status string `json:"status"`
		}
		if err := c.in(&in); err != nil {
			return nil, err
		}
		return nil, s.SetAccessKeyStatus(c.ctx, c.account, c.name, in.Status)
	}))
	mux.HandleFunc("DELETE "+Prefix+"access-keys/{name}", h.op("ops:DeleteAccessKey", h.keyOwner, func(c *operatorCall) (any, error) {
		return nil, s.DeleteAccessKey(c.ctx, c.account, c.name)
	}))
}

// routeOwned adds the operations about the policies of users, groups or roles.
func (h *handler) routeOwned(mux *routes, path, kind string) {
	s := h.o.Operators
	title := map[string]string{"user": "User", "group": "UserGroup", "role": "Role"}[kind]
	owner := func(c *operatorCall) operators.Owner { return operators.Owner{Kind: kind, Name: c.name} }
	policy := func(c *operatorCall) (string, error) {
		name := c.URL.Query().Get("policy")
		if name == "" || len(bytes.TrimSpace(c.body)) > 0 {
			return "", fault.New(fault.InvalidRequest, "policy: the query must name a policy by name or ARN, and there is no body")
		}
		return name, nil
	}
	mux.HandleFunc("PUT "+path+"policies", h.op("ops:Attach"+title+"AccessPolicy", named(kind), func(c *operatorCall) (any, error) {
		name, err := policy(c)
		if err != nil {
			return nil, err
		}
		return nil, s.AttachPolicy(c.ctx, c.account, owner(c), name)
	}))
	mux.HandleFunc("DELETE "+path+"policies", h.op("ops:Detach"+title+"AccessPolicy", named(kind), func(c *operatorCall) (any, error) {
		name, err := policy(c)
		if err != nil {
			return nil, err
		}
		return nil, s.DetachPolicy(c.ctx, c.account, owner(c), name)
	}))
	mux.HandleFunc("GET "+path+"inline-policies/{policy}", h.op("ops:Get"+title+"AccessPolicy", named(kind), func(c *operatorCall) (any, error) {
		document, err := s.InlinePolicy(c.ctx, c.account, owner(c), c.PathValue("policy"))
		return policyOutput{PolicyName: c.PathValue("policy"), PolicyDocument: document}, err
	}))
	mux.HandleFunc("PUT "+path+"inline-policies/{policy}", h.op("ops:Put"+title+"AccessPolicy", named(kind), func(c *operatorCall) (any, error) {
		var in struct {
			PolicyDocument string `json:"policyDocument"`
		}
		if err := c.in(&in); err != nil {
			return nil, err
		}
		return nil, s.PutInlinePolicy(c.ctx, c.account, owner(c), c.PathValue("policy"), in.PolicyDocument)
	}))
	mux.HandleFunc("DELETE "+path+"inline-policies/{policy}", h.op("ops:Delete"+title+"AccessPolicy", named(kind), func(c *operatorCall) (any, error) {
		return nil, s.DeleteInlinePolicy(c.ctx, c.account, owner(c), c.PathValue("policy"))
	}))
}
