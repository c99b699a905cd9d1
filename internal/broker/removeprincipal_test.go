package broker_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// All sessions of a principal end, those of clients that are away too, also
// when they have outlived the process; others stay.
func TestRemovePrincipal(t *testing.T) {
	t.Parallel()
	bothRestarts(t, func(w *world, v mqtt.Version, restart func()) {
		w.gate.badge = func(id string) string { return "cert-" + id[:1] }
		for _, id := range []string{"a-away", "a-kept", "b-away"} {
			p, _ := w.attach(v, id, false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "x", QoS: 1})
			p.drop()
		}
		restart()
		online, _ := w.attach(v, "a-online", false, resuming(3600))
		clean := w.connect(v, "a-clean")
		other := w.connect(v, "b-clean")
		remove := func(o broker.RemoveOptions) (ids []string) {
			for _, info := range w.broker.RemovePrincipal(account, "cert-a", o) {
				ids = append(ids, info.ClientID)
			}
			slices.Sort(ids)
			return ids
		}
		if diff := cmp.Diff([]string{"a-away", "a-clean", "a-kept", "a-online"}, remove(broker.RemoveOptions{EndSession: true})); diff != "" {
			w.t.Errorf("removed (-want +got):\n%s", diff)
		}
		synctest.Wait()
		if !online.isClosed() || !clean.isClosed() || other.isClosed() {
			w.t.Errorf("closed: %v %v %v", online.isClosed(), clean.isClosed(), other.isClosed())
		}
		restart()
		for id, want := range map[string]bool{"a-away": false, "a-kept": false, "a-online": false, "b-away": true} {
			if _, ok := w.stored(id); ok != want {
				w.t.Errorf("%s is stored: %v, want %v", id, ok, want)
			}
		}
		if got := remove(broker.RemoveOptions{EndSession: true}); got != nil {
			w.t.Errorf("removed again: %v", got)
		}
		if got := w.broker.RemovePrincipal(elsewhere(""), "cert-b", broker.RemoveOptions{}); got != nil {
			w.t.Errorf("removed in another account: %v", got)
		}
	})
}

// Who has removed a session can wait for the keeper: what has to be forgotten
// is in its line already, though the connection has still to end.
func TestRemovedSessionIsInLine(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		l, _ := w.options.Keeper.(*ledger)
		w.attach(mqtt.V5, "c", false, resuming(3600))
		synctest.Wait()
		l.mu.Lock()
		_, kept := l.sessions[box{account, "c"}]
		l.busy = true // nothing becomes durable
		l.mu.Unlock()
		if !kept {
			w.t.Fatal("the session is not kept")
		}
		w.broker.Remove(account, "c", broker.RemoveOptions{EndSession: true})
		l.mu.Lock()
		inLine := slices.ContainsFunc(l.waiting, func(e entry) bool { return e.change.Kind == broker.DropSession && e.change.Box == "c" })
		l.busy = false
		l.mu.Unlock()
		if !inLine {
			w.t.Error("a crash now would bring the session back")
		}
	}, keeping(newLedger()))
}
