package connectivity

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Latency sums up a thing's round trips, those of the newest minute in which
// there were any.
type Latency struct {
	// LastMS, MeanMS and MaxMS are in milliseconds over Samples round trips.
	LastMS  float64 `json:"lastMs"`
	MeanMS  float64 `json:"meanMs"`
	MaxMS   float64 `json:"maxMs"`
	Samples int     `json:"samples"`
	// At is when they were told, in milliseconds.
	At int64 `json:"at"`
}

// latencyRecord is the stored form.
type latencyRecord struct {
	Schema int `json:"v"`
	Latency
}

// measure tells round trips, one event for each batch of things. What is
// measured and cannot be told is lost.
func (s *Service) measure(ctx context.Context, measured []RoundTrips) error {
	byAccount := map[fleet.Account][]event.ThingLatency{}
	for _, trips := range measured {
		byAccount[trips.Account] = append(byAccount[trips.Account], event.ThingLatency{
			Thing: trips.Thing, LastMS: inMS(trips.Last), MeanMS: inMS(trips.Mean), MaxMS: inMS(trips.Max), Samples: trips.Samples,
		})
	}
	for account, things := range byAccount {
		for len(things) > 0 {
			n := min(len(things), batchThings)
			if err := s.tellLatencies(ctx, account, things[:n]); err != nil {
				return err
			}
			things = things[n:]
		}
	}
	return nil
}

// inMS is a duration in milliseconds, to the microsecond.
func inMS(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// tellLatencies commits the latencies of some things that are known.
func (s *Service) tellLatencies(ctx context.Context, account fleet.Account, things []event.ThingLatency) error {
	b := s.newBatch()
	keys := make([]thingKey, len(things))
	for i := range things {
		keys[i] = thingKey{account, things[i].Thing}
	}
	if err := b.load(ctx, keys...); err != nil {
		return err
	}
	var told event.LatencyMeasured
	at := map[string]int{}
	for i, k := range keys {
		if b.slots[k].record == nil {
			continue
		}
		// A connection that ended and the one after it are told as one.
		if n, ok := at[k.thing]; ok {
			told.Things[n] = joined(told.Things[n], things[i])
			continue
		}
		at[k.thing] = len(told.Things)
		told.Things = append(told.Things, things[i])
	}
	if len(told.Things) == 0 {
		return nil
	}
	for _, one := range told.Things {
		value, err := json.Marshal(latencyRecord{schema, Latency{one.LastMS, one.MeanMS, one.MaxMS, one.Samples, b.now}})
		if err != nil {
			return fmt.Errorf("encode latency: %w", err)
		}
		b.writes = append(b.writes, store.Write{Key: latencyKey(thingKey{account, one.Thing}), Value: value})
	}
	b.events = append(b.events, event.Envelope{Account: account, At: time.UnixMilli(b.now).UTC(), Actor: fleet.System, Event: told})
	return s.commit(ctx, b)
}

// joined is the sum of two measurements, of which b is the newer one.
func joined(a, b event.ThingLatency) event.ThingLatency {
	n := a.Samples + b.Samples
	mean := (a.MeanMS*float64(a.Samples) + b.MeanMS*float64(b.Samples)) / float64(n)
	return event.ThingLatency{Thing: a.Thing, LastMS: b.LastMS, MeanMS: mean, MaxMS: max(a.MaxMS, b.MaxMS), Samples: n}
}
