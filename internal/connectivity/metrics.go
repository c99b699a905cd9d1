package connectivity

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
)

// metrics of the state machine.
type metrics struct {
	transitions *prometheus.CounterVec
	ignored     *prometheus.CounterVec
	devices     *prometheus.GaugeVec
	flapping    *prometheus.GaugeVec
	waiting     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_connectivity_transitions_total", Help: "Settled changes of devices' connectivity states.",
		}, []string{"from", "to"}),
		ignored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_connectivity_ignored_total", Help: "Events about connectivity that changed no state, by why.",
		}, []string{"why"}),
		devices: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "muster_connectivity_devices", Help: "Devices by connectivity state.",
		}, []string{"account", "state"}),
		flapping: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "muster_connectivity_flapping_devices", Help: "Devices that come and go too often.",
		}, []string{"account"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_connectivity_declarations_waiting", Help: "Declarations of devices that wait to be taken in.",
		}),
	}
	if r != nil {
		r.MustRegister(m.transitions, m.ignored, m.devices, m.flapping, m.waiting)
	}
	return m
}

// show sets the gauges of an account.
func (m *metrics) show(account fleet.Account, c *counts) {
	of := c.byState()
	for _, state := range States() {
		m.devices.WithLabelValues(string(account), string(state)).Set(float64(of[state]))
	}
	m.flapping.WithLabelValues(string(account)).Set(float64(c.Flapping))
}

// byState counts things by state, those that were never seen included.
func (c *counts) byState() map[State]int {
	of := map[State]int{}
	seen := 0
	for state, n := range c.States {
		of[state] = n
		seen += n
	}
	of[NeverSeen] = max(0, c.Things-seen)
	return of
}
