package account

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iampolicy"
	"github.com/muster-iot/muster/internal/iotpolicy"
	"github.com/muster-iot/muster/internal/store"
)

// SessionKeySize is the size of the key that seals session tokens, in bytes.
const SessionKeySize = 32

const (
	// maxToken bounds a token before it is decoded.
	maxToken = 4 << 10
	// tokenUse binds tokens to their purpose.
	tokenUse = "muster session 1"
	// maxChained bounds a session that a session takes, in seconds.
	maxChained = 3600
	// maxExternalID bounds an external id, in characters.
	maxExternalID = 1224
)

// What sts allows as the name of a session and as an external id.
var (
	sessionNamePattern = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	externalIDPattern  = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
)

// Session is short-lived credentials.
type Session struct {
	AccessKey

	Token   string
	Account fleet.Account
	// Principal is whom the session stands for.
	Principal    fleet.Principal
	Began, Until time.Time
}

// sessionToken is what a token seals. Whoever brings it back need not be
// remembered.
type sessionToken struct {
	KeyID     string          `json:"k"`
	Secret    string          `json:"s"`
	Account   fleet.Account   `json:"a"`
	Principal fleet.Principal `json:"p"`
	// UserID is the unique id of the user, so that another one of the same name is
	// not meant.
	UserID string `json:"u,omitempty"`
	// Began and Until are in microseconds since 1970.
	Began int64 `json:"b"`
	Until int64 `json:"e"`
}

// aead opens and seals tokens.
func (s *Service) aead() (cipher.AEAD, error) {
	if len(s.options.SessionKey) != SessionKeySize {
		return nil, fmt.Errorf("session key has %d bytes, want %d", len(s.options.SessionKey), SessionKeySize)
	}
	block, err := aes.NewCipher(s.options.SessionKey)
	if err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	return sealer, nil
}

// session makes credentials that last for a time from now. There are none for a
// closed account: they would become good when it is opened again.
func (s *Service) session(ctx context.Context, account fleet.Account, principal fleet.Principal, userID string, lasts time.Duration) (Session, error) {
	stored, _, err := s.load(ctx, account)
	switch {
	case fault.CodeOf(err) == fault.ResourceNotFound: // nothing says that it is closed
	case err != nil:
		return Session{}, err
	case stored.status() == StatusClosed:
		return Session{}, fault.New(fault.Forbidden, "The account %s is closed", account)
	}
	sealer, err := s.aead()
	if err != nil {
		return Session{}, err
	}
	key, err := newAccessKey(sessionKeyPrefix)
	if err != nil {
		return Session{}, err
	}
	began := s.options.Now().UTC().Truncate(time.Microsecond)
	// Clients are told whole seconds.
	until := began.Add(lasts).Truncate(time.Second)
	plain, err := json.Marshal(sessionToken{ //nolint:gosec // it is sealed below.
		KeyID: key.ID, Secret: key.Secret, Account: account, Principal: principal, UserID: userID,
		Began: began.UnixMicro(), Until: until.UnixMicro(),
	})
	if err != nil {
		return Session{}, fmt.Errorf("encode session: %w", err)
	}
	token := base64.StdEncoding.EncodeToString(sealer.Seal(nil, nil, plain, []byte(tokenUse))) //nolint:gosec // this AEAD makes the nonce itself.
	return Session{AccessKey: key, Token: token, Account: account, Principal: principal, Began: began, Until: until}, nil
}

// OpenSession returns the session that a token stands for. One that was altered
// or revoked, or belongs to another key, is fault.Unauthorized. Whether its time
// is over is for the caller to see, once the signature is known to be good.
func (s *Service) OpenSession(ctx context.Context, accessKeyID, token string) (Session, error) {
	t, err := s.openToken(token)
	if err != nil || t.KeyID != accessKeyID {
		return Session{}, fault.Wrap(fault.Unauthorized, err, "The security token included in the request is invalid")
	}
	found := Session{
		AccessKey: AccessKey{ID: t.KeyID, Secret: t.Secret}, Token: token, Account: t.Account, Principal: t.Principal,
		Began: time.UnixMicro(t.Began).UTC(), Until: time.UnixMicro(t.Until).UTC(),
	}
	proof := Proof{AccessKeyID: t.KeyID, SessionBegan: found.Began}
	id, err := s.identity(ctx, t.Principal, proof)
	if err != nil {
		return Session{}, err
	}
	if id.refused != nil || t.UserID != "" && id.request.UserID != t.UserID {
		return Session{}, fault.Wrap(fault.Unauthorized, id.refused, "The security token included in the request is invalid")
	}
	return found, nil
}

