package allowlist

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// keyBytes is the length of keys made here: of AES-256 and of HMAC-SHA-256.
	keyBytes = 32
	// maxOpenKeys bounds the data keys that are kept open.
	maxOpenKeys = 1024
)

// Identity opens what is sealed for this installation; its first one is sealed for.
type Identity struct {
	all []age.Identity
	to  age.Recipient
	// recipient is the text form of to.
	recipient string
}

// ParseIdentity reads an age identity file with one or more native identities. What
// is new is sealed for the first one; the others still open what was sealed for them.
func ParseIdentity(text []byte) (*Identity, error) {
	all, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("the file must hold age identities, one in each line")
	}
	i := &Identity{all: all}
	switch first := all[0].(type) {
	case *age.X25519Identity:
		i.to, i.recipient = first.Recipient(), first.Recipient().String()
	case *age.HybridIdentity:
		i.to, i.recipient = first.Recipient(), first.Recipient().String()
	default:
		return nil, errors.New("the first identity must be a native one of age, AGE-SECRET-KEY-…")
	}
	return i, nil
}

// seal encrypts for the installation.
func (i *Identity) seal(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, i.to)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return out.Bytes(), nil
}

// open decrypts up to limit bytes.
func (i *Identity) open(sealed []byte, limit int) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), i.all...)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return readUpTo(r, limit)
}

// errTooLong is a text that has more bytes than allowed.
var errTooLong = errors.New("too long")

func readUpTo(r io.Reader, limit int) ([]byte, error) {
	plain, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if len(plain) > limit {
		return nil, errTooLong
	}
	return plain, nil
}

// ageIntro and armorIntro begin what is encrypted with age.
const (
	ageIntro   = "age-encryption.org/v1\n"
	armorIntro = "-----BEGIN AGE ENCRYPTED FILE-----"
)

// decrypted is an upload as its sender wrote it: what is encrypted with age is opened,
// the rest is as it came.
func (i *Identity) decrypted(body []byte) ([]byte, error) {
	var from io.Reader
	switch trimmed := bytes.TrimLeft(body, " \t\r\n"); {
	case bytes.HasPrefix(body, []byte(ageIntro)):
		from = bytes.NewReader(body)
	case bytes.HasPrefix(trimmed, []byte(armorIntro)):
		from = armor.NewReader(bytes.NewReader(trimmed))
	default:
		return body, nil
	}
	r, err := age.Decrypt(from, i.all...)
	if _, other := errors.AsType[*age.NoIdentityMatchError](err); other {
		return nil, fault.New(fault.InvalidRequest, "list: is encrypted to somebody else; the recipient of this installation is %s", i.recipient)
	}
	var plain []byte
	if err == nil {
		plain, err = readUpTo(r, MaxBytes)
	}
	switch {
	case errors.Is(err, errTooLong):
		return nil, fault.New(fault.InvalidRequest, "list: has more than %d bytes", MaxBytes)
	case err != nil:
		return nil, fault.New(fault.InvalidRequest, "list: its age encryption is damaged")
	}
	return plain, nil
}

// vault has the keys of an account open.
type vault struct {
	identity *Identity
	account  fleet.Account
	hashes   []byte
	s        *Service
}

// keyRecord is a key, sealed for the installation.
type keyRecord struct {
	Schema int    `json:"v"`
	Sealed []byte `json:"sealed"`
}

// openKeys are keys that were opened, by their record; a sealed one costs a tenth of
// a millisecond.
type openKeys struct {
	mu  sync.Mutex
	all map[store.Key][]byte
}

func (o *openKeys) get(k store.Key) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[k]
}

func (o *openKeys) put(k store.Key, key []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil || len(o.all) >= maxOpenKeys {
		o.all = map[store.Key][]byte{}
	}
	o.all[k] = key
}

// errNoIdentity is an installation that cannot open lists.
func errNoIdentity() error {
	return fault.New(fault.InvalidRequest, "allow lists need the setting allow-list.identity-file: a file made by muster allowlist identity or by age-keygen")
}

// vault opens the account's hash key, and makes it at first use.
func (s *Service) vault(ctx context.Context, account fleet.Account) (*vault, error) {
	if s.o.Identity == nil {
		return nil, errNoIdentity()
	}
	v := &vault{identity: s.o.Identity, account: account, s: s}
	k := hashKey(account)
	if v.hashes = s.keys.get(k); v.hashes != nil {
		return v, nil
	}
	err := store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		var r keyRecord
		version, err := read(ctx, s.o.Store, k, &r)
		if err != nil || version != 0 {
			if err == nil {
				v.hashes, err = v.unseal(r.Sealed)
			}
			return store.Batch{}, err
		}
		var b store.Batch
		if v.hashes, r.Sealed, err = v.newKey(); err != nil {
			return b, err
		}
		r.Schema = schemaVersion
		b.Expect = append(b.Expect, store.Expect{Key: k})
		return b, put(&b, k, r)
	})
	if err != nil {
		return nil, err
	}
	s.keys.put(k, v.hashes)
	return v, nil
}

func (v *vault) newKey() (key, sealed []byte, err error) {
	key = make([]byte, keyBytes)
	_, _ = rand.Read(key) // it never fails
	sealed, err = v.identity.seal(key)
	return key, sealed, err
}

// unseal opens a key.
func (v *vault) unseal(sealed []byte) ([]byte, error) {
	key, err := v.identity.open(sealed, keyBytes)
	if err != nil || len(key) != keyBytes {
		return nil, fault.Wrap(fault.Unavailable, err, "The file of allow-list.identity-file does not open the allow lists that are stored; was it another one before?")
	}
	return key, nil
}

// dataKey opens the key of a revision's entries.
func (v *vault) dataKey(list string, r *revisionRecord) ([]byte, error) {
	k := revisionKey(v.account, list, r.Number)
	if key := v.s.keys.get(k); key != nil {
		return key, nil
	}
	key, err := v.unseal(r.DataKey)
	if err != nil {
		return nil, err
	}
	v.s.keys.put(k, key)
	return key, nil
}

// hash is the keyed hash of values by which something is found; what keeps uses apart.
func (v *vault) hash(what string, values ...string) string {
	mac := hmac.New(sha256.New, v.hashes)
	for _, part := range append([]string{what}, values...) {
		_, _ = fmt.Fprintf(mac, "%d:%s,", len(part), part) // a hash takes everything
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// sealer encrypts entries with the key of their revision. An entry is bound to its
// place, so that one cannot be put in the place of another.
type sealer struct{ aead cipher.AEAD }

func newSealer(key []byte) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal entries: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("seal entries: %w", err)
	}
	return &sealer{aead}, nil
}

func (s *sealer) seal(at store.Key, e *Entry) ([]byte, error) {
	plain, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode an entry: %w", err)
	}
	return s.aead.Seal(nil, nil, plain, []byte(at)), nil //nolint:gosec // the nonce is made by Seal
}

func (s *sealer) open(at store.Key, sealed []byte) (*Entry, error) {
	plain, err := s.aead.Open(nil, nil, sealed, []byte(at))
	if err != nil {
		return nil, fmt.Errorf("entry %s is damaged", at)
	}
	var e Entry
	if err := json.Unmarshal(plain, &e); err != nil {
		return nil, fmt.Errorf("decode entry %s", at)
	}
	return &e, nil
}
