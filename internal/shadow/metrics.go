package shadow

import "github.com/prometheus/client_golang/prometheus"

// metrics counts what the service does.
type metrics struct {
	updates     *prometheus.CounterVec
	conflicts   prometheus.Counter
	cacheHits   prometheus.Counter
	cacheMisses prometheus.Counter
}

// newMetrics makes the metrics and registers them if there is a registerer.
func newMetrics(r prometheus.Registerer) *metrics {
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_shadow_cache_lookups_total",
		Help: "Documents looked up for a request, by whether memory had them.",
	}, []string{"result"})
	m := &metrics{
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_shadow_requests_total",
			Help: "Shadow updates and deletions, by outcome.",
		}, []string{"request", "outcome"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_shadow_commit_conflicts_total",
			Help: "Commits repeated because another process wrote the shadow.",
		}),
		cacheHits:   lookups.WithLabelValues("hit"),
		cacheMisses: lookups.WithLabelValues("miss"),
	}
	if r != nil {
		r.MustRegister(lookups, m.updates, m.conflicts)
	}
	return m
}

// count adds one request by its outcome.
func (m *metrics) count(request string, err error) {
	outcome := "accepted"
	if err != nil {
		outcome = "rejected"
	}
	m.updates.WithLabelValues(request, outcome).Inc()
}
