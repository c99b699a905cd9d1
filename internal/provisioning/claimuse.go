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
	mu     sync.Mutex
	minute time.Time
	asked  int
	// making are requests that were let through and have not ended.
	making int
	// waiting was counted or is higher than the truth.
	waiting int
	counted bool
}

// claimUses keep the limits of claims on this node.
type claimUses struct {
	mu  sync.Mutex
	all map[claimKey]*claimUse
}

// take counts one request of a claim at a rate per minute, or refuses it. Who is let through calls
// ended when its certificate is made, or is not.
func (c *claimUses) take(ctx context.Context, s *Service, r Requester, rate int) (ended func(), err error) {
	l := s.o.Limits
	if rate == 0 && l.ClaimOutstanding == 0 {
		return func() {}, nil
	}
	use := c.use(claimKey{r.Account, r.Principal.ID})
	use.mu.Lock()
	defer use.mu.Unlock()
	if !use.ask(rate, s.o.Now()) {
		return nil, fault.New(fault.Throttling, "The claim has asked for %d certificates in a minute, the most allowed", rate)
	}
	if l.ClaimOutstanding == 0 {
		return func() {}, nil
	}
	if !use.counted || use.waiting+use.making >= l.ClaimOutstanding {
		// What was made of certificates since the last count is not known here. The
		// lock is kept: those that are made meanwhile are counted once at least.
		waiting, err := s.o.Registry.CountPending(ctx, r.Account, r.Principal.ID, l.ClaimOutstanding)
		if err != nil {
			return nil, err
		}
		use.counted, use.waiting = true, waiting
	}
	if use.waiting+use.making >= l.ClaimOutstanding {
		return nil, fault.New(fault.Throttling, "%d certificates of the claim wait for their devices, the most allowed", l.ClaimOutstanding)
	}
	use.making++
	return func() {
		use.mu.Lock()
		defer use.mu.Unlock()
		use.making--
		use.waiting++
	}, nil
}

// use returns the entry of a claim.
func (c *claimUses) use(k claimKey) *claimUse {
	c.mu.Lock()
	defer c.mu.Unlock()
	use := c.all[k]
	if use == nil {
		if c.all == nil || len(c.all) >= maxClaims {
			c.all = map[claimKey]*claimUse{}
		}
		use = &claimUse{}
		c.all[k] = use
	}
	return use
}

// ask counts a request in the present minute; false beyond the limit. The lock is
// held.
func (u *claimUse) ask(limit int, now time.Time) bool {
	if minute := now.Truncate(time.Minute); !minute.Equal(u.minute) {
		u.minute, u.asked = minute, 0
	}
	if limit > 0 && u.asked >= limit {
		return false
	}
	u.asked++
	return true
}
