package broker

import "sync"

// receipt waits until everything that a message needs has been done: stored for
// each persistent session, retained, taken in by a service. It begins with one
// claim, of whoever routes the message.
type receipt struct {
	mu   sync.Mutex
	open int
	err  error
	done func(*batch, error)
}

// newReceipt returns a receipt with one claim.
func newReceipt() *receipt { return &receipt{open: 1} }

// claim adds one and returns the function that settles it.
func (r *receipt) claim() func(error) {
	r.mu.Lock()
	r.open++
	r.mu.Unlock()
	return r.settle
}

// settle ends one claim; the first error counts.
func (r *receipt) settle(err error) { r.settleIn(nil, err) }

// settleIn is settle for a caller that writes what comes of it with its batch.
func (r *receipt) settleIn(b *batch, err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.open--
	done, result := r.done, r.err
	last := r.open == 0 && done != nil
	r.mu.Unlock()
	if last {
		done(b, result)
	}
}

// finish ends the first claim; done is called when no other is left, perhaps
// before finish returns. It is given the batch that writes its output, nil for
// none.
func (r *receipt) finish(b *batch, done func(*batch, error)) {
	r.mu.Lock()
	r.done = done
	r.mu.Unlock()
	r.settleIn(b, nil)
}
