package awsapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts the calls. Labels take values from the catalog and from our
// own exception names only, so their number is bounded.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_api_requests_total", Help: "API calls by operation and outcome.",
		}, []string{"service", "operation", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muster_api_request_duration_seconds", Help: "Time from the first byte read to the answer written.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"service", "operation"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register API metrics: %w", err)
		}
	}
	return m, nil
}

// record counts and logs a finished request: failures of ours as errors,
// refusals as information, the rest for debugging.
func (s *Server) record(ctx context.Context, x *exchange, took time.Duration) {
	service, operation, code := "unknown", "unknown", "OK"
	if x.op != nil {
		service, operation = string(x.op.Service), x.op.Name
	} else if x.query != nil {
		service, operation = string(x.query.service), x.query.name
	} else if len(x.services) > 0 {
		service = string(x.services[0])
	}
	attrs := []slog.Attr{
		slog.String("request_id", x.id), slog.String("service", service), slog.String("operation", operation),
		slog.Int("status", x.status), slog.Duration("took", took), slog.String("account", string(x.caller.Account)),
		slog.String("principal", x.caller.Principal.ARN), slog.String("source_address", x.caller.SourceAddress),
	}
	level := slog.LevelDebug
	if p := x.problem; p != nil {
		code = p.name
		level = slog.LevelInfo
		attrs = append(attrs, slog.String("code", code), slog.String("reason", p.message))
		if p.status >= http.StatusInternalServerError {
			level = slog.LevelError
		}
		if p.cause != nil {
			attrs = append(attrs, slog.Any("err", p.cause))
		}
	}
	s.metrics.requests.WithLabelValues(service, operation, code).Inc()
	s.metrics.duration.WithLabelValues(service, operation).Observe(took.Seconds())
	if x.problem != nil && x.caller.Principal.Kind == "" && level == slog.LevelInfo {
		// Anybody can be refused as often as they like.
		suppressed, ok := s.strangers.Take(x.caller.SourceAddress, s.options.Now())
		if !ok {
			return
		}
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	s.options.Logger.LogAttrs(ctx, level, "API call", attrs...)
}
