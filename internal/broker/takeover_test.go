package broker_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// lifeline notes who came and went, in the order it was told, and lets others
// overtake whoever tells.
type lifeline struct {
	*recorder
	mu   sync.Mutex
	last string
	here []string
}

func (l *lifeline) Connected(s *broker.SessionInfo) {
	l.mu.Lock()
	l.last, l.here = s.SessionID, append(l.here, s.SessionID)
	l.mu.Unlock()
	for range 20 {
		runtime.Gosched()
	}
}

func (l *lifeline) Disconnected(s *broker.SessionInfo, _ broker.DisconnectReason, _ bool, _ time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.here = slices.DeleteFunc(l.here, func(id string) bool { return id == s.SessionID })
}

// Of connections of one client that come at the same moment one stays, and it
// is the one that the observer heard of last: what is recorded as the newest
// state of the client is its state.
func TestSimultaneousTakeoversAreToldInOrder(t *testing.T) {
	t.Parallel()
	line := &lifeline{recorder: &recorder{}}
	inWorld(t, topic.AWS, func(w *world) {
		for range 50 {
			for range 4 {
				w.dial(mqtt.V311).sendLater(connectPacket(mqtt.V311, "c"))
			}
			synctest.Wait()
			stays := w.broker.Sessions(account)
			if len(stays) != 1 {
				w.t.Fatalf("%d sessions of one client id", len(stays))
			}
			if diff := cmp.Diff([]string{stays[0].SessionID}, line.here); diff != "" || line.last != stays[0].SessionID {
				w.t.Fatalf("last told of %s (-stays +told):\n%s", line.last, diff)
			}
		}
	}, func(o *broker.Options) { o.Observer = line })
}
