package apiclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Supplier makes devices and says which.
type Supplier struct {
	ID     string `json:"supplierId,omitempty"`
	Name   string `json:"name,omitempty"`
	Status string `json:"status,omitempty"`
	// Templates are the only ones by which its devices join; empty for any.
	Templates      []string      `json:"templateNames,omitempty"`
	AcceptUnsigned bool          `json:"acceptUnsigned,omitempty"`
	AcceptSigned   bool          `json:"acceptSigned,omitempty"`
	Keys           []SupplierKey `json:"signingKeys,omitempty"`
	Created        string        `json:"createdAt,omitempty"`
	Changed        string        `json:"changedAt,omitempty"`
}

// SupplierKey is a public key with which a supplier signs.
type SupplierKey struct {
	ID        string `json:"kid,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	PublicKey string `json:"publicKey"`
	From      string `json:"validFrom,omitempty"`
	Until     string `json:"validTo,omitempty"`
}

// AllowList is a supplier's list of devices.
type AllowList struct {
	ID       string `json:"listId"`
	Supplier string `json:"supplierId"`
	Name     string `json:"name,omitempty"`
	// Current is the revision that devices are matched against, 0 for none.
	Current         int64  `json:"currentRevision,omitempty"`
	Last            int64  `json:"lastRevision"`
	Created         string `json:"createdAt"`
	Changed         string `json:"changedAt"`
	DeletionAskedBy string `json:"deletionAskedBy,omitempty"`
	DeletionAskedAt string `json:"deletionAskedAt,omitempty"`
	Deleted         string `json:"deletedAt,omitempty"`
	DeletedBy       string `json:"deletionConfirmedBy,omitempty"`
}

// AllowListRevision is an upload.
type AllowListRevision struct {
	List       string `json:"listId"`
	Number     int64  `json:"revision"`
	Status     string `json:"status"`
	Format     string `json:"format"`
	Entries    int    `json:"entryCount"`
	Bytes      int    `json:"bytes"`
	SHA256     string `json:"sha256"`
	SignerKey  string `json:"signerKid,omitempty"`
	Issued     string `json:"issuedAt,omitempty"`
	UploadedBy string `json:"uploadedBy"`
	UploadedAt string `json:"uploadedAt"`
	Link       string `json:"linkId,omitempty"`
	VettedBy   string `json:"vettedBy,omitempty"`
	VettedAt   string `json:"vettedAt,omitempty"`
	Note       string `json:"note,omitempty"`
}

// AllowListUpload is a list as it goes out.
type AllowListUpload struct {
	Supplier, List, Name string
	Body                 []byte
	// Signature is base64 or a detached JWS; KeyID names the key of the former.
	Signature, KeyID string
}

// AllowListDifference is what one revision has otherwise than another; serial numbers
// with their model behind a slash, not all of many.
type AllowListDifference struct {
	AddedCount   int      `json:"addedCount"`
	RemovedCount int      `json:"removedCount"`
	ChangedCount int      `json:"changedCount"`
	Added        []string `json:"added"`
	Removed      []string `json:"removed"`
	Changed      []string `json:"changed"`
}

// ListedDevice is a device that is looked for.
type ListedDevice struct {
	Serial      string `json:"serial,omitempty"`
	Model       string `json:"model,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Template    string `json:"templateName,omitempty"`
}