// openToken decrypts a token.
func (s *Service) openToken(token string) (sessionToken, error) {
	var t sessionToken
	if len(token) > maxToken {
		return t, errors.New("session token is too long")
	}
	sealer, err := s.aead()
	if err != nil {
		return t, err
	}
	sealed, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return t, fmt.Errorf("session token: %w", err)
	}
	plain, err := sealer.Open(nil, nil, sealed, []byte(tokenUse))
	if err != nil {
		return t, fmt.Errorf("session token: %w", err)
	}
	if err := json.Unmarshal(plain, &t); err != nil {
		return t, fmt.Errorf("session token: %w", err)
	}
	return t, nil
}

// UserSession makes credentials for a user who has signed in.
func (s *Service) UserSession(ctx context.Context, account fleet.Account, user string, lasts time.Duration) (Session, error) {
	u, err := find[userRecord](ctx, s.options.Store, account, kindUser, user)
	if err != nil {
		return Session{}, err
	}
	return s.session(ctx, account, userPrincipal(account, user), u.ID, lasts)
}

// RoleSession makes credentials in a role without asking its trust policy, for
// people whom somebody else vouched for and whom a setting maps to the role. They
// last no longer than the role allows.
func (s *Service) RoleSession(ctx context.Context, account fleet.Account, role, sessionName string, lasts time.Duration) (Session, error) {
	r, err := find[roleRecord](ctx, s.options.Store, account, kindRole, role)
	if err != nil {
		return Session{}, err
	}
	if !sessionNamePattern.MatchString(sessionName) {
		return Session{}, fault.New(fault.InvalidRequest, "The session name must match %s", sessionNamePattern)
	}
	return s.session(ctx, account, rolePrincipal(account, r, sessionName), "", min(lasts, time.Duration(r.MaxSession)*time.Second))
}

// rolePrincipal is a session in a role.
func rolePrincipal(account fleet.Account, r *roleRecord, session string) fleet.Principal {
	return fleet.Principal{
		Kind: fleet.PrincipalRole, ID: r.ID + ":" + session,
		ARN: "arn:" + fleet.Partition + ":sts::" + string(account) + ":assumed-role/" + r.Name + "/" + session,
	}
}

// AssumeRole is what a caller asks of sts.
type AssumeRole struct {
	RoleARN, SessionName, ExternalID string
	// Seconds is how long the session lasts; 0 is an hour.
	Seconds int
}

// check refuses what breaks a rule whoever asks.
func (in *AssumeRole) check(caller fleet.Principal) error {
	if in.Seconds == 0 {
		in.Seconds = defaultSession
	}
	switch {
	case !sessionNamePattern.MatchString(in.SessionName):
		return fault.New(fault.InvalidRequest, "RoleSessionName must be 2 to 64 characters: letters, digits and _+=,.@-")
	case in.Seconds < minSession || in.Seconds > maxSession:
		return fault.New(fault.InvalidRequest, "DurationSeconds must be from %d to %d", minSession, maxSession)
	case caller.Kind == fleet.PrincipalRole && in.Seconds > maxChained:
		return fault.New(fault.InvalidRequest, "The requested DurationSeconds exceeds the %d seconds of a session that is taken from another one", maxChained)
	case in.ExternalID != "" && (len(in.ExternalID) < 2 || len(in.ExternalID) > maxExternalID || !externalIDPattern.MatchString(in.ExternalID)):
		return fault.New(fault.InvalidRequest, "ExternalId must be 2 to 1224 characters: letters, digits and _+=,.@:/-")
	}
	return nil
}

