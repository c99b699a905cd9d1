package deviceauth_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/muster-iot/muster/internal/event"
)

// Once Apply returned for a change, no goroutine is answered by what was
// before; answers in between may be either.
func TestNoStaleAnswerAfterApply(t *testing.T) {
	t.Parallel()
	const deny = `{"Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},{"Effect":"Deny","Action":"iot:Receive","Resource":"@:topic/a"}]}`
	const allow = `{"Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Receive"],"Resource":["@:topic/a","@:client/*"]}]}`
	w := newWorld(t, allow)
	guard := w.connect(t, "pump-7").Guard
	// settled is even while no change is under way: 2n after the n-th.
	var settled atomic.Int64
	stop := make(chan struct{})
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				before := settled.Load()
				got := guard.CanReceive("a")
				if before%2 == 0 && settled.Load() == before && got != (before%4 == 0) {
					t.Errorf("answered %v after change %d", got, before/2)
					return
				}
			}
		})
	}
	for i := range 300 {
		document := deny
		if i%2 == 1 {
			document = allow
		}
		settled.Add(1)
		w.setPolicy("reference", document)
		settled.Add(1)
		if got := guard.CanReceive("a"); got != (i%2 == 1) {
			t.Fatalf("change %d: %v", i, got)
		}
	}
	close(stop)
	askers.Wait()
}

// Connections come and go while their things and policies change.
func TestConcurrentLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 200 {
				a := w.connect(t, "pump-7")
				if !a.Guard.CanPublish(fmt.Sprint("a/", i), true) {
					t.Error("refused")
				}
				a.Guard.Close()
			}
		})
	}
	for range 200 {
		w.service.Apply([]event.Envelope{
			{Account: account, Event: event.ThingUpdated{Thing: event.Thing{Thing: "pump-7"}}},
			{Account: account, Event: event.PrincipalAttached{Thing: "pump-7", Principal: w.arn}},
		})
		w.service.Sweep(start)
	}
	group.Wait()
	if len(w.disconnected) != 0 {
		t.Error("a live certificate was swept")
	}
}

func BenchmarkCanReceive(b *testing.B) {
	w := newWorld(b, reference)
	guard := w.connect(b, "pump-7").Guard
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			guard.CanReceive(topicOfPump7)
		}
	})
	b.Run("new topic", func(b *testing.B) {
		b.ReportAllocs()
		topics := make([]string, 4096)
		for i := range topics {
			topics[i] = fmt.Sprint("plant/leeds/pump-7/", i)
		}
		i := 0
		for b.Loop() {
			guard.CanReceive(topics[i%len(topics)])
			i++
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	w := newWorld(b, reference)
	b.ReportAllocs()
	for b.Loop() {
		w.connect(b, "pump-7").Guard.Close()
	}
}
