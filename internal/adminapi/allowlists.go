package adminapi

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/allowlist"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions on allow lists, on resource "*". Who uploads cannot accept or read back the
// same revision, whatever the policies say; the actions are apart so that they can be
// given to different people altogether.
const (
	ActionListAllowLists       = "ops:ListAllowLists"
	ActionGetAllowList         = "ops:GetAllowList"
	ActionPutAllowList         = "ops:PutAllowList"
	ActionVetAllowList         = "ops:VetAllowList"
	ActionReadAllowList        = "ops:ReadAllowList"
	ActionLookUpAllowListEntry = "ops:LookUpAllowListEntry"
	ActionSetAllowListEntry    = "ops:SetAllowListEntry"
	ActionDeleteAllowList      = "ops:DeleteAllowList"
	ActionCreateAllowListLink  = "ops:CreateAllowListLink"
	ActionListAllowListLinks   = "ops:ListAllowListLinks"
	ActionRevokeAllowListLink  = "ops:RevokeAllowListLink"
	allowListsPath             = Prefix + "allowlists"
	allowListPath              = Prefix + "allowlists/{list}"
	revisionsPath              = allowListPath + "/revisions"
	revisionPath               = revisionsPath + "/{revision}"
	linksPath                  = Prefix + "allowlist-links"
	numberBase, numberBitsWide = 10, 64
)

// UploadLinkPrefix begins the paths of upload links; account, id and secret follow.
const UploadLinkPrefix = "/uploads/allowlists/"

// AllowLists is what suppliers have made.
type AllowLists interface {
	Suppliers(ctx context.Context, account fleet.Account, after string, limit int) (page []allowlist.Supplier, next string, err error)
	Supplier(ctx context.Context, account fleet.Account, id string) (allowlist.Supplier, error)
	PutSupplier(ctx context.Context, account fleet.Account, want allowlist.Supplier) (allowlist.Supplier, error)
	PutSigningKey(ctx context.Context, account fleet.Account, supplier string, want allowlist.SigningKey) (allowlist.Supplier, error)
	DeleteSupplier(ctx context.Context, account fleet.Account, id string) error
	Recipient() (string, error)
	Lists(ctx context.Context, account fleet.Account, after string, limit int) (page []allowlist.List, next string, err error)
	List(ctx context.Context, account fleet.Account, id string) (allowlist.List, error)
	Delete(ctx context.Context, account fleet.Account, list string) (allowlist.List, error)
	KeepList(ctx context.Context, account fleet.Account, list string) (allowlist.List, error)
	Upload(ctx context.Context, account fleet.Account, u allowlist.Upload) (allowlist.Revision, error)
	Revisions(ctx context.Context, account fleet.Account, list, after string, limit int) (page []allowlist.Revision, next string, err error)
	Revision(ctx context.Context, account fleet.Account, list string, number int64) (allowlist.Revision, error)
	Original(ctx context.Context, account fleet.Account, list string, number int64) ([]byte, error)
	Diff(ctx context.Context, account fleet.Account, list string, from, to int64) (allowlist.Difference, error)
	Accept(ctx context.Context, account fleet.Account, list string, number int64, note string) (allowlist.Revision, error)
	Reject(ctx context.Context, account fleet.Account, list string, number int64, note string) (allowlist.Revision, error)
	Check(ctx context.Context, account fleet.Account, q allowlist.Query) (allowlist.Checked, error)
	SetEntry(ctx context.Context, account fleet.Account, q allowlist.Query, to allowlist.EntryState, note string) (allowlist.Checked, error)
	CreateLink(ctx context.Context, account fleet.Account, supplier, list string, life time.Duration) (allowlist.Link, error)
	Links(ctx context.Context, account fleet.Account, after string, limit int) (page []allowlist.Link, next string, err error)
	RevokeLink(ctx context.Context, account fleet.Account, id string) error
	CheckLink(ctx context.Context, account fleet.Account, id, secret string) (allowlist.Link, error)
	UploadBy(ctx context.Context, account fleet.Account, id, secret string, body []byte, signature, keyID string) (allowlist.Revision, error)
}

