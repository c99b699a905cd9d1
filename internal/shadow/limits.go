package shadow

import "github.com/muster-iot/muster/internal/fault"

// Limits of one service; zero fields take the defaults of the service that
// devices know.
type Limits struct {
	// StateBytes bounds a shadow's compact state text, desired and reported
	// together, without metadata.
	StateBytes int
	// BodyBytes bounds a request before it is read.
	BodyBytes int
	// Depth is the deepest level of a section; the section is level 1.
	Depth int
	// InFlight bounds the requests of one thing that are being worked on or
	// wait for their turn; 0 means no bound.
	InFlight int
	// PerSecond bounds the requests of one thing in a second, with bursts of as
	// many; 0 means no bound. It holds for each process.
	PerSecond int
}

// Default limits.
const (
	defaultStateBytes = 8192
	defaultBodyBytes  = 128 << 10
	defaultDepth      = 8
)

// withDefaults fills what was left out.
func (l Limits) withDefaults() Limits {
	if l.StateBytes <= 0 {
		l.StateBytes = defaultStateBytes
	}
	if l.BodyBytes <= 0 {
		l.BodyBytes = defaultBodyBytes
	}
	if l.Depth <= 0 {
		l.Depth = defaultDepth
	}
	return l
}

// checkState refuses a document over the size limit. An update that makes a
// document smaller always passes, so that a lowered limit locks nobody out.
func (l Limits) checkState(before, after int) error {
	if after > l.StateBytes && after >= before {
		return &fault.Error{Code: fault.RequestEntityTooLarge, Message: msgTooLarge}
	}
	return nil
}
