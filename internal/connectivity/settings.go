package connectivity

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// Settings say how a group's things are watched. What is nil comes from the
// next settings that count for a thing; see Resolve.
type Settings struct {
	// WaitSeconds is how long the wait state lasts after a dirty or
	// administrative disconnect; by default the keep-alive, five seconds at
	// least. Up to a fifth is added by chance.
	WaitSeconds *float64 `json:"waitSeconds,omitempty"`
	// WaitCleanSeconds is the same after a clean disconnect, 0 by default.
	WaitCleanSeconds *float64 `json:"waitCleanSeconds,omitempty"`
	// HelloSeconds is how long a device may say nothing in its first connection.
	HelloSeconds *float64 `json:"helloSeconds,omitempty"`
	// StaleSeconds is after how long a silence a connected device is STALE; by
	// default three times the heartbeat interval that it declared, and never for
	// one that declared none. 0 is never.
	StaleSeconds *float64 `json:"staleSeconds,omitempty"`
	// SleepGraceSeconds is how late a device may be that announced its return.
	SleepGraceSeconds *float64 `json:"sleepGraceSeconds,omitempty"`
	// FlapSuppress is the flap score above which a device is FLAPPING,
	// FlapRelease the one below which it is no more.
	FlapSuppress *float64 `json:"flapSuppress,omitempty"`
	FlapRelease  *float64 `json:"flapRelease,omitempty"`
	// Alert says whether somebody is to be told of STALE and of confirmed
	// OFFLINE states.
	Alert *bool `json:"alert,omitempty"`
}

// Bounds of settings and declarations.
const (
	// longest bounds all times, a leap year.
	longest = 366 * 24 * time.Hour
	// maxFlap bounds the thresholds.
	maxFlap = 1000
	// shortestSilence bounds StaleSeconds from below, but for 0.
	shortestSilence = 5 * time.Second
)

// Defaults where no settings say otherwise.
const (
	leastWait         = 5 * time.Second
	defaultHello      = time.Minute
	defaultSleepGrace = time.Minute
	defaultSuppress   = 6.0
	defaultRelease    = 2.0
	// recoveredHold is how long a device must be up again to count as ONLINE.
	recoveredHold = 10 * time.Minute
	// staleIntervals is how many declared heartbeats may be missing.
	staleIntervals = 3
)

// Check refuses settings that make no sense, naming the field.
func (s *Settings) Check() error {
	seconds := []struct {
		name  string
		value *float64
		least time.Duration
	}{
		{"waitSeconds", s.WaitSeconds, 0},
		{"waitCleanSeconds", s.WaitCleanSeconds, 0},
		{"helloSeconds", s.HelloSeconds, time.Second},
		{"staleSeconds", s.StaleSeconds, 0},
		{"sleepGraceSeconds", s.SleepGraceSeconds, 0},
	}
	for _, f := range seconds {
		if f.value == nil {
			continue
		}
		if math.IsNaN(*f.value) || *f.value < f.least.Seconds() || *f.value > longest.Seconds() {
			return fault.New(fault.InvalidRequest, "%s: must be between %g and %g", f.name, f.least.Seconds(), longest.Seconds())
		}
	}
	if v := s.StaleSeconds; v != nil && *v != 0 && *v < shortestSilence.Seconds() {
		return fault.New(fault.InvalidRequest, "staleSeconds: must be 0 for never, or at least %g", shortestSilence.Seconds())
	}
	for name, v := range map[string]*float64{"flapSuppress": s.FlapSuppress, "flapRelease": s.FlapRelease} {
		if v != nil && (math.IsNaN(*v) || *v <= 0 || *v > maxFlap) {
			return fault.New(fault.InvalidRequest, "%s: must be above 0 and at most %d", name, maxFlap)
		}
	}
	if s.FlapSuppress != nil && s.FlapRelease != nil && *s.FlapRelease >= *s.FlapSuppress {
		return fault.New(fault.InvalidRequest, "flapRelease: must be below flapSuppress")
	}
	if *s == (Settings{}) {
		return fault.New(fault.InvalidRequest, "the settings say nothing: give at least one field, or delete them")
	}
	return nil
}

