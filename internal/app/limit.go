package app

import (
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/inlet"
)

// refusalsEvery is how often the log tells of connections without room.
const refusalsEvery = 10 * time.Second

// onLoopback reports whether only this machine can reach an address. Settings
// have checked the name; this is what it led to.
func onLoopback(addr net.Addr) bool {
	bound, ok := addr.(*net.TCPAddr)
	return ok && bound.IP.IsLoopback()
}

// connectionLimit keeps files free for the store, whoever connects.
func (a *App) connectionLimit() *inlet.Limit {
	most := inlet.Connections()
	refused := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_connections_refused_total", Help: "Connections closed at once because too many are open.",
	})
	var limit *inlet.Limit
	var toldAt atomic.Int64
	limit = inlet.NewLimit(most, func() {
		refused.Inc()
		at, last := now().UnixNano(), toldAt.Load()
		if at-last >= int64(refusalsEvery) && toldAt.CompareAndSwap(last, at) {
			a.log.Warn("connections are refused: as many are open as the limit on open files allows", slog.Int("connections", most))
		}
	})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_connections_open", Help: "Connections of all listeners but the plain MQTT one.",
	}, func() float64 { return float64(limit.Open()) })
	a.metrics.MustRegister(refused, open)
	return limit
}
