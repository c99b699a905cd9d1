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

// localShare is the part of all connections that is kept for the listener on
// loopback: whoever floods the ports that the network reaches does not keep the
// operator of this machine out.
const localShare = 8

// connectionLimits keep files free for the store, whoever connects: one for the
// API on loopback and one for the ports with TLS.
func (a *App) connectionLimits() (local, remote *inlet.Limit) {
	most := inlet.Connections()
	here := max(1, most/localShare)
	return a.connectionLimit("local", here), a.connectionLimit("remote", most-here)
}

// connectionLimit is one of them.
func (a *App) connectionLimit(of string, most int) *inlet.Limit {
	labels := prometheus.Labels{"from": of}
	refused := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_connections_refused_total", Help: "Connections closed at once because too many are open.", ConstLabels: labels,
	})
	var toldAt atomic.Int64
	limit := inlet.NewLimit(most, func() {
		refused.Inc()
		at, last := now().UnixNano(), toldAt.Load()
		if at-last >= int64(refusalsEvery) && toldAt.CompareAndSwap(last, at) {
			a.log.Warn("connections are refused: as many are open as the limit on open files allows",
				slog.String("from", of), slog.Int("connections", most))
		}
	})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_connections_open", Help: "Connections of all listeners but the plain MQTT one.", ConstLabels: labels,
	}, func() float64 { return float64(limit.Open()) })
	a.metrics.MustRegister(refused, open)
	return limit
}
