package broker

import "sync"

// receipt waits until everything that a message needs has been done: stored for
// each persistent session, retained, taken in by a service. It begins with one
// claim, of whoever routes the message.
type receipt struct {
	mu   sync.Mutex
	open int
	err  error
	done func(error)
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
func (r *receipt) settle(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.open--
	done, result := r.done, r.err
	last := r.open == 0 && done != nil
	r.mu.Unlock()
	if last {
		done(result)
	}
}

// finish ends the first claim; done is called when no other is left, perhaps
// before finish returns.
func (r *receipt) finish(done func(error)) {
	r.mu.Lock()
	r.done = done
	r.mu.Unlock()
	r.settle(nil)
}
