package authorizer

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"regexp"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Character rules of the published service model.
var (
	namePattern    = regexp.MustCompile(`^[\w=,@-]{1,128}$`)
	tokenPattern   = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)
	keyNamePattern = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,128}$`)
)

const (
	maxKeyBytes = 5120
	minKeyBits  = 2048
	// maxKeyBits keeps a key from making every check of a signature slow.
	maxKeyBits = 8192
)

// checkName refuses what may not name an authorizer.
func checkName(name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return fault.New(fault.InvalidRequest, `authorizerName must have 1 to 128 characters and match [\w=,@-]+`)
}

// checkStatus refuses a word that is no state.
func checkStatus(status string) error {
	if status == StatusActive || status == StatusInactive {
		return nil
	}
	return fault.New(fault.InvalidRequest, "status must be %s or %s", StatusActive, StatusInactive)
}

// functionOf reads the name of a function from its ARN, which has to be of
// this region and the account and without a version.
func functionOf(scope fleet.Scope, arn string) (string, bool) {
	return strings.CutPrefix(arn, "arn:"+fleet.Partition+":lambda:"+scope.Region+":"+string(scope.Account)+":function:")
}

// checkFunction refuses an ARN that leads to no configured function.
func (s *Service) checkFunction(account fleet.Account, arn string) error {
	scope := s.scope(account)
	name, ok := functionOf(scope, arn)
	if !ok {
		return fault.New(fault.InvalidRequest, "authorizerFunctionArn must be arn:%s:lambda:%s:%s:function:NAME with the name of a function that this server is configured with",
			fleet.Partition, scope.Region, scope.Account)
	}
	if !s.functions.Has(name) {
		return fault.New(fault.InvalidRequest, "authorizerFunctionArn names the function %.64q, which this server is not configured with (setting function.target)", name)
	}
	return nil
}

// checkSigning refuses an authorizer that could check no token, or that has
// keys and never looks at them.
func checkSigning(a *Authorizer) error {
	if a.TokenKeyName != "" && !tokenPattern.MatchString(a.TokenKeyName) {
		return fault.New(fault.InvalidRequest, "tokenKeyName must have 1 to 128 characters and match [a-zA-Z0-9_-]+")
	}
	if strings.HasPrefix(strings.ToLower(a.TokenKeyName), reservedPrefix) {
		return fault.New(fault.InvalidRequest, "tokenKeyName must not begin with %s", reservedPrefix)
	}
	if a.SigningDisabled {
		if len(a.Keys) > 0 {
			return fault.New(fault.InvalidRequest, "tokenSigningPublicKeys must be left out when signing is disabled")
		}
		return nil
	}
	if a.TokenKeyName == "" {
		return fault.New(fault.InvalidRequest, "tokenKeyName is required unless signing is disabled")
	}
	if len(a.Keys) == 0 {
		return fault.New(fault.InvalidRequest, "tokenSigningPublicKeys is required unless signing is disabled")
	}
	if len(a.Keys) > MaxKeys {
		return fault.New(fault.LimitExceeded, "tokenSigningPublicKeys may hold at most %d keys", MaxKeys)
	}
	for name, text := range a.Keys {
		if !keyNamePattern.MatchString(name) {
			return fault.New(fault.InvalidRequest, "names in tokenSigningPublicKeys must have 1 to 128 characters and match [a-zA-Z0-9:_-]+")
		}
		if _, err := parseKey(text); err != nil {
			return fault.New(fault.InvalidRequest, "tokenSigningPublicKeys: %s %s", name, fault.From(err).Message)
		}
	}
	return nil
}

// parseKey reads a PEM public key for RSA.
func parseKey(text string) (*rsa.PublicKey, error) {
	if len(text) > maxKeyBytes {
		return nil, fault.New(fault.InvalidRequest, "is longer than %d characters", maxKeyBytes)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, fault.New(fault.InvalidRequest, "is not one PEM block")
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fault.New(fault.InvalidRequest, "is not a PEM block of type PUBLIC KEY")
	}
	if err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "cannot be read as a public key")
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fault.New(fault.InvalidRequest, "is not an RSA key")
	}
	if bits := public.N.BitLen(); bits < minKeyBits || bits > maxKeyBits {
		return nil, fault.New(fault.InvalidRequest, "has %d bits; %d to %d are allowed", bits, minKeyBits, maxKeyBits)
	}
	return public, nil
}
