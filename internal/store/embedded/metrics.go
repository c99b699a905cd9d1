package embedded

import "github.com/prometheus/client_golang/prometheus"

// metrics of one engine.
type metrics struct {
	batches  prometheus.Counter
	refused  prometheus.Counter
	duration prometheus.Histogram
	group    prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		batches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_store_batches_total", Help: "Batches committed.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_store_refused_total", Help: "Batches refused because the disk is nearly full.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_store_commit_seconds", Help: "Time of one synced group of batches.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_store_group_batches", Help: "Batches that shared one sync.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
	}
	if r != nil {
		r.MustRegister(m.batches, m.refused, m.duration, m.group)
	}
	return m
}

func (m *metrics) observe(batches int, seconds float64) {
	m.batches.Add(float64(batches))
	m.duration.Observe(seconds)
	m.group.Observe(float64(batches))
}
