package broker

import (
	"github.com/muster-iot/muster/internal/mqtt"
)

// batch is the working memory for one burst of input: everything that its
// packets cause is appended to the targets' output first and written once per
// target at the end. It belongs to one goroutine at a time and is pooled.
type batch struct {
	broker *Broker
	in     mqtt.Publish
	found  matches
	merged []target
	index  map[*session]int
	dirty  []*session
	// topicBytes is scratch for encoding.
	topicBytes []byte

	// message being routed
	message routed

	received      [2]int
	sent          [2]int
	receivedBytes int
}

// batch takes working memory from the pool.
func (b *Broker) batch() *batch {
	w, _ := b.batches.Get().(*batch)
	return w
}

// release flushes and gives the working memory back.
func (b *Broker) release(w *batch) {
	w.flush()
	w.count()
	w.in = mqtt.Publish{}
	w.message.clear()
	w.found.reset()
	b.batches.Put(w)
}

// touchLocked promises to flush a session whose output has grown.
func (s *session) touchLocked(b *batch) {
	if !s.dirty {
		s.dirty = true
		b.dirty = append(b.dirty, s)
	}
}

// flush writes to every session that the batch has promised to.
func (b *batch) flush() {
	for i, s := range b.dirty {
		b.dirty[i] = nil
		s.flush()
	}
	b.dirty = b.dirty[:0]
}

// count adds the batch's work to the metrics.
func (b *batch) count() {
	m := b.broker.metrics
	for qos := range 2 {
		if b.received[qos] > 0 {
			m.received[qos].Add(float64(b.received[qos]))
		}
		if b.sent[qos] > 0 {
			m.sent[qos].Add(float64(b.sent[qos]))
		}
	}
	if b.receivedBytes > 0 {
		m.receivedBytes.Add(float64(b.receivedBytes))
	}
	b.received, b.sent, b.receivedBytes = [2]int{}, [2]int{}, 0
}
