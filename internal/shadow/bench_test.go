package shadow

import (
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

// benchDocument is a shadow of about 1 KB with 35 members.
func benchDocument(tb testing.TB) *document {
	tb.Helper()
	var b strings.Builder
	b.WriteString(`{"state":{"desired":{"led":"on","interval":30,"mode":"eco"},"reported":{"battery":81,"temp":21.5,"rssi":-67,"led":"off"`)
	for i := range 28 {
		fmt.Fprintf(&b, `,"field%02d":{"value":"reading-%d"}`, i, i*37)
	}
	b.WriteString(`}}}`)
	limits := Limits{}.withDefaults()
	r, err := parseRequest([]byte(b.String()), 1795412045, limits)
	if err != nil {
		tb.Fatal(err)
	}
	d, err := absent().update(&r, time.Unix(1795412045, 0), limits)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// benchRequest is an update of about 200 bytes.
const benchRequest = `{"state":{"reported":{"battery":80,"temp":21.75,"rssi":-66,"uptime":86400,"field03":{"value":"reading-x"},"firmware":"2.4.1","location":{"lat":59.91,"lon":10.75}}},"clientToken":"4a1f3c0e-9a53-4a35-8a39"}`

// BenchmarkUpdate is everything that one update costs without the store:
// parsing, merge, delta, stored form and the three documents.
func BenchmarkUpdate(b *testing.B) {
	d := benchDocument(b)
	limits := Limits{}.withDefaults()
	s := &Service{limits: limits}
	now := time.Unix(1795412345, 0)
	body := []byte(benchRequest)
	b.ReportMetric(float64(d.stateSize), "state-bytes")
	b.ReportAllocs()
	for b.Loop() {
		r, err := parseRequest(body, now.Unix(), limits)
		if err != nil {
			b.Fatal(err)
		}
		u := &Updated{Timestamp: now.Unix(), Token: r.token, patch: r}
		next, _, err := u.apply(now, s)(d)
		if err != nil {
			b.Fatal(err)
		}
		value := encodeRecord(next)
		if len(u.AcceptedDocument())+len(u.DeltaDocument())+len(u.DocumentsDocument())+len(value) == 0 {
			b.Fatal("nothing was written")
		}
	}
}

// BenchmarkRecord is the cost of reading one shadow back, which bounds the
// rebuilding of projections.
func BenchmarkRecord(b *testing.B) {
	value := encodeRecord(benchDocument(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeRecord(value); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkServiceUpdate is the durable update of one of 10,000 shadows by 256
// callers at once, on the embedded engine and a real disk.
func BenchmarkServiceUpdate(b *testing.B) {
	engine, err := embedded.Open(embedded.Options{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	s := New(Options{Store: engine, Now: time.Now})
	body := []byte(benchRequest)
	var next atomic.Int64
	b.SetParallelism(256 / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			thing := "thing-" + strconv.FormatInt(next.Add(1)*7919%10_000, 10)
			u, err := s.Update(b.Context(), UpdateCommand{Account: scriptAccount, Thing: thing, Body: body})
			if err != nil {
				b.Error(err)
				return
			}
			if len(u.AcceptedDocument())+len(u.DocumentsDocument()) == 0 {
				b.Error("nothing was written")
			}
		}
	})
}

// BenchmarkDrifts is a page of 100 of the drift report of a million shadows of
// which every tenth differs; with a query that finds one thing in a thousand,
// too.
func BenchmarkDrifts(b *testing.B) {
	engine, err := embedded.Open(embedded.Options{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	const shadows = 1_000_000
	limits := Limits{}.withDefaults()
	var batch store.Batch
	for i := range shadows {
		body := `{"state":{"desired":{"a":1,"interval":30},"reported":{"a":1,"interval":30,"battery":77}}}`
		if i%10 == 0 {
			body = `{"state":{"desired":{"a":1,"interval":30},"reported":{"a":1,"battery":77}}}`
		}
		at := time.Unix(1795412345+int64(i%86400), 0)
		r, err := parseRequest([]byte(body), at.Unix(), limits)
		if err != nil {
			b.Fatal(err)
		}
		d, err := absent().update(&r, at, limits)
		if err != nil {
			b.Fatal(err)
		}
		id := identity{account: scriptAccount, thing: fmt.Sprintf("thing-%07d", i)}
		batch.Writes = append(batch.Writes, writes(id, absent(), d, encodeRecord(d))...)
		if len(batch.Writes) > 5000 || i == shadows-1 {
			if _, err := engine.Commit(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			batch.Writes = nil
		}
	}
	s := New(Options{Store: engine, Now: time.Now})
	for name, match := range map[string]func([]string) ([]bool, error){
		"all": nil,
		"query": func(things []string) ([]bool, error) {
			out := make([]bool, len(things))
			for i, thing := range things {
				out[i] = strings.HasSuffix(thing, "000")
			}
			return out, nil
		},
	} {
		b.Run(name, func(b *testing.B) {
			q, found, pages := DriftQuery{Limit: 100, Match: match}, 0, 0
			for b.Loop() {
				page, err := s.Drifts(b.Context(), scriptAccount, q)
				if err != nil {
					b.Fatal(err)
				}
				found += len(page.Drifts)
				pages++
				q.After = page.Next
			}
			b.ReportMetric(float64(found)/float64(pages), "entries/page")
		})
	}
	b.Run("fill", func(b *testing.B) {
		for b.Loop() {
			if _, err := engine.Commit(b.Context(), store.Batch{Writes: []store.Write{{Key: store.K(keyDriftWhole), Delete: true}}}); err != nil {
				b.Fatal(err)
			}
			if err := s.FillDrifts(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
