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
	dirty  []*connection
	// topicBytes is scratch for encoding.
	topicBytes []byte

	// message being routed; forwarded are the properties of one that a client
	// published.
	message   routed
	forwarded mqtt.Properties
	// acknowledged says that somebody waits until the message is safe; receipt
	// is then made when something has to be waited for.
	acknowledged bool
	receipt      *receipt

	received      [3]int
	sent          [3]int
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
	w.in, w.forwarded = mqtt.Publish{}, mqtt.Properties{}
	w.message.clear()
	w.acknowledged, w.receipt = false, nil
	w.found.reset()
	b.batches.Put(w)
}

// begin makes a message of the server's own the one that is routed.
func (b *batch) begin(m *Message) {
	r := &b.message
	r.clear()
	r.topic, r.payload, r.qos, r.properties, r.retain = m.Topic, m.Payload, m.QoS, &m.Properties, m.Retain
}

// receiptFor returns what to call when something that the message needs is
// done, nil when nobody waits for it.
func (b *batch) receiptFor() func(error) {
	if !b.acknowledged {
		return nil
	}
	if b.receipt == nil {
		b.receipt = newReceipt()
	}
	return b.receipt.claim()
}

// touchLocked promises to flush a connection whose output has grown.
func (c *connection) touchLocked(b *batch) {
	if !c.dirty {
		c.dirty = true
		b.dirty = append(b.dirty, c)
	}
}

// flush writes to every connection that the batch has promised to.
func (b *batch) flush() {
	for i, c := range b.dirty {
		b.dirty[i] = nil
		c.flush()
	}
	b.dirty = b.dirty[:0]
}

// count adds the batch's work to the metrics.
func (b *batch) count() {
	m := b.broker.metrics
	for qos := range b.received {
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
	b.received, b.sent, b.receivedBytes = [3]int{}, [3]int{}, 0
}
