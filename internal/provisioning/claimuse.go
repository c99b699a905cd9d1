package provisioning

import (
	"context"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// maxClaims bounds the claims whose use is remembered; the rest start anew.
const maxClaims = 10_000

// claimKey names a claim.
type claimKey struct {
	account fleet.Account
	id      string
}

// claimUse is what one claim has asked for in a minute, and how many of its
// certificates can be waiting at most.
type claimUse struct {
	minute time.Time
	asked  int
	// waiting was counted or is higher than the truth.
	waiting int
	counted bool
}

// claimUses keep the limits of claims on this node.
type claimUses struct {
	mu  sync.Mutex
	all map[claimKey]*claimUse
}

// take counts one request of a claim, or refuses it.
func (c *claimUses) take(ctx context.Context, s *Service, r Requester) error {
	l := s.o.Limits
	if l.ClaimRate == 0 && l.ClaimOutstanding == 0 {
		return nil
	}
	k := claimKey{r.Account, r.Principal.ID}
	if !c.askRate(k, l.ClaimRate, s.o.Now()) {
		return fault.New(fault.Throttling, "The claim has asked for %d certificates in a minute, the most allowed", l.ClaimRate)
	}
	if l.ClaimOutstanding == 0 {
		return nil
	}
	if c.room(k, l.ClaimOutstanding) {
		return nil
	}
	// What was made of certificates since the last count is not known here.
	waiting, err := s.o.Registry.CountPending(ctx, r.Account, r.Principal.ID, l.ClaimOutstanding)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	use := c.use(k)
	use.counted, use.waiting = true, waiting
	if waiting >= l.ClaimOutstanding {
		return fault.New(fault.Throttling, "%d certificates of the claim wait for their devices, the most allowed", waiting)
	}
	use.waiting++
	return nil
}

// use returns the entry of a claim; the lock is held.
func (c *claimUses) use(k claimKey) *claimUse {
	if c.all == nil || len(c.all) >= maxClaims {
		c.all = map[claimKey]*claimUse{}
	}
	use := c.all[k]
	if use == nil {
		use = &claimUse{}
		c.all[k] = use
	}
	return use
}

// askRate counts a request in the present minute; false beyond the limit.
func (c *claimUses) askRate(k claimKey, limit int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	use := c.use(k)
	if minute := now.Truncate(time.Minute); !minute.Equal(use.minute) {
		use.minute, use.asked = minute, 0
	}
	if limit > 0 && use.asked >= limit {
		return false
	}
	use.asked++
	return true
}

// room takes one place if there is one for sure.
func (c *claimUses) room(k claimKey, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	use := c.use(k)
	if !use.counted || use.waiting >= limit {
		return false
	}
	use.waiting++
	return true
}
