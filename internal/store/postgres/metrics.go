package postgres

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one engine; the names are those of the embedded one.
type metrics struct {
	batches  prometheus.Counter
	refused  prometheus.Counter
	duration prometheus.Histogram
	group    prometheus.Histogram
}

// newMetrics registers the metrics unless r is nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		batches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_store_batches_total", Help: "Batches committed.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_store_refused_total", Help: "Batches refused because the server is away or its disk full.",
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
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.batches, m.refused, m.duration, m.group} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register store metrics: %w", err)
		}
	}
	return m, nil
}

// observe records one committed group.
func (m *metrics) observe(batches int, took time.Duration) {
	m.batches.Add(float64(batches))
	m.group.Observe(float64(batches))
	m.duration.Observe(took.Seconds())
}
