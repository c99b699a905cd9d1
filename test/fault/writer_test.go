// Package fault_test kills the server and its database at random moments and
// checks that nothing acknowledged is lost.
package fault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// answer is the part of a shadow response that the test reads.
type answer struct {
	Version int64 `json:"version"`
	Code    int   `json:"code"`
	State   struct {
		Reported struct {
			N int64 `json:"n"`
		} `json:"reported"`
	} `json:"state"`
	ClientToken string `json:"clientToken"`
}

// writer updates one thing's shadow, one request at a time, and writes each
// accepted version to the journal before its next publish.
type writer struct {
	thing   string
	addr    string
	journal *journal
	// n is the last value sent; the next accepted one is larger.
	n int64
}

// journal is the file of accepted updates: thing, version, value a line.
type journal struct {
	mu   sync.Mutex
	file *os.File
	last map[string]entry
	// count is the number of accepted updates in all.
	count int
}

type entry struct{ version, n int64 }

func (j *journal) write(thing string, e entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := fmt.Fprintf(j.file, "%s %d %d\n", thing, e.version, e.n); err != nil {
		return err
	}
	if previous := j.last[thing]; e.version <= previous.version {
		return fmt.Errorf("%s: version %d was acknowledged after version %d", thing, e.version, previous.version)
	}
	j.last[thing] = e
	j.count++
	return nil
}

// accepted is how many updates were accepted so far.
func (j *journal) accepted() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count
}

// session is one connection of a thing with its shadow answers.
type session struct {
	*client.Client
	thing   string
	answers chan answer
}

func open(ctx context.Context, addr, thing string) (*session, error) {
	conn, err := client.Dial(ctx, addr, nil)
	if err != nil {
		return nil, err
	}
	s := &session{thing: thing, answers: make(chan answer, 16)}
	s.Client, err = client.Connect(ctx, conn, client.Options{ClientID: thing, KeepAlive: 60, OnMessage: s.receive})
	if err != nil {
		return nil, err
	}
	prefix := "$aws/things/" + thing + "/shadow/"
	_, err = s.Subscribe(ctx,
		mqtt.Subscription{Filter: prefix + "update/accepted", QoS: 1},
		mqtt.Subscription{Filter: prefix + "update/rejected", QoS: 1},
		mqtt.Subscription{Filter: prefix + "get/accepted", QoS: 1},
		mqtt.Subscription{Filter: prefix + "get/rejected", QoS: 1})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *session) receive(p *mqtt.Publish) {
	var a answer
	if err := json.Unmarshal(p.Payload, &a); err != nil {
		return // the request then times out and the test says so
	}
	if a.Code != 0 && !bytes.HasSuffix(p.Topic, []byte("/rejected")) {
		return
	}
	select {
	case s.answers <- a:
	default:
	}
}

// request publishes and waits for the answer with the same token.
func (s *session) request(ctx context.Context, verb, token, body string) (answer, error) {
	if err := s.Publish(ctx, "$aws/things/"+s.thing+"/shadow/"+verb, 1, []byte(body)); err != nil {
		return answer{}, err
	}
	for {
		select {
		case a := <-s.answers:
			if a.ClientToken == token {
				return a, nil
			}
		case <-s.Done():
			return answer{}, errors.Join(s.Err(), io.ErrUnexpectedEOF)
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
}

// run updates until the connection breaks or ctx ends. It returns an error
// only for a broken promise, never for a broken connection.
func (w *writer) run(ctx context.Context, every time.Duration) error {
	s, err := open(ctx, w.addr, w.thing)
	if err != nil {
		return nil //nolint:nilerr // the server may be gone already
	}
	defer s.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		w.n++
		token := "u" + strconv.FormatInt(w.n, 10)
		a, err := s.request(ctx, "update", token, fmt.Sprintf(`{"state":{"reported":{"n":%d,"battery":%d}},"clientToken":%q}`, w.n, w.n%101, token))
		if err != nil {
			return nil //nolint:nilerr // killed in the middle: nothing was promised
		}
		if a.Code != 0 {
			continue // refused in words: nothing was promised
		}
		if err := w.journal.write(w.thing, entry{version: a.Version, n: w.n}); err != nil {
			return err
		}
	}
}

// check demands that the stored shadow is at least what was acknowledged.
func (w *writer) check(ctx context.Context, want entry) error {
	if want.version == 0 {
		return nil
	}
	s, err := open(ctx, w.addr, w.thing)
	if err != nil {
		return err
	}
	defer s.Close()
	got, err := s.request(ctx, "get", "g", `{"clientToken":"g"}`)
	if err != nil {
		return err
	}
	if got.Code != 0 {
		return fmt.Errorf("%s: get rejected with code %d, version %d was acknowledged", w.thing, got.Code, want.version)
	}
	switch {
	case got.Version < want.version:
		return fmt.Errorf("%s: version %d is stored, %d was acknowledged", w.thing, got.Version, want.version)
	case got.Version == want.version && got.State.Reported.N != want.n:
		return fmt.Errorf("%s: version %d holds n=%d, acknowledged was n=%d", w.thing, got.Version, got.State.Reported.N, want.n)
	case got.State.Reported.N < want.n:
		return fmt.Errorf("%s: n=%d is stored, n=%d was acknowledged", w.thing, got.State.Reported.N, want.n)
	}
	return nil
}