// allowListOutput is a list. Times are RFC 3339 in UTC with milliseconds.
type allowListOutput struct {
	ListID     string `json:"listId"`
	SupplierID string `json:"supplierId"`
	Name       string `json:"name,omitempty"`
	// CurrentRevision is what devices are matched against, absent for none.
	CurrentRevision     int64  `json:"currentRevision,omitempty"`
	LastRevision        int64  `json:"lastRevision"`
	CreatedAt           string `json:"createdAt"`
	ChangedAt           string `json:"changedAt"`
	DeletionAskedBy     string `json:"deletionAskedBy,omitempty"`
	DeletionAskedAt     string `json:"deletionAskedAt,omitempty"`
	DeletedAt           string `json:"deletedAt,omitempty"`
	DeletionConfirmedBy string `json:"deletionConfirmedBy,omitempty"`
}

func allowListOf(l *allowlist.List) allowListOutput {
	return allowListOutput{
		ListID: l.ID, SupplierID: l.Supplier, Name: l.Name, CurrentRevision: l.Current, LastRevision: l.Last, CreatedAt: stamp(l.Created), ChangedAt: stamp(l.Modified),
		DeletionAskedBy: l.DeleteBy, DeletionAskedAt: stamp(l.DeleteAt), DeletedAt: stamp(l.Deleted), DeletionConfirmedBy: l.ConfirmedBy,
	}
}

// revisionOutput is an upload.
type revisionOutput struct {
	ListID     string                   `json:"listId"`
	Revision   int64                    `json:"revision"`
	Status     allowlist.RevisionStatus `json:"status"`
	Format     allowlist.Format         `json:"format"`
	EntryCount int                      `json:"entryCount"`
	Bytes      int                      `json:"bytes"`
	// SHA256 is of the upload as it came.
	SHA256     string `json:"sha256"`
	SignerKid  string `json:"signerKid,omitempty"`
	IssuedAt   string `json:"issuedAt,omitempty"`
	UploadedBy string `json:"uploadedBy"`
	UploadedAt string `json:"uploadedAt"`
	LinkID     string `json:"linkId,omitempty"`
	VettedBy   string `json:"vettedBy,omitempty"`
	VettedAt   string `json:"vettedAt,omitempty"`
	Note       string `json:"note,omitempty"`
}

func revisionOf(r *allowlist.Revision) revisionOutput {
	return revisionOutput{
		ListID: r.List, Revision: r.Number, Status: r.Status, Format: r.Format, EntryCount: r.Entries, Bytes: r.Bytes, SHA256: r.Digest, SignerKid: r.SignerKey,
		IssuedAt: stamp(r.Issued), UploadedBy: r.UploadedBy, UploadedAt: stamp(r.UploadedAt), LinkID: r.Link, VettedBy: r.VettedBy, VettedAt: stamp(r.VettedAt), Note: r.Note,
	}
}

// listCheckInput is a device that is looked for, with what its entry becomes in
// POST /ops/v1/allowlists:entry.
type listCheckInput struct {
	Serial      string               `json:"serial,omitempty"`
	Model       string               `json:"model,omitempty"`
	Fingerprint string               `json:"fingerprint,omitempty"`
	Template    string               `json:"templateName,omitempty"`
	Supplier    string               `json:"supplierId,omitempty"`
	State       allowlist.EntryState `json:"state,omitempty"`
	Note        string               `json:"note,omitempty"`
}

func (in *listCheckInput) query() allowlist.Query {
	q := allowlist.Query{Serial: in.Serial, Model: in.Model, Template: in.Template, Supplier: in.Supplier}
	if in.Fingerprint != "" {
		q.Fingerprints = []string{in.Fingerprint}
	}
	return q
}

