package provisioning

import "github.com/prometheus/client_golang/prometheus"

// metrics count what devices ask for and what becomes of it.
type metrics struct {
	// requests are by operation and the code of the answer.
	requests *prometheus.CounterVec
	// provisioned are the devices that joined, by method.
	provisioned *prometheus.CounterVec
	// hooks are by outcome.
	hooks *prometheus.CounterVec
	// introductions are of certificates that connect and may not, by outcome.
	introductions *prometheus.CounterVec
	// swept are certificates and claims that nobody came back for.
	swept prometheus.Counter
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_provisioning_requests_total",
			Help: "Requests of devices that want to join, by operation and the code of the answer.",
		}, []string{"operation", "code"}),
		provisioned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_provisioned_devices_total",
			Help: "Devices for which a template was carried out, by the way they came.",
		}, []string{"method"}),
		hooks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_provisioning_hooks_total",
			Help: "Invocations of pre-provisioning hooks, by outcome.",
		}, []string{"outcome"}),
		introductions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_provisioning_introductions_total",
			Help: "Connects with a certificate that is unknown or waits for activation, by what became of them.",
		}, []string{"outcome"}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_provisioning_expired_total",
			Help: "Certificates that no device has used in time, and claims whose time was over, that were deleted.",
		}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.provisioned, m.hooks, m.introductions, m.swept)
	}
	return m
}
