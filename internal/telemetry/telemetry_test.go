package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

func TestLogLevelChangesDerivedLoggers(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLog(&out, "warn", FormatJSON)
	if err != nil {
		t.Fatal(err)
	}
	part := log.With(slog.String("component", "broker"))
	part.InfoContext(t.Context(), "hidden")
	if out.Len() != 0 {
		t.Fatalf("info was written at level warn: %s", out.String())
	}
	if err := log.SetLevel("debug"); err != nil {
		t.Fatal(err)
	}
	part.DebugContext(t.Context(), "shown")
	var line struct {
		Msg       string `json:"msg"`
		Component string `json:"component"`
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line.Msg != "shown" || line.Component != "broker" {
		t.Errorf("got %+v", line)
	}
	if err := log.SetLevel("loud"); err == nil {
		t.Error("an unknown level was accepted")
	}
	if !log.Enabled(t.Context(), -4) {
		t.Error("an unknown level changed the level in force")
	}
}

func TestNewLogRefusesUnknownFormat(t *testing.T) {
	t.Parallel()
	if _, err := NewLog(&bytes.Buffer{}, "info", "xml"); err == nil || !strings.Contains(err.Error(), "xml") {
		t.Errorf("got %v", err)
	}
}

func TestRegistryHoldsRuntimeAndVersion(t *testing.T) {
	t.Parallel()
	families, err := NewRegistry("1.2.3").Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range families {
		found[f.GetName()] = true
		if f.GetName() == "muster_build_info" {
			if got := f.GetMetric()[0].GetLabel()[0].GetValue(); got != "1.2.3" {
				t.Errorf("version label %q", got)
			}
		}
	}
	for _, want := range []string{"muster_build_info", "go_goroutines", "process_open_fds"} {
		if !found[want] {
			t.Errorf("%s is missing", want)
		}
	}
}
