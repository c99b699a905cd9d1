// Package telemetry sets up what every part is given to speak through: the
// structured log and the metrics registry. It decides formats and nothing
// else, knows no subsystem and starts no goroutines.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Log formats.
const (
	// FormatText is for people at a terminal.
	FormatText = "text"
	// FormatJSON is for collectors, one object a line.
	FormatJSON = "json"
)

// Log is a logger whose level can change while it is in use.
type Log struct {
	*slog.Logger
	level *slog.LevelVar
}

// NewLog returns a logger that writes to w. The level is one of debug, info,
// warn and error.
func NewLog(w io.Writer, level, format string) (*Log, error) {
	l := &Log{level: new(slog.LevelVar)}
	if err := l.SetLevel(level); err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: l.level}
	switch format {
	case FormatText:
		l.Logger = slog.New(slog.NewTextHandler(w, options))
	case FormatJSON:
		l.Logger = slog.New(slog.NewJSONHandler(w, options))
	default:
		return nil, fmt.Errorf("log format %q is neither %s nor %s", format, FormatText, FormatJSON)
	}
	return l, nil
}

// SetLevel changes the level of this logger and of all that were derived from
// it. An unknown name changes nothing.
func (l *Log) SetLevel(name string) error {
	level, err := ParseLevel(name)
	if err != nil {
		return err
	}
	l.level.Set(level)
	return nil
}

// ParseLevel accepts exactly the four names of the settings, not the wider
// syntax of slog.
func ParseLevel(name string) (slog.Level, error) {
	switch name {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("log level %q is none of debug, info, warn, error", name)
	}
}

// NewRegistry returns a registry of its own, never the global one, with the
// process and runtime metrics and the running version.
func NewRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "muster_build_info",
		Help:        "Constant 1, labelled with the running version.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	r.MustRegister(
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}
