package ledger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/muster-iot/muster/internal/fleet"
)

// KeySize is the size of the secret that ends of chains are sealed with.
const KeySize = 64

// Kinds of sealed statements: one of a kind is none of another.
const (
	sealHead   = "muster ledger head 1"
	sealAnchor = "muster ledger anchor 1"
	sealDevice = "muster ledger device 1"
)

// seal is a code over the end of a chain and what is said of it, which only who has
// the host's secret can make.
func (s *Service) seal(kind string, account fleet.Account, device string, n uint64, text string) string {
	code := hmac.New(sha256.New, s.o.Key)
	for _, part := range []string{kind, string(account), device, strconv.FormatUint(n, 10), text} {
		code.Write(fmt.Appendf(nil, "%d:%s,", len(part), part))
	}
	return hex.EncodeToString(code.Sum(nil))
}

// sealsEqual compares seals.
func sealsEqual(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }
