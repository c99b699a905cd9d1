package account

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
)

// prefixLength is the length of an endpoint prefix, as AWS IoT's have it.
const prefixLength = 14

// Endpoints are the host names by which devices reach one account.
type Endpoints struct{ Data, Jobs, Credentials string }

// EndpointsOf derives an account's names. The prefix is a digest, so that it
// is stable, needs no record and does not show the account number.
func EndpointsOf(account fleet.Account, region, baseDomain string) Endpoints {
	sum := sha256.Sum256([]byte("muster endpoint " + string(account)))
	prefix := "a" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:prefixLength-1]
	tail := "iot." + region + "." + baseDomain
	return Endpoints{
		Data:        prefix + "-ats." + tail,
		Jobs:        prefix + ".jobs." + tail,
		Credentials: prefix + ".credentials." + tail,
	}
}

// Wildcards are the certificate names that cover the control plane and the
// endpoints of all accounts, so that a new account needs no new certificate.
func Wildcards(region, baseDomain string) []string {
	tail := "iot." + region + "." + baseDomain
	return []string{tail, "*." + tail, "*.jobs." + tail, "*.credentials." + tail}
}
