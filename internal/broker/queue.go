package broker

import (
	"slices"
	"time"
)

// parcel is one message on its way to a session: in the window when it has a
// packet id in use, in the queue before. The box is the shared group that it
// was taken from, nil for the session's own.
type parcel struct {
	message *Kept
	ids     []uint32
	box     *group
	// seq numbers the messages of a box; order those of a session, in which they
	// are delivered.
	seq   uint64
	order uint64
	// since and sent are the ticks of the first and of the newest attempt.
	since, sent int64
	id          uint16
	qos         byte
	tries       uint8
	// retain is the flag that the receiver sees.
	retain bool
	// stored says that the keeper holds it.
	stored bool
	// onWire says that the current connection was sent it, repeat that an
	// earlier one was.
	onWire, repeat bool
	// refused are the members of the box that may not receive the message.
	refused map[*session]struct{}
	// released is a QoS 2 message that the client has, whose id is not free yet.
	released bool
}

// queue keeps messages behind a session's window or for a shared group, oldest
// first.
type queue struct {
	items []parcel
	bytes int
}

// fits reports whether a bounded queue takes one more message.
func (q *queue) fits(k *Kept, most, mostBytes int) bool {
	return len(q.items) < most && q.bytes+k.size() <= mostBytes
}

// push appends a message.
func (q *queue) push(p parcel) {
	q.items = append(q.items, p)
	q.bytes += p.bytes()
}

// pop removes the oldest message.
func (q *queue) pop() parcel {
	p := q.items[0]
	q.items[0] = parcel{}
	if q.items = q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	q.bytes -= p.bytes()
	return p
}

// take removes the message at a place.
func (q *queue) take(i int) parcel {
	if i == 0 {
		return q.pop()
	}
	p := q.items[i]
	q.items = slices.Delete(q.items, i, i+1)
	q.bytes -= p.bytes()
	return p
}

// restore puts messages that were taken before in front of all others.
func (q *queue) restore(back []parcel) {
	if len(back) == 0 {
		return
	}
	for i := range back {
		q.bytes += back[i].bytes()
	}
	q.items = slices.Concat(back, q.items)
}

// insert puts a message at the place of its number.
func (q *queue) insert(p parcel) {
	at, _ := slices.BinarySearchFunc(q.items, p.seq, func(have parcel, seq uint64) int {
		switch {
		case have.seq < seq:
			return -1
		case have.seq > seq:
			return 1
		default:
			return 0
		}
	})
	q.items = slices.Insert(q.items, at, p)
	q.bytes += p.bytes()
}

// dropExpired removes what has become worthless and returns it.
func (q *queue) dropExpired(now time.Time) []parcel {
	var gone []parcel
	q.items = slices.DeleteFunc(q.items, func(p parcel) bool {
		if p.message == nil || p.released || !p.message.expired(now) {
			return false
		}
		gone = append(gone, p)
		q.bytes -= p.bytes()
		return true
	})
	return gone
}

// bytes is what a parcel counts for.
func (p *parcel) bytes() int {
	if p.message == nil {
		return 0
	}
	return p.message.size()
}
