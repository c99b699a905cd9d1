package broker

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/topic"
)

// diary is a keeper that remembers the kinds of changes.
type diary struct {
	noKeeper
	mu    sync.Mutex
	kinds []ChangeKind
}

func (d *diary) Save(c Change, done func(error)) {
	d.mu.Lock()
	d.kinds = append(d.kinds, c.Kind)
	d.mu.Unlock()
	d.noKeeper.Save(c, done)
}

// The record of a session is dropped before anybody can see that it is over: a
// successor writes its own under the same key.
func TestRecordGoesWithTheEnd(t *testing.T) {
	t.Parallel()
	d := &diary{}
	b := New(Options{Profile: topic.AWS, Keeper: d, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	defer func() {
		if err := b.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	r := b.realm("000000000000")
	r.restore("c", &SessionRecord{SessionID: "s", Expiry: 1, DisconnectedAt: time.Now().Add(-time.Minute)}, time.Now())
	s := r.find("c")
	r.mu.Lock() // nobody joins or leaves
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.lookAtExpiry(1)
	}()
	for !s.isOver() {
		runtime.Gosched()
	}
	d.mu.Lock()
	if len(d.kinds) != 1 || d.kinds[0] != DropSession {
		t.Errorf("saved %v", d.kinds)
	}
	d.mu.Unlock()
	r.mu.Unlock()
	<-ended
}