// Assume takes a role in the name of a caller. The role's trust policy must
// allow it, and so must the caller's own policies, unless the trust policy of a
// role in the same account names the caller itself.
func (s *Service) Assume(ctx context.Context, caller fleet.Principal, in AssumeRole) (Session, error) {
	const action = "sts:AssumeRole"
	if err := in.check(caller); err != nil {
		return Session{}, err
	}
	account := fleet.Account(accountOf(in.RoleARN))
	name, ok := strings.CutPrefix(in.RoleARN, iamARN(account, kindRole, ""))
	if !ok || !account.Valid() || checkName(kindRole, name) != nil {
		return Session{}, fault.New(fault.InvalidRequest, "%.200s is not the ARN of a role", in.RoleARN)
	}
	denied := refused(caller.ARN, action, in.RoleARN, "")
	if caller.Kind != fleet.PrincipalUser && caller.Kind != fleet.PrincipalRole {
		return Session{}, denied
	}
	r, err := read[roleRecord](ctx, s.options.Store, operatorKey(account, kindRole, name))
	if errors.Is(err, store.ErrNotFound) {
		return Session{}, denied // who may not take a role does not learn whether it exists
	}
	if err != nil {
		return Session{}, fmt.Errorf("read role: %w", err)
	}
	trusted, named, err := s.trusts(ctx, r, caller, in)
	if err != nil {
		return Session{}, err
	}
	own, err := s.outcome(ctx, caller, action, in.RoleARN)
	if err != nil {
		return Session{}, err
	}
	sameAccount := accountOf(caller.ARN) == string(account)
	mayByItself := own.Outcome == iotpolicy.Allowed || own.Outcome == iotpolicy.ImplicitDeny && named && sameAccount
	if !trusted || !mayByItself {
		return Session{}, denied
	}
	if in.Seconds > r.MaxSession {
		return Session{}, fault.New(fault.InvalidRequest, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	made, err := s.session(ctx, account, rolePrincipal(account, r, in.SessionName), "", time.Duration(in.Seconds)*time.Second)
	if fault.CodeOf(err) == fault.Forbidden {
		return Session{}, denied
	}
	return made, err
}

// trusts asks a role's trust policy. named says that the caller itself is named,
// not only its account.
func (s *Service) trusts(ctx context.Context, r *roleRecord, caller fleet.Principal, in AssumeRole) (trusted, named bool, err error) {
	document, err := iampolicy.ParseTrust(r.Trust)
	if err != nil {
		return false, false, fmt.Errorf("trust policy of role %q is stored and not valid: %w", r.Name, err)
	}
	proof := proofOf(ctx)
	id, err := s.identity(ctx, caller, proof)
	if err != nil {
		return false, false, err
	}
	request := id.request
	request.Account = fleet.Account(accountOf(caller.ARN))
	request.Region, request.Now, request.Secure = s.options.Region, s.options.Now(), proof.Secure
	request.ExternalID, request.SessionName = in.ExternalID, in.SessionName
	if id.root {
		request.PrincipalARN, request.Type, request.UserID = caller.ARN, iampolicy.TypeAccount, string(request.Account)
	}
	request.SourceIP, _ = netip.ParseAddr(proof.SourceAddress) // a zero address has no value
	callers := callerNames(caller)
	ask := func(d *iotpolicy.Document) iotpolicy.Outcome {
		set := iotpolicy.Compile([]iotpolicy.PolicyRef{{Name: "trust", Document: d}}, request.Context())
		answer := iotpolicy.ImplicitDeny
		for _, arn := range callers {
			switch set.Decide("sts:AssumeRole", arn).Outcome {
			case iotpolicy.ExplicitDeny:
				return iotpolicy.ExplicitDeny
			case iotpolicy.Allowed:
				answer = iotpolicy.Allowed
			case iotpolicy.ImplicitDeny:
			}
		}
		return answer
	}
	trusted = ask(document) == iotpolicy.Allowed
	return trusted, trusted && ask(document.Naming(callers)) == iotpolicy.Allowed, nil
}

// callerNames are the ARNs that a trust policy can mean a caller by: its own, and
// for a session that of its role.
func callerNames(caller fleet.Principal) []string {
	all := []string{caller.ARN}
	head, rest, ok := strings.Cut(caller.ARN, ":assumed-role/")
	if ok {
		role, _, _ := strings.Cut(rest, "/")
		account := head[strings.LastIndexByte(head, ':')+1:]
		all = append(all, iamARN(fleet.Account(account), kindRole, role))
	}
	return all
}
