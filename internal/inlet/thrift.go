package inlet

import (
	"runtime/debug"
	"sync"
)

// stormGarbage is how much garbage, in percent of what is alive, may gather
// during a storm: the connections that were cut and those that take their place
// would otherwise be in memory at once.
const stormGarbage = 30

// Thrift makes the process collect garbage sooner while a storm lasts, and as
// before when all of them are over. Its zero value is ready.
type Thrift struct {
	mu     sync.Mutex
	storms int
	before int
}

// Storm is told when one begins and when one ends.
func (t *Thrift) Storm(began bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case began:
		if t.storms++; t.storms == 1 {
			t.before = debug.SetGCPercent(stormGarbage)
			if t.before >= 0 && t.before < stormGarbage {
				debug.SetGCPercent(t.before) // the operator wants it thriftier still
			}
		}
	case t.storms > 0:
		if t.storms--; t.storms == 0 {
			debug.SetGCPercent(t.before)
		}
	}
}
