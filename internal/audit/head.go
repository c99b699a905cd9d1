package audit

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// SeedSize is the size of the secret that heads are signed with.
const SeedSize = ed25519.SeedSize

// Head is a signed statement about a chain: that the record with this sequence
// had this hash. Kept elsewhere, it shows later that nothing up to there was
// changed or removed.
type Head struct {
	Schema int `json:"v"`
	// What is headOf, anchorOf or endOf: a statement of one kind is none of
	// another.
	What    string        `json:"what"`
	Account fleet.Account `json:"account"`
	// Seq is 0 and Hash all zeros for a chain without records.
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
	Time string `json:"time"`
	// First and PrevHash are where an export begins.
	First    uint64 `json:"first,omitempty"`
	PrevHash string `json:"prevHash,omitempty"`
	// PublicKey is the Ed25519 key, Signature is over everything else here.
	PublicKey string `json:"publicKey"`
	Signature string `json:"signature,omitempty"`
}

// Kinds of statements.
const (
	// headOf is the end of a chain.
	headOf = "muster audit head"
	// anchorOf is the last record that retention removed.
	anchorOf = "muster audit anchor"
	// endOf is the last line of an export.
	endOf = "muster audit export"
)

// sign completes a statement.
func sign(key ed25519.PrivateKey, h Head, now time.Time) (Head, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return h, errors.New("audit: the key has no Ed25519 public key")
	}
	h.Schema, h.Time, h.PublicKey, h.Signature = schema, now.UTC().Format(timeLayout), base64.StdEncoding.EncodeToString(public), ""
	message, err := marshal(h)
	if err != nil {
		return h, fmt.Errorf("sign the audit head: %w", err)
	}
	h.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, message))
	return h, nil
}

// verify checks the signature of a statement of a kind.
func (h Head) verify(what string) error {
	if h.Schema != schema {
		return fmt.Errorf("schema version %d is not known to this program", h.Schema)
	}
	if h.What != what {
		return fmt.Errorf("it says to be %q, not %q", h.What, what)
	}
	public, errKey := base64.StdEncoding.DecodeString(h.PublicKey)
	signature, errSignature := base64.StdEncoding.DecodeString(h.Signature)
	h.Signature = ""
	message, err := marshal(h)
	if err = errors.Join(err, errKey, errSignature); err != nil {
		return fmt.Errorf("it is malformed: %w", err)
	}
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, message, signature) {
		return errors.New("its signature does not match what it says")
	}
	return nil
}

// ParseHead reads a head that was kept, and checks its signature.
func ParseHead(text []byte) (Head, error) {
	var h Head
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("the head is not JSON as `muster audit head` prints it: %w", err)
	}
	if err := h.verify(headOf); err != nil {
		return h, fmt.Errorf("the head cannot be trusted: %w", err)
	}
	return h, nil
}

// encode is the stored form.
func (h Head) encode() ([]byte, error) {
	value, err := marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", h.What, err)
	}
	return value, nil
}

// readHead reads a signed end of a chain; without one it is that of a chain that
// has not begun. It does not check the signature. One that cannot be read is
// errHead.
func readHead(ctx context.Context, r store.Reader, key store.Key, what string, account fleet.Account) (h Head, version uint64, err error) {
	h = Head{Schema: schema, What: what, Account: account, Hash: genesis}
	stored, err := r.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return h, 0, nil
	}
	if err != nil {
		return h, 0, fmt.Errorf("read %s: %w", key, err)
	}
	if err := json.Unmarshal(stored.Value, &h); err != nil {
		return h, stored.Version, fmt.Errorf("%w: %s: %w", errHead, key, err)
	}
	return h, stored.Version, nil
}

// errHead is a stored end of a chain that cannot be read.
var errHead = errors.New("malformed end of an audit chain")
