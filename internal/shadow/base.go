package shadow

import "time"

const (
	// baseEvery is after how many versions an event tells the whole document
	// again: to make any version takes at most as many patches.
	baseEvery = 32
	// BaseSpan is the longest time between the first and the last version that
	// are made from one told document.
	BaseSpan = 24 * time.Hour
)

// wantsBase reports whether the next version should be told whole: patches
// alone would take too long to replay, or span a time of which a history may
// have forgotten the beginning.
func (d *document) wantsBase(now time.Time) bool {
	return d.gone || d.based == 0 || d.version+1-d.based >= baseEvery || now.Unix()-d.basedAt >= int64(BaseSpan/time.Second)
}
