package broker

import "github.com/prometheus/client_golang/prometheus"

// Reasons for which a message is not delivered to a subscriber.
const (
	dropSlow     = "slow_consumer"
	dropQueue    = "queue_full"
	dropTooLarge = "packet_too_large"
	dropDenied   = "denied"
	dropExpired  = "expired"
	// dropUnacknowledged is a message that its receiver left unacknowledged for
	// too long, dropNobody one for a shared group without anybody to take it.
	dropUnacknowledged = "unacknowledged"
	dropNobody         = "no_receiver"
	dropRetained       = "too_many_retained"
)

// metrics are the broker's counters. Those of the hot path are kept as single
// counters, to be added to once for each batch.
type metrics struct {
	connections   prometheus.Gauge
	stored        prometheus.Gauge
	retained      prometheus.Gauge
	subscriptions prometheus.Gauge
	connects      *prometheus.CounterVec
	disconnects   *prometheus.CounterVec
	denials       *prometheus.CounterVec
	received      [3]prometheus.Counter
	sent          [3]prometheus.Counter
	dropped       map[string]prometheus.Counter
	exceeded      *prometheus.CounterVec
	receivedBytes prometheus.Counter
	sentBytes     prometheus.Counter
}

// newMetrics makes the counters and registers them where there is a registry.
func newMetrics(r prometheus.Registerer, queued func() float64) *metrics {
	name := func(text string) string { return "muster_broker_" + text }
	messagesReceived := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("messages_received_total"), Help: "Messages that clients published and policy let pass."}, []string{"qos"})
	messagesSent := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("messages_sent_total"), Help: "Messages encoded for subscribers."}, []string{"qos"})
	messagesDropped := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("messages_dropped_total"), Help: "Deliveries that did not happen."}, []string{"reason"})
	m := &metrics{
		connections:   prometheus.NewGauge(prometheus.GaugeOpts{Name: name("connections"), Help: "Sessions that are connected."}),
		stored:        prometheus.NewGauge(prometheus.GaugeOpts{Name: name("stored_sessions"), Help: "Persistent sessions, connected or not."}),
		retained:      prometheus.NewGauge(prometheus.GaugeOpts{Name: name("retained_messages"), Help: "Topics that retain a message."}),
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{Name: name("subscriptions"), Help: "Subscriptions held by sessions."}),
		connects:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("connects_total"), Help: "Connections by the outcome of their CONNECT."}, []string{"result"}),
		disconnects:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("disconnects_total"), Help: "Ended sessions."}, []string{"reason"}),
		denials:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("denials_total"), Help: "Packets and deliveries that policy refused."}, []string{"action"}),
		exceeded:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("quota_exceeded_total"), Help: "Messages, reads, subscriptions and connections that a quota dropped, delayed or refused."}, []string{"quota"}),
		received:      [3]prometheus.Counter{messagesReceived.WithLabelValues("0"), messagesReceived.WithLabelValues("1"), messagesReceived.WithLabelValues("2")},
		sent:          [3]prometheus.Counter{messagesSent.WithLabelValues("0"), messagesSent.WithLabelValues("1"), messagesSent.WithLabelValues("2")},
		receivedBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: name("received_bytes_total"), Help: "Bytes of packets from clients."}),
		sentBytes:     prometheus.NewCounter(prometheus.CounterOpts{Name: name("sent_bytes_total"), Help: "Bytes of packets for clients."}),
	}
	m.dropped = make(map[string]prometheus.Counter)
	for _, reason := range []string{dropSlow, dropQueue, dropTooLarge, dropDenied, dropExpired, dropUnacknowledged, dropNobody, dropRetained} {
		m.dropped[reason] = messagesDropped.WithLabelValues(reason)
	}
	if r != nil {
		r.MustRegister(m.connections, m.stored, m.retained, m.subscriptions, m.connects, m.disconnects, m.denials, m.exceeded,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name("queued_bytes"), Help: "Messages that wait for sessions and shared groups."}, queued),
			messagesReceived, messagesSent, messagesDropped, m.receivedBytes, m.sentBytes)
	}
	return m
}
