package deviceauth

import "github.com/prometheus/client_golang/prometheus"

// metrics counts what the service does.
type metrics struct {
	compilations *prometheus.CounterVec
	denials      *prometheus.CounterVec
}

// newMetrics makes the metrics and registers them if there is a registerer.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		compilations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_deviceauth_compilations_total",
			Help: "Policy sets compiled for a session or a call, by result.",
		}, []string{"result"}),
		denials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_deviceauth_denials_total",
			Help: "Refused requests of devices, by action and outcome.",
		}, []string{"action", "outcome"}),
	}
	if r != nil {
		r.MustRegister(m.compilations, m.denials)
	}
	return m
}
