package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
)

// BenchmarkApply is what the trail costs behind the log, commit included.
func BenchmarkApply(b *testing.B) {
	f := &fixture{Service: newService(b, inMemory(b), time.Now)}
	events := make([]event.Envelope, 1000)
	for b.Loop() {
		for i := range events {
			events[i] = f.called("ada", "UpdateThing", fmt.Sprint("arn:aws:iot:r:000000000000:thing/pump-", i))
		}
		batch, err := f.Apply(b.Context(), events)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.store.Commit(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(events))/b.Elapsed().Seconds(), "records/s")
}
