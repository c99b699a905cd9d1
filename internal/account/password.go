package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Bounds of a password: the shortest in characters, the longest in bytes.
const (
	minPassword = 12
	maxPassword = 1024
)

// What a new hash costs. A record keeps its own, so that these can be raised.
const (
	hashTime    = 2
	hashMemory  = 19 << 10 // KiB
	hashThreads = 1
	hashSize    = 32
	saltSize    = 16
)

// Bounds of what a record may ask for, so that a damaged one cannot take the
// memory of the server.
const (
	maxHashTime   = 16
	maxHashMemory = 256 << 10
)

// passwordRecord is a hashed password, argon2id.
type passwordRecord struct {
	Algorithm string    `json:"algorithm"`
	Salt      []byte    `json:"salt"`
	Hash      []byte    `json:"hash"`
	Time      uint32    `json:"time"`
	Memory    uint32    `json:"memory"`
	Threads   uint8     `json:"threads"`
	ChangedAt time.Time `json:"changedAt"`
	// MustChange is set when somebody else chose the password.
	MustChange bool `json:"mustChange,omitempty"`
}

// algorithm is the only one so far.
const algorithm = "argon2id"

// checkPassword refuses what is no good password for a user.
func checkPassword(user, password string) error {
	switch {
	case !utf8.ValidString(password):
		return fault.New(fault.InvalidRequest, "The password is not UTF-8")
	case utf8.RuneCountInString(password) < minPassword:
		return fault.New(fault.InvalidRequest, "The password must have at least %d characters", minPassword)
	case len(password) > maxPassword:
		return fault.New(fault.InvalidRequest, "The password is longer than %d bytes", maxPassword)
	case password == user:
		return fault.New(fault.InvalidRequest, "The password must not be the user's name")
	}
	return nil
}

// hashPassword makes the record of a password.
func hashPassword(password string, mustChange bool, now time.Time) (*passwordRecord, error) {
	r := &passwordRecord{
		Algorithm: algorithm, Salt: make([]byte, saltSize), Time: hashTime, Memory: hashMemory, Threads: hashThreads,
		ChangedAt: now, MustChange: mustChange,
	}
	if _, err := rand.Read(r.Salt); err != nil {
		return nil, fmt.Errorf("draw salt: %w", err)
	}
	r.Hash = argon2.IDKey([]byte(password), r.Salt, r.Time, r.Memory, r.Threads, hashSize)
	return r, nil
}

// fits reports whether a password is the record's.
func (r *passwordRecord) fits(password string) (bool, error) {
	if r.Algorithm != algorithm || r.Time == 0 || r.Time > maxHashTime || r.Memory > maxHashMemory || r.Threads == 0 || len(r.Hash) != hashSize {
		return false, fmt.Errorf("stored password has parameters that this version does not take: %s, %d passes, %d KiB", r.Algorithm, r.Time, r.Memory)
	}
	hash := argon2.IDKey([]byte(password), r.Salt, r.Time, r.Memory, r.Threads, hashSize)
	return subtle.ConstantTimeCompare(hash, r.Hash) == 1, nil
}

// nobody is hashed against for users who do not exist or have no password, so
// that the time taken tells nothing.
func nobody() *passwordRecord {
	return &passwordRecord{
		Algorithm: algorithm, Salt: make([]byte, saltSize), Hash: make([]byte, hashSize), Time: hashTime, Memory: hashMemory, Threads: hashThreads,
	}
}

// SetPassword gives a user a password. mustChange demands a new one at the next
// sign-in. Sessions go on; RevokeSessions ends them.
func (s *Service) SetPassword(ctx context.Context, account fleet.Account, user, password string, mustChange bool) error {
	if err := checkPassword(user, password); err != nil {
		return err
	}
	hashed, err := hashPassword(password, mustChange, s.options.Now().UTC())
	if err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		u, err := find[userRecord](ctx, s.options.Store, account, kindUser, user)
		if err != nil {
			return err
		}
		u.Password = hashed
		a.emit(event.OperatorUser, user, "PASSWORD_SET")
		return a.save(kindUser, user, u)
	})
}

// DeletePassword takes the password from a user, who cannot sign in then.
func (s *Service) DeletePassword(ctx context.Context, account fleet.Account, user string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		u, err := find[userRecord](ctx, s.options.Store, account, kindUser, user)
		if err != nil || u.Password == nil {
			return err
		}
		u.Password = nil
		a.emit(event.OperatorUser, user, "PASSWORD_DELETED")
		return a.save(kindUser, user, u)
	})
}

// PasswordCheck is what is known of a user and a password.
type PasswordCheck struct {
	// Fits says that the user has this password, Known that there is such a user
	// with any, which callers are not told.
	Fits, Known bool
	// MustChange says that the password lets nobody in before it is changed.
	MustChange bool
}

// CheckPassword compares a password. An answer of no takes as long as one of yes.
func (s *Service) CheckPassword(ctx context.Context, account fleet.Account, user, password string) (PasswordCheck, error) {
	u, err := find[userRecord](ctx, s.options.Store, account, kindUser, user)
	if err != nil && fault.CodeOf(err) != fault.ResourceNotFound {
		return PasswordCheck{}, err
	}
	record := nobody()
	check := PasswordCheck{Known: err == nil && u.Password != nil}
	if check.Known {
		record, check.MustChange = u.Password, u.Password.MustChange
	}
	if len(password) > maxPassword {
		password = password[:maxPassword+1]
	}
	fits, err := record.fits(password)
	check.Fits = fits && check.Known
	return check, err
}