// Group is a group that a thing is in, as far as settings are concerned.
type Group struct {
	Name string
	// Distance is 0 for a group that the thing is in itself, 1 for the parent of
	// one, and so on.
	Distance int
	Created  time.Time
}

// InForce are the settings that count for a thing, all fields set but those
// whose default depends on the connection.
type InForce struct {
	Settings

	// From names for each field what set it: a group, DefaultSource or
	// BuiltinSource.
	From map[string]string
}

// Sources of settings beside groups.
const (
	// DefaultSource are the settings of the account. No group has such a name.
	DefaultSource = "(account)"
	// BuiltinSource are those that hold when nobody says anything.
	BuiltinSource = "(built in)"
)

// sortGroups puts groups into the order in which their settings count: the
// nearest first, of equally near ones the eldest, then by name. A group that is
// reached in several ways counts where it is nearest.
func sortGroups(groups []Group) []Group {
	groups = slices.Clone(groups)
	slices.SortFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.Distance, b.Distance), a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	seen := map[string]bool{}
	return slices.DeleteFunc(groups, func(g Group) bool {
		again := seen[g.Name]
		seen[g.Name] = true
		return again
	})
}

// resolve merges settings field by field: what an earlier group sets counts,
// then the account's, then what is built in.
func resolve(groups []Group, of func(group string) *Settings) InForce {
	f := InForce{From: map[string]string{}}
	take := func(source string, s *Settings) {
		if s == nil {
			return
		}
		pick(&f, "waitSeconds", &f.WaitSeconds, s.WaitSeconds, source)
		pick(&f, "waitCleanSeconds", &f.WaitCleanSeconds, s.WaitCleanSeconds, source)
		pick(&f, "helloSeconds", &f.HelloSeconds, s.HelloSeconds, source)
		pick(&f, "staleSeconds", &f.StaleSeconds, s.StaleSeconds, source)
		pick(&f, "sleepGraceSeconds", &f.SleepGraceSeconds, s.SleepGraceSeconds, source)
		pick(&f, "flapSuppress", &f.FlapSuppress, s.FlapSuppress, source)
		pick(&f, "flapRelease", &f.FlapRelease, s.FlapRelease, source)
		pick(&f, "alert", &f.Alert, s.Alert, source)
	}
	for _, g := range sortGroups(groups) {
		take(g.Name, of(g.Name))
	}
	take(DefaultSource, of(""))
	take(BuiltinSource, builtin())
	if *f.FlapRelease >= *f.FlapSuppress {
		// They come from two places that know nothing of each other.
		half := *f.FlapSuppress / 2
		f.FlapRelease = &half
	}
	return f
}

// pick takes a field over that nobody has set before.
func pick[T any](f *InForce, name string, into **T, value *T, source string) {
	if *into == nil && value != nil {
		*into = value
		f.From[name] = source
	}
}

// builtin are the settings that always hold at last.
func builtin() *Settings {
	zero, hello, grace := 0.0, defaultHello.Seconds(), defaultSleepGrace.Seconds()
	suppress, release, alert := defaultSuppress, defaultRelease, true
	return &Settings{
		WaitCleanSeconds: &zero, HelloSeconds: &hello, SleepGraceSeconds: &grace,
		FlapSuppress: &suppress, FlapRelease: &release, Alert: &alert,
	}
}

// millis of a number of seconds.
func millis(seconds float64) int64 { return int64(seconds * 1000) }

// wait is how long the wait state of a session lasts, without its jitter.
func (f *InForce) wait(clean bool, keepAlive int) int64 {
	switch {
	case clean:
		return millis(*f.WaitCleanSeconds)
	case f.WaitSeconds != nil:
		return millis(*f.WaitSeconds)
	default:
		return max(leastWait.Milliseconds(), int64(keepAlive)*1000)
	}
}

// stale is the longest allowed silence, 0 for any.
func (f *InForce) stale(interval int64) int64 {
	if f.StaleSeconds != nil {
		return millis(*f.StaleSeconds)
	}
	return staleIntervals * interval
}

// settingsRecord is the stored form.
type settingsRecord struct {
	Schema int `json:"v"`
	Settings
}