// listCheckOutput is what the lists say of a device.
type listCheckOutput struct {
	Allowed    bool                 `json:"allowed"`
	Reason     allowlist.Reason     `json:"reason,omitempty"`
	Message    string               `json:"message"`
	ListID     string               `json:"listId,omitempty"`
	Revision   int64                `json:"revision,omitempty"`
	SupplierID string               `json:"supplierId,omitempty"`
	Match      allowlist.Found      `json:"match,omitempty"`
	State      allowlist.EntryState `json:"state,omitempty"`
	// ThingName and CertificateID are who has joined with the entry.
	ThingName     string `json:"thingName,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	Note          string `json:"note,omitempty"`
}

func checkOf(c *allowlist.Checked) listCheckOutput {
	return listCheckOutput{
		Allowed: c.Reason == "" && c.State == allowlist.Unused, Reason: c.Reason, Message: c.Words(), ListID: c.List, Revision: c.Revision, SupplierID: c.Supplier,
		Match: c.Found, State: c.State, ThingName: c.Thing, CertificateID: c.CertificateID, Note: c.Note,
	}
}

// linkOutput is an upload link.
type linkOutput struct {
	LinkID     string `json:"linkId"`
	SupplierID string `json:"supplierId"`
	ListID     string `json:"listId"`
	// Path is what comes behind the server's address; it is shown once.
	Path      string `json:"path,omitempty"`
	CreatedBy string `json:"createdBy"`
	CreatedAt string `json:"createdAt"`
	ExpiresAt string `json:"expiresAt"`
	UsedAt    string `json:"usedAt,omitempty"`
	Revision  int64  `json:"revision,omitempty"`
}

func linkOf(l *allowlist.Link) linkOutput {
	return linkOutput{
		LinkID: l.ID, SupplierID: l.Supplier, ListID: l.List, CreatedBy: l.CreatedBy, CreatedAt: stamp(l.Created), ExpiresAt: stamp(l.Expires),
		UsedAt: stamp(l.Used), Revision: l.Revision,
	}
}

// revisionNumber reads the number in a path.
func revisionNumber(text string) (int64, error) {
	n, err := strconv.ParseInt(text, numberBase, numberBitsWide)
	if err != nil || n < 1 {
		return 0, fault.New(fault.InvalidRequest, "revision must be a whole number from 1")
	}
	return n, nil
}

// handleAllowLists adds the operations.
func (h *handler) handleAllowLists(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"allowlist-recipient", h.read(ActionListAllowLists, func(context.Context, *http.Request) (any, error) {
		recipient, err := h.o.AllowLists.Recipient()
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return map[string]string{"recipient": recipient}, nil
	}))
	mux.HandleFunc("GET "+allowListsPath, h.read(ActionListAllowLists, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.allowlists", "")
		if err != nil {
			return nil, err
		}
		found, next, err := h.o.AllowLists.Lists(ctx, l.account, l.after, l.limit)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		out := struct {
			Lists     []allowListOutput `json:"allowLists"`
			NextToken string            `json:"nextToken,omitempty"`
		}{make([]allowListOutput, len(found)), h.nextToken(&l, next)}
		for i := range found {
			out.Lists[i] = allowListOf(&found[i])
		}
		return out, nil
	}))
	one := func(do func(ctx context.Context, account fleet.Account, list string) (allowlist.List, error)) func(ctx context.Context, r *http.Request) (any, error) {
		return func(ctx context.Context, r *http.Request) (any, error) {
			l, err := do(ctx, h.o.Account(ctx), r.PathValue("list"))
			if err != nil {
				return nil, err
			}
			return allowListOf(&l), nil
		}
	}
	without := func(do func(ctx context.Context, r *http.Request) (any, error)) func(context.Context, *http.Request, []byte) (any, error) {
		return func(ctx context.Context, r *http.Request, _ []byte) (any, error) { return do(ctx, r) }
	}
	mux.HandleFunc("GET "+allowListPath, h.read(ActionGetAllowList, one(h.o.allowList)))
	mux.HandleFunc("DELETE "+allowListPath, h.operate(ActionDeleteAllowList, without(one(h.o.deleteAllowList))))
	mux.HandleFunc("POST "+allowListPath+"/keep", h.operate(ActionDeleteAllowList, without(one(h.o.keepAllowList))))
	mux.HandleFunc("POST "+allowListsPath+":check", h.silently(ActionLookUpAllowListEntry, h.checkAllowLists))
	mux.HandleFunc("POST "+allowListsPath+":entry", h.silently(ActionSetAllowListEntry, h.setAllowListEntry))
	h.handleRevisions(mux)
	h.handleLinks(mux)
}

func (o *Options) allowList(ctx context.Context, account fleet.Account, list string) (allowlist.List, error) {
	return o.AllowLists.List(ctx, account, list) //nolint:wrapcheck // coded
}

func (o *Options) deleteAllowList(ctx context.Context, account fleet.Account, list string) (allowlist.List, error) {
	return o.AllowLists.Delete(ctx, account, list) //nolint:wrapcheck // coded
}

func (o *Options) keepAllowList(ctx context.Context, account fleet.Account, list string) (allowlist.List, error) {
	return o.AllowLists.KeepList(ctx, account, list) //nolint:wrapcheck // coded
}

// silently is operate for a body that is not recorded.
func (h *handler) silently(action string, do func(ctx context.Context, body []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r, body, err := h.enterSilently(w, r, action, maxBody)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		out, err := do(r.Context(), body) //nolint:contextcheck // enter returned the same request with the actor
		if err != nil {
			h.fail(w, r, err)
			return
		}
		h.answer(w, r, out)
	}
}

func (h *handler) checkAllowLists(ctx context.Context, body []byte) (any, error) {
	var in listCheckInput
	if err := decodeSilently(body, &in); err != nil {
		return nil, err
	}
	if in.State != "" || in.Note != "" {
		return nil, fault.New(fault.InvalidRequest, "state and note are for allowlists:entry")
	}
	c, err := h.o.AllowLists.Check(ctx, h.o.Account(ctx), in.query())
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return checkOf(&c), nil
}

func (h *handler) setAllowListEntry(ctx context.Context, body []byte) (any, error) {
	var in listCheckInput
	if err := decodeSilently(body, &in); err != nil {
		return nil, err
	}
	c, err := h.o.AllowLists.SetEntry(ctx, h.o.Account(ctx), in.query(), in.State, in.Note)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return checkOf(&c), nil
}

// decodeSilently is decodeStrictly without the decoder's words, which repeat the body.
func decodeSilently(body []byte, into any) error {
	if err := decodeStrictly(body, into); err != nil {
		return fault.New(fault.InvalidRequest, "the body is not what this operation takes")
	}
	return nil
}

// handleRevisions adds the operations on revisions.
func (h *handler) handleRevisions(mux *routes) {
	mux.HandleFunc("GET "+revisionsPath, h.read(ActionListAllowLists, func(ctx context.Context, r *http.Request) (any, error) {
		id := r.PathValue("list")
		l, err := h.openList(ctx, r, "ops.allowlist-revisions", id)
		if err != nil {
			return nil, err
		}
		found, next, err := h.o.AllowLists.Revisions(ctx, l.account, id, l.after, l.limit)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		out := struct {
			Revisions []revisionOutput `json:"revisions"`
			NextToken string           `json:"nextToken,omitempty"`
		}{make([]revisionOutput, len(found)), h.nextToken(&l, next)}
		for i := range found {
			out.Revisions[i] = revisionOf(&found[i])
		}
		return out, nil
	}))
	mux.HandleFunc("POST "+revisionsPath, h.uploadAllowList)
	mux.HandleFunc("GET "+revisionPath, h.read(ActionGetAllowList, func(ctx context.Context, r *http.Request) (any, error) {
		number, err := revisionNumber(r.PathValue("revision"))
		if err != nil {
			return nil, err
		}
		found, err := h.o.AllowLists.Revision(ctx, h.o.Account(ctx), r.PathValue("list"), number)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return revisionOf(&found), nil
	}))
	mux.HandleFunc("GET "+revisionPath+"/original", h.originalAllowList)
	mux.HandleFunc("GET "+revisionPath+"/diff", h.read(ActionReadAllowList, func(ctx context.Context, r *http.Request) (any, error) {
		to, err := revisionNumber(r.PathValue("revision"))
		if err != nil {
			return nil, err
		}
		from, err := revisionNumber(r.URL.Query().Get("from"))
		if err != nil {
			return nil, fault.New(fault.InvalidRequest, "from must be the number of a revision")
		}
		d, err := h.o.AllowLists.Diff(ctx, h.o.Account(ctx), r.PathValue("list"), from, to)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return struct {
			AddedCount   int      `json:"addedCount"`
			RemovedCount int      `json:"removedCount"`
			ChangedCount int      `json:"changedCount"`
			Added        []string `json:"added"`
			Removed      []string `json:"removed"`
			Changed      []string `json:"changed"`
		}{d.AddedCount, d.RemovedCount, d.ChangedCount, d.Added, d.Removed, d.Changed}, nil
	}))
	for word, do := range map[string]func(ctx context.Context, account fleet.Account, list string, number int64, note string) (allowlist.Revision, error){
		"accept": h.o.acceptAllowList, "reject": h.o.rejectAllowList,
	} {
		mux.HandleFunc("POST "+revisionPath+"/"+word, h.operate(ActionVetAllowList, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
			var in struct {
				Note string `json:"note"`
			}
			if len(body) > 0 {
				if err := decodeStrictly(body, &in); err != nil {
					return nil, err
				}
			}
			number, err := revisionNumber(r.PathValue("revision"))
			if err != nil {
				return nil, err
			}
			after, err := do(ctx, h.o.Account(ctx), r.PathValue("list"), number, in.Note)
			if err != nil {
				return nil, err
			}
			return revisionOf(&after), nil
		}))
	}
}

func (o *Options) acceptAllowList(ctx context.Context, account fleet.Account, list string, number int64, note string) (allowlist.Revision, error) {
	return o.AllowLists.Accept(ctx, account, list, number, note) //nolint:wrapcheck // coded
}

func (o *Options) rejectAllowList(ctx context.Context, account fleet.Account, list string, number int64, note string) (allowlist.Revision, error) {
	return o.AllowLists.Reject(ctx, account, list, number, note) //nolint:wrapcheck // coded
}

// uploadAllowList takes a revision: the body is the list as it is, the query names
// supplier, kid, name and signature. Nothing of the body is recorded.
func (h *handler) uploadAllowList(w http.ResponseWriter, r *http.Request) {
	limit, release, err := h.admitLong(r, allowlist.MaxBytes)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer release()
	r, body, err := h.enterSilently(w, r, ActionPutAllowList, limit)
	if err == nil {
		err = takeTime(w)
	}
	var q url.Values
	if err == nil {
		q, err = onlyParameters(r, "supplier", "name", "kid", "signature")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ctx := r.Context()
	made, err := h.o.AllowLists.Upload(ctx, h.o.Account(ctx), allowlist.Upload{ //nolint:contextcheck // enter returned the same request with the actor
		Supplier: q.Get("supplier"), List: r.PathValue("list"), Name: q.Get("name"), Body: body, Signature: q.Get("signature"), KeyID: q.Get("kid"),
	})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, revisionOf(&made))
}

// onlyParameters returns the query of a request that has no other parameters.
func onlyParameters(r *http.Request, names ...string) (url.Values, error) {
	q := r.URL.Query()
	for name, values := range q {
		known := strings.HasPrefix(name, "X-Amz-")
		for _, n := range names {
			known = known || n == name
		}
		if !known || len(values) > 1 {
			return nil, fault.New(fault.InvalidRequest, "%s: is no parameter of this operation, or is given more than once", name)
		}
	}
	return q, nil
}

// originalAllowList gives out an upload as it came.
func (h *handler) originalAllowList(w http.ResponseWriter, r *http.Request) {
	r, _, err := h.enter(w, r, ActionReadAllowList)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	number, err := revisionNumber(r.PathValue("revision"))
	var body []byte
	if err == nil {
		ctx := r.Context()
		body, err = h.o.AllowLists.Original(ctx, h.o.Account(ctx), r.PathValue("list"), number) //nolint:contextcheck // enter returned the same request with the actor
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = io.Copy(w, bytes.NewReader(body)) // the caller may have left
}

// handleLinks adds the operations on upload links.
func (h *handler) handleLinks(mux *routes) {
	mux.HandleFunc("POST "+allowListPath+"/links", h.operate(ActionCreateAllowListLink, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in struct {
			Supplier string `json:"supplierId"`
			// ValidFor is such as 24h; a week when it is absent.
			ValidFor string `json:"validFor"`
		}
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		var life time.Duration
		if in.ValidFor != "" {
			var err error
			if life, err = time.ParseDuration(in.ValidFor); err != nil || life <= 0 {
				return nil, fault.New(fault.InvalidRequest, "validFor must be a time such as 24h")
			}
		}
		account := h.o.Account(ctx)
		made, err := h.o.AllowLists.CreateLink(ctx, account, in.Supplier, r.PathValue("list"), life)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		out := linkOf(&made)
		out.Path = UploadLinkPrefix + string(account) + "/" + made.ID + "/" + made.Secret
		return out, nil
	}))
	mux.HandleFunc("GET "+linksPath, h.read(ActionListAllowListLinks, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.allowlist-links", "")
		if err != nil {
			return nil, err
		}
		found, next, err := h.o.AllowLists.Links(ctx, l.account, l.after, l.limit)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		out := struct {
			Links     []linkOutput `json:"links"`
			NextToken string       `json:"nextToken,omitempty"`
		}{make([]linkOutput, len(found)), h.nextToken(&l, next)}
		for i := range found {
			out.Links[i] = linkOf(&found[i])
		}
		return out, nil
	}))
	mux.HandleFunc("DELETE "+linksPath+"/{link}", h.operate(ActionRevokeAllowListLink, func(ctx context.Context, r *http.Request, _ []byte) (any, error) {
		return nil, h.o.AllowLists.RevokeLink(ctx, h.o.Account(ctx), r.PathValue("link")) //nolint:wrapcheck // coded
	}))
}

// UploadLinks takes uploads of who has a link and no account: PUT or POST to
// UploadLinkPrefix/ACCOUNT/LINK/SECRET, with signature and kid in the query. The link is
// checked before the body is read, and few are read at a time.
func UploadLinks(lists AllowLists) http.Handler {
	places := make(chan struct{}, maxImports)
	fail := func(w http.ResponseWriter, err error) {
		coded := fault.From(err)
		http.Error(w, coded.Message, status(coded.Code))
	}
	mux := http.NewServeMux()
	take := func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		account, id, secret := fleet.Account(r.PathValue("account")), r.PathValue("link"), r.PathValue("secret")
		if _, err := lists.CheckLink(ctx, account, id, secret); err != nil {
			fail(w, err)
			return
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			fail(w, fault.New(fault.Throttling, "%d lists are being taken; try again", maxImports))
			return
		}
		q, err := onlyParameters(r, "signature", "kid")
		if err != nil {
			fail(w, err)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, allowlist.MaxBytes))
		if err != nil {
			fail(w, fault.New(fault.InvalidRequest, "the body is longer than %d bytes or ends early", allowlist.MaxBytes))
			return
		}
		if err := takeTime(w); err != nil {
			fail(w, err)
			return
		}
		host, _, _ := net.SplitHostPort(r.RemoteAddr) // empty for what has no port
		ctx = fleet.WithActor(ctx, fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalAnonymous, ID: "upload-link/" + id}, SourceAddress: host})
		made, err := lists.UploadBy(ctx, account, id, secret, body, q.Get("signature"), q.Get("kid"))
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "revision "+strconv.FormatInt(made.Number, numberBase)+" of "+made.List+", "+strconv.Itoa(made.Entries)+" entries, sha256 "+made.Digest+", "+string(made.Status)+"\n") // the sender may have left
	}
	const pattern = UploadLinkPrefix + "{account}/{link}/{secret}"
	mux.HandleFunc("PUT "+pattern, take)
	mux.HandleFunc("POST "+pattern, take)
	return mux
}
