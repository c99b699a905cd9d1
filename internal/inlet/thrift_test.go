package inlet_test

import (
	"runtime/debug"
	"testing"

	"github.com/muster-iot/muster/internal/inlet"
)

// The collector's setting changes with the first storm and is back after the
// last.
func TestThrift(t *testing.T) { //nolint:paralleltest // the setting is the process's
	usual := debug.SetGCPercent(100)
	defer debug.SetGCPercent(usual)
	percent := func() int {
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now
	}
	var thrift inlet.Thrift
	thrift.Storm(false) // harmless
	thrift.Storm(true)
	thrift.Storm(true)
	thrift.Storm(false)
	if got := percent(); got != 30 {
		t.Errorf("%d %% during a storm", got)
	}
	thrift.Storm(false)
	if got := percent(); got != 100 {
		t.Errorf("%d %% after it", got)
	}
	debug.SetGCPercent(20)
	thrift.Storm(true)
	if got := percent(); got != 20 {
		t.Errorf("%d %% where 20 are wanted", got)
	}
	thrift.Storm(false)
}
