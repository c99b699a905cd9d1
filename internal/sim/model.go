package sim

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"time"
)

// Bounds of the reporting interval that a shadow may ask for.
const (
	minInterval = time.Second
	maxInterval = time.Hour
)

// Battery levels, in percent.
const (
	batteryFull  = 100
	batteryEmpty = 3
	// chargeFrom is where most devices start to charge; some are forgotten
	// until they are nearly empty.
	chargeFrom = 35
)

// report is the reported state of a device's shadow.
type report struct {
	Firmware              string  `json:"firmware"`
	Battery               int     `json:"battery"`
	Charging              bool    `json:"charging"`
	Temperature           float64 `json:"temperature"`
	RSSI                  int     `json:"rssi"`
	LED                   string  `json:"led"`
	ReportIntervalSeconds int     `json:"reportIntervalSeconds"`
}

// desired is the part of a desired state that a device understands; other
// members stay in the delta, as with a real device.
type desired struct {
	LED                   *string  `json:"led"`
	ReportIntervalSeconds *float64 `json:"reportIntervalSeconds"`
	Firmware              *string  `json:"firmware"`
}

// model is the physics of one device: a function of its seed and of the time
// that has passed for it.
type model struct {
	random   *rand.Rand
	firmware string
	led      string
	interval time.Duration

	battery     float64
	charging    bool
	drain       float64 // percent an hour, exaggerated for a demo
	chargeAt    float64 // level at which somebody plugs it in
	temperature float64
	ambient     float64
	rssi        float64
}

// newModel draws a device.
func newModel(seed uint64, index int, interval time.Duration) *model {
	random := rand.New(rand.NewPCG(seed, uint64(index)+1)) //nolint:gosec // a simulation must be repeatable
	m := &model{
		random: random, led: "off", interval: interval, firmware: "1.4.2",
		battery:  5 + 95*random.Float64(),
		drain:    60 + 180*random.Float64(),
		chargeAt: chargeFrom - 20*random.Float64(),
		ambient:  14 + 12*random.Float64(),
		rssi:     -85 + 40*random.Float64(),
	}
	switch draw := random.Float64(); {
	case draw < 0.15:
		m.firmware = "1.3.9"
	case draw < 0.20:
		m.firmware = "1.2.0"
	}
	if random.Float64() < 0.1 {
		m.chargeAt = batteryEmpty + 5
	}
	m.temperature = m.ambient
	m.charging = m.battery < m.chargeAt
	return m
}

// hardware is a property of the device that never changes.
func (m *model) hardware() string { return []string{"r1", "r2", "r3"}[m.random.IntN(3)] }

// step lets time pass.
func (m *model) step(elapsed time.Duration) {
	hours := elapsed.Hours()
	if m.charging {
		m.battery += 4 * m.drain * hours
	} else {
		m.battery -= m.drain * hours
	}
	m.battery = min(batteryFull, max(batteryEmpty, m.battery))
	switch {
	case m.battery >= batteryFull:
		m.charging = false
	case m.battery <= m.chargeAt:
		m.charging = true
	}
	m.temperature += (m.ambient-m.temperature)*0.2 + m.random.NormFloat64()*0.4
	if m.charging {
		m.temperature += 0.5
	}
	m.rssi = min(-40, max(-110, m.rssi+m.random.NormFloat64()*1.5))
}

// report is what the device would say now.
func (m *model) report() report {
	return report{
		Firmware: m.firmware, Battery: int(m.battery), Charging: m.charging,
		Temperature: math.Round(m.temperature*10) / 10, RSSI: int(m.rssi), LED: m.led,
		ReportIntervalSeconds: int(m.interval / time.Second),
	}
}

// obey applies what is understood and reports whether anything changed.
func (m *model) obey(state json.RawMessage) bool {
	var want desired
	if json.Unmarshal(state, &want) != nil {
		return false
	}
	changed := false
	if want.LED != nil && *want.LED != m.led {
		m.led, changed = *want.LED, true
	}
	if want.Firmware != nil && *want.Firmware != m.firmware {
		m.firmware, changed = *want.Firmware, true
	}
	if want.ReportIntervalSeconds != nil {
		seconds := *want.ReportIntervalSeconds
		if seconds >= minInterval.Seconds() && seconds <= maxInterval.Seconds() {
			interval := time.Duration(seconds) * time.Second
			changed = changed || interval != m.interval
			m.interval = interval
		}
	}
	return changed
}

// resume continues from what the shadow last reported.
func (m *model) resume(state json.RawMessage) {
	last := m.report()
	if json.Unmarshal(state, &last) != nil {
		return
	}
	m.firmware, m.led, m.charging = last.Firmware, last.LED, last.Charging
	m.battery = min(batteryFull, max(batteryEmpty, float64(last.Battery)))
	interval := time.Duration(last.ReportIntervalSeconds) * time.Second
	if interval >= minInterval && interval <= maxInterval {
		m.interval = interval
	}
}

// wait draws the pause until the next report: the interval, give or take a
// tenth, so that a fleet started at once does not report at once.
func (m *model) wait() time.Duration {
	return time.Duration(float64(m.interval) * (0.9 + 0.2*m.random.Float64()))
}

// backoff draws a full-jitter pause before the next attempt to connect.
func (m *model) backoff(attempt int) time.Duration {
	const base, most = time.Second, time.Minute
	ceiling := min(most, base<<min(attempt, 6))
	return time.Duration(m.random.Float64() * float64(ceiling))
}

// sessionLength draws how long the device stays connected.
func (m *model) sessionLength(mean time.Duration) time.Duration {
	if mean == 0 {
		return math.MaxInt64
	}
	return time.Duration(m.random.ExpFloat64() * float64(mean))
}

// away draws how long it stays off, and whether it says goodbye.
func (m *model) away() (pause time.Duration, clean bool) {
	return 5*time.Second + time.Duration(m.random.Float64()*float64(40*time.Second)), m.random.Float64() < 0.7
}
