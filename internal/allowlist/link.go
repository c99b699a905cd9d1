package allowlist

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// maxLinkLife bounds the life of a link, defaultLinkLife is what it has when nobody says.
	maxLinkLife, defaultLinkLife = 30 * 24 * time.Hour, 7 * 24 * time.Hour
	// secretBytes is the length of a link's secret.
	secretBytes = 32
)

// Link lets somebody without an account upload one revision of one list, once.
type Link struct {
	ID, Supplier, List string
	// Secret is set when the link is made, and never again.
	Secret           string
	Created, Expires time.Time
	CreatedBy        string
	// Used is zero for one that was not used; Revision is what it has brought.
	Used     time.Time
	Revision int64
}

// linkRecord is the stored form of a link.
type linkRecord struct {
	Schema    int    `json:"v"`
	Supplier  string `json:"supplier"`
	List      string `json:"list"`
	Hash      string `json:"hash"`
	Created   int64  `json:"created"`
	CreatedBy string `json:"createdBy"`
	Expires   int64  `json:"expires"`
	Used      int64  `json:"used,omitempty"`
	Revision  int64  `json:"revision,omitempty"`
}

func linkOf(id string, r *linkRecord) Link {
	return Link{
		ID: id, Supplier: r.Supplier, List: r.List, Created: moment(r.Created), Expires: moment(r.Expires), CreatedBy: r.CreatedBy,
		Used: moment(r.Used), Revision: r.Revision,
	}
}

// CreateLink makes an upload link for a supplier's list; life is zero for a week.
func (s *Service) CreateLink(ctx context.Context, account fleet.Account, supplier, list string, life time.Duration) (Link, error) {
	if life == 0 {
		life = defaultLinkLife
	}
	switch {
	case !namePattern.MatchString(list):
		return Link{}, fault.New(fault.InvalidRequest, "list must have 1 to 64 letters, digits, _, . and -")
	case life < time.Minute || life > maxLinkLife:
		return Link{}, fault.New(fault.InvalidRequest, "life must be from a minute to %v", maxLinkLife)
	case s.o.Identity == nil:
		return Link{}, errNoIdentity()
	}
	random := make([]byte, secretBytes)
	_, _ = rand.Read(random) // it never fails
	secret := base64.RawURLEncoding.EncodeToString(random)
	id := strings.ReplaceAll(s.o.NewID(), "-", "")
	var out Link
	err := s.change(ctx, account, func(b *batch) error {
		if _, err := b.supplier(ctx, supplier); err != nil {
			return err
		}
		var l listRecord
		if found, err := b.load(ctx, listKey(account, list), &l); err != nil {
			return err
		} else if found && (l.Supplier != supplier || l.Deleted != 0) {
			return fault.New(fault.InvalidRequest, "allow list %s is deleted or of another supplier", list)
		}
		now := s.o.Now()
		r := linkRecord{
			Schema: schemaVersion, Supplier: supplier, List: list, Hash: hashSecret(secret), Created: now.UnixMilli(),
			CreatedBy: identityOf(fleet.ActorFrom(ctx).Principal), Expires: now.Add(life).UnixMilli(),
		}
		out = linkOf(id, &r)
		b.emit(ctx, event.AllowListChanged{List: list, Supplier: supplier, Change: event.AllowListLinkCreated, Link: id})
		return b.put(linkKey(account, id), r)
	})
	out.Secret = secret
	return out, err
}

func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Links returns a page in the order of ids, and what the next one begins after.
func (s *Service) Links(ctx context.Context, account fleet.Account, after string, limit int) (page []Link, next string, err error) {
	page = []Link{}
	next, err = s.page(ctx, []string{kindLink, string(account)}, after, limit, func(found store.Record) error {
		var r linkRecord
		if err := decode(found, &r); err != nil {
			return err
		}
		page = append(page, linkOf(found.Key.Last(), &r))
		return nil
	})
	return page, next, err
}

// RevokeLink removes a link.
func (s *Service) RevokeLink(ctx context.Context, account fleet.Account, id string) error {
	return s.change(ctx, account, func(b *batch) error {
		var r linkRecord
		found, err := b.load(ctx, linkKey(account, id), &r)
		if err != nil {
			return err
		}
		if !found {
			return fault.New(fault.ResourceNotFound, "upload link %.64q does not exist", id)
		}
		b.emit(ctx, event.AllowListChanged{List: r.List, Supplier: r.Supplier, Change: event.AllowListLinkRevoked, Link: id})
		b.remove(linkKey(account, id))
		return nil
	})
}

// CheckLink refuses a link that lets nobody upload: unknown, used, over, or with
// another secret. All of them have the same words. It is asked before a body is read.
func (s *Service) CheckLink(ctx context.Context, account fleet.Account, id, secret string) (Link, error) {
	var r linkRecord
	version, err := read(ctx, s.o.Store, linkKey(account, id), &r)
	if err != nil {
		return Link{}, err
	}
	given := hashSecret(secret)
	same := subtle.ConstantTimeCompare([]byte(given), []byte(r.Hash)) == 1
	if version == 0 || !same || r.Used != 0 || !s.o.Now().Before(moment(r.Expires)) {
		return Link{}, fault.New(fault.Forbidden, "the upload link is not valid, was used, or is over")
	}
	return linkOf(id, &r), nil
}

// UploadBy takes the revision of who has a link. A list that is refused does not use it
// up.
func (s *Service) UploadBy(ctx context.Context, account fleet.Account, id, secret string, body []byte, signature, keyID string) (Revision, error) {
	link, err := s.CheckLink(ctx, account, id, secret)
	if err != nil {
		return Revision{}, err
	}
	// The link is used up first, and given back when nothing came of it: two uploads at
	// once must not both be taken.
	if err := s.useLink(ctx, account, id, s.o.Now().UnixMilli(), 0); err != nil {
		return Revision{}, err
	}
	r, err := s.Upload(ctx, account, Upload{
		Supplier: link.Supplier, List: link.List, Body: body, Signature: signature, KeyID: keyID, by: link.CreatedBy, link: id,
	})
	after := context.WithoutCancel(ctx)
	if err != nil {
		if again := s.useLink(after, account, id, 0, 0); again != nil {
			s.o.Logger.ErrorContext(ctx, "an upload link that brought nothing stays used", slog.String("link", id), slog.Any("err", again))
		}
		return Revision{}, err
	}
	return r, s.useLink(after, account, id, s.o.Now().UnixMilli(), r.Number)
}

// useLink writes that a link is used, or is not. Only an unused one can be taken into
// use.
func (s *Service) useLink(ctx context.Context, account fleet.Account, id string, used, revision int64) error {
	return s.change(ctx, account, func(b *batch) error {
		var r linkRecord
		found, err := b.load(ctx, linkKey(account, id), &r)
		if err != nil {
			return err
		}
		if !found || used != 0 && revision == 0 && r.Used != 0 {
			return fault.New(fault.Forbidden, "the upload link is not valid, was used, or is over")
		}
		r.Used, r.Revision = used, revision
		return b.put(linkKey(account, id), r)
	})
}
