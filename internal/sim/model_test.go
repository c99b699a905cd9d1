package sim

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// day runs a device for a number of reports.
func day(m *model, reports int) []report {
	var out []report
	for range reports {
		m.step(m.wait())
		out = append(out, m.report())
	}
	return out
}

func TestSameSeedSameDevice(t *testing.T) {
	t.Parallel()
	run := func(seed uint64, index int) []report { return day(newModel(seed, index, 10*time.Second), 50) }
	if diff := cmp.Diff(run(7, 3), run(7, 3)); diff != "" {
		t.Error(diff)
	}
	if cmp.Equal(run(7, 3), run(7, 4)) || cmp.Equal(run(7, 3), run(8, 3)) {
		t.Error("two devices or two seeds behave alike")
	}
}

func TestBatteryDrainsAndCharges(t *testing.T) {
	t.Parallel()
	low, high, drained, charged := 0, 0, 0, 0
	for i := range 50 {
		last := -1
		for _, r := range day(newModel(1, i, time.Minute), 500) {
			if r.Battery < batteryEmpty || r.Battery > batteryFull {
				t.Fatalf("battery at %d", r.Battery)
			}
			switch {
			case last >= 0 && r.Battery < last:
				drained++
			case last >= 0 && r.Battery > last:
				charged++
			}
			last = r.Battery
			if r.Battery < 20 {
				low++
			}
			if r.Battery > 90 {
				high++
			}
			if r.RSSI < -110 || r.RSSI > -40 {
				t.Fatalf("signal of %d", r.RSSI)
			}
		}
	}
	if low == 0 || high == 0 || drained == 0 || charged == 0 {
		t.Errorf("low %d, high %d, drained %d, charged %d: the demo's groups would stand still", low, high, drained, charged)
	}
}

func TestObey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state    string
		changed  bool
		led      string
		interval time.Duration
	}{
		"led":                {`{"led":"on"}`, true, "on", 10 * time.Second},
		"same led":           {`{"led":"off"}`, false, "off", 10 * time.Second},
		"interval":           {`{"reportIntervalSeconds":2}`, true, "off", 2 * time.Second},
		"interval too small": {`{"reportIntervalSeconds":0}`, false, "off", 10 * time.Second},
		"interval too large": {`{"reportIntervalSeconds":1e300}`, false, "off", 10 * time.Second},
		"wrong kinds":        {`{"led":5}`, false, "off", 10 * time.Second},
		"unknown":            {`{"valve":"open"}`, false, "off", 10 * time.Second},
		"null":               {`{"led":null}`, false, "off", 10 * time.Second},
		"rubbish":            {`{`, false, "off", 10 * time.Second},
	} {
		m := newModel(1, 0, 10*time.Second)
		if got := m.obey(json.RawMessage(c.state)); got != c.changed || m.led != c.led || m.interval != c.interval {
			t.Errorf("%s: changed %v, led %q, interval %v", name, got, m.led, m.interval)
		}
	}
}

func TestResume(t *testing.T) {
	t.Parallel()
	first := newModel(1, 0, 10*time.Second)
	day(first, 100)
	first.obey(json.RawMessage(`{"led":"on","firmware":"2.0.0","reportIntervalSeconds":7}`))
	said, err := json.Marshal(first.report())
	if err != nil {
		t.Fatal(err)
	}
	second := newModel(1, 0, 10*time.Second)
	second.resume(said)
	want, got := first.report(), second.report()
	want.Temperature, want.RSSI = got.Temperature, got.RSSI // the weather went on
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	second.resume(json.RawMessage(`{"battery":-5000,"reportIntervalSeconds":-1}`))
	if r := second.report(); r.Battery < batteryEmpty || r.ReportIntervalSeconds != 7 {
		t.Errorf("a strange shadow gave %+v", r)
	}
}

func TestPauses(t *testing.T) {
	t.Parallel()
	m := newModel(1, 0, 10*time.Second)
	for attempt := range 100 {
		if p := m.backoff(attempt); p < 0 || p > time.Minute {
			t.Fatalf("attempt %d pauses %v", attempt, p)
		}
		if w := m.wait(); w < 9*time.Second || w > 11*time.Second {
			t.Fatalf("reports after %v", w)
		}
		if p, _ := m.away(); p < 5*time.Second || p > 45*time.Second {
			t.Fatalf("away for %v", p)
		}
	}
	if m.sessionLength(0) < 1<<60 {
		t.Error("a device that should stay leaves")
	}
}

func TestDynamicGroupQueriesParse(t *testing.T) {
	t.Parallel()
	for _, g := range dynamicGroups() {
		if _, err := fleetquery.Parse(g.query); err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
	}
}