// AllowListCheck is what the lists say of a device.
type AllowListCheck struct {
	Allowed       bool   `json:"allowed"`
	Reason        string `json:"reason,omitempty"`
	Message       string `json:"message"`
	List          string `json:"listId,omitempty"`
	Revision      int64  `json:"revision,omitempty"`
	Supplier      string `json:"supplierId,omitempty"`
	Match         string `json:"match,omitempty"`
	State         string `json:"state,omitempty"`
	Thing         string `json:"thingName,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	Note          string `json:"note,omitempty"`
}

// AllowListLink lets somebody without an account upload once.
type AllowListLink struct {
	ID       string `json:"linkId"`
	Supplier string `json:"supplierId"`
	List     string `json:"listId"`
	// Path is only in the answer that made the link.
	Path      string `json:"path,omitempty"`
	CreatedBy string `json:"createdBy"`
	Created   string `json:"createdAt"`
	Expires   string `json:"expiresAt"`
	Used      string `json:"usedAt,omitempty"`
	Revision  int64  `json:"revision,omitempty"`
}

// opsAll walks a list of /ops/v1 up to limit, 0 for all; member names it in the pages.
func opsAll[T any](ctx context.Context, c *Client, path, member string, limit int) ([]T, error) {
	query := url.Values{}
	for all := []T{}; ; {
		if limit > 0 {
			query.Set("maxResults", strconv.Itoa(min(limit-len(all), maxOpsPage)))
		}
		var page map[string]json.RawMessage
		if err := c.JSON(ctx, get(path, query), nil, &page); err != nil {
			return nil, err
		}
		var items []T
		next := ""
		for name, into := range map[string]any{member: &items, "nextToken": &next} {
			if text := page[name]; text != nil {
				if err := json.Unmarshal(text, into); err != nil {
					return nil, fmt.Errorf("decode %s of %s: %w", name, path, err)
				}
			}
		}
		all = append(all, items...)
		if next == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		query.Set("nextToken", next)
	}
}

// Suppliers lists suppliers in the order of their ids.
func (c *Client) Suppliers(ctx context.Context, limit int) ([]Supplier, error) {
	return opsAll[Supplier](ctx, c, "/ops/v1/suppliers", "suppliers", limit)
}

// Supplier describes one.
func (c *Client) Supplier(ctx context.Context, id string) (Supplier, error) {
	var out Supplier
	return out, c.JSON(ctx, get(Path("ops", "v1", "suppliers", id), nil), nil, &out)
}

// PutSupplier makes a supplier or changes it; its keys stay as they are.
func (c *Client) PutSupplier(ctx context.Context, id string, s Supplier) (Supplier, error) {
	s.ID, s.Keys, s.Created, s.Changed = "", nil, "", ""
	var out Supplier
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPut, Path: Path("ops", "v1", "suppliers", id)}, s, &out)
}

// PutSupplierKey gives a supplier a key, or one that it has another end.
func (c *Client) PutSupplierKey(ctx context.Context, supplier string, k SupplierKey) (Supplier, error) {
	request := Request{Service: ServiceControl, Method: http.MethodPut, Path: Path("ops", "v1", "suppliers", supplier, "keys", k.ID)}
	k.ID = ""
	var out Supplier
	return out, c.JSON(ctx, request, k, &out)
}

// DeleteSupplier removes one that has no lists.
func (c *Client) DeleteSupplier(ctx context.Context, id string) error {
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: Path("ops", "v1", "suppliers", id)}, nil, nil)
}

// AllowListRecipient is for whom suppliers encrypt lists.
func (c *Client) AllowListRecipient(ctx context.Context) (string, error) {
	var out struct {
		Recipient string `json:"recipient"`
	}
	return out.Recipient, c.JSON(ctx, get("/ops/v1/allowlist-recipient", nil), nil, &out)
}

// AllowLists lists lists in the order of their ids, also deleted ones.
func (c *Client) AllowLists(ctx context.Context, limit int) ([]AllowList, error) {
	return opsAll[AllowList](ctx, c, "/ops/v1/allowlists", "allowLists", limit)
}

// AllowList describes one.
func (c *Client) AllowList(ctx context.Context, list string) (AllowList, error) {
	var out AllowList
	return out, c.JSON(ctx, get(listPath(list), nil), nil, &out)
}

// DeleteAllowList asks for the deletion of a list, or agrees to it.
func (c *Client) DeleteAllowList(ctx context.Context, list string) (AllowList, error) {
	var out AllowList
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: listPath(list)}, nil, &out)
}

// KeepAllowList takes back a deletion that nobody has agreed to.
func (c *Client) KeepAllowList(ctx context.Context, list string) (AllowList, error) {
	var out AllowList
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: listPath(list, "keep")}, nil, &out)
}

func listPath(list string, more ...string) string {
	return Path(append([]string{"ops", "v1", "allowlists", list}, more...)...)
}

func listRevisionPath(list string, number int64, more ...string) string {
	return listPath(list, append([]string{"revisions", strconv.FormatInt(number, 10)}, more...)...)
}

// AllowListRevisions lists the revisions of a list, the first ones first.
func (c *Client) AllowListRevisions(ctx context.Context, list string, limit int) ([]AllowListRevision, error) {
	return opsAll[AllowListRevision](ctx, c, listPath(list, "revisions"), "revisions", limit)
}

// AllowListRevision describes one.
func (c *Client) AllowListRevision(ctx context.Context, list string, number int64) (AllowListRevision, error) {
	var out AllowListRevision
	return out, c.JSON(ctx, get(listRevisionPath(list, number), nil), nil, &out)
}

// octets says that a body is no JSON, and which: of a long one a server wants to know
// before it reads it.
func octets(body []byte) http.Header {
	sum := sha256.Sum256(body)
	return http.Header{"Content-Type": {"application/octet-stream"}, "X-Amz-Content-Sha256": {hex.EncodeToString(sum[:])}}
}

// UploadAllowList makes a revision.
func (c *Client) UploadAllowList(ctx context.Context, u AllowListUpload) (AllowListRevision, error) {
	query := url.Values{"supplier": {u.Supplier}}
	for name, value := range map[string]string{"name": u.Name, "kid": u.KeyID, "signature": u.Signature} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var out AllowListRevision
	return out, c.JSON(ctx, Request{
		Service: ServiceControl, Method: http.MethodPost, Path: listPath(u.List, "revisions"), Query: query, Header: octets(u.Body), Body: u.Body,
	}, nil, &out)
}

// UploadByLink uploads with a link's path, which needs no credentials, and returns what
// the server says of it.
func (c *Client) UploadByLink(ctx context.Context, path string, u AllowListUpload) (string, error) {
	query := url.Values{}
	for name, value := range map[string]string{"kid": u.KeyID, "signature": u.Signature} {
		if value != "" {
			query.Set(name, value)
		}
	}
	said, err := c.Raw(ctx, Request{Method: http.MethodPut, Path: path, Query: query, Header: octets(u.Body), Body: u.Body})
	return string(said), err
}

// maxAllowList is the most that an upload has in bytes.
const maxAllowList = 64 << 20

// AllowListOriginal is a revision as it was uploaded.
func (c *Client) AllowListOriginal(ctx context.Context, list string, number int64) ([]byte, error) {
	body, err := c.Stream(ctx, get(listRevisionPath(list, number, "original"), nil))
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(body, maxAllowList+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(data) > maxAllowList {
		return nil, fmt.Errorf("answer is larger than %d bytes", maxAllowList)
	}
	return data, nil
}

// DiffAllowList compares two revisions.
func (c *Client) DiffAllowList(ctx context.Context, list string, from, to int64) (AllowListDifference, error) {
	var out AllowListDifference
	return out, c.JSON(ctx, get(listRevisionPath(list, to, "diff"), url.Values{"from": {strconv.FormatInt(from, 10)}}), nil, &out)
}

// VetAllowList says accept or reject about a revision.
func (c *Client) VetAllowList(ctx context.Context, list string, number int64, word, note string) (AllowListRevision, error) {
	var out AllowListRevision
	in := map[string]string{"note": note}
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: listRevisionPath(list, number, word)}, in, &out)
}

// CheckAllowLists says what the lists have of a device.
func (c *Client) CheckAllowLists(ctx context.Context, d ListedDevice) (AllowListCheck, error) {
	var out AllowListCheck
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: "/ops/v1/allowlists:check"}, d, &out)
}

// SetAllowListEntry makes the entry of a device UNUSED or BLOCKED.
func (c *Client) SetAllowListEntry(ctx context.Context, d ListedDevice, state, note string) (AllowListCheck, error) {
	in := struct {
		ListedDevice

		State string `json:"state"`
		Note  string `json:"note"`
	}{d, state, note}
	var out AllowListCheck
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: "/ops/v1/allowlists:entry"}, in, &out)
}

// CreateAllowListLink makes a link; life is such as 24h, empty for a week.
func (c *Client) CreateAllowListLink(ctx context.Context, supplier, list, life string) (AllowListLink, error) {
	in := struct {
		Supplier string `json:"supplierId"`
		Life     string `json:"validFor,omitempty"`
	}{supplier, life}
	var out AllowListLink
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: listPath(list, "links")}, in, &out)
}

// AllowListLinks lists links in the order of their ids.
func (c *Client) AllowListLinks(ctx context.Context, limit int) ([]AllowListLink, error) {
	return opsAll[AllowListLink](ctx, c, "/ops/v1/allowlist-links", "links", limit)
}

// RevokeAllowListLink ends one.
func (c *Client) RevokeAllowListLink(ctx context.Context, id string) error {
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: Path("ops", "v1", "allowlist-links", id)}, nil, nil)
}

// Address is the server's URL, which a path follows.
func (c *Client) Address() string { return c.base }
