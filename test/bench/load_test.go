//go:build bench

package bench_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// client is the cheapest MQTT 3.1.1 client that can load a broker: packets are
// built by hand once and written as bytes, and deliveries are only counted.
type client struct {
	conn net.Conn
	// delivered is called with the payload's first eight bytes, valid during
	// the call.
	delivered func(payload []byte)
}

func text(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func frame(first byte, body []byte) []byte {
	out := []byte{first}
	for n := len(body); ; {
		c := byte(n & 127)
		if n >>= 7; n > 0 {
			out = append(out, c|128)
			continue
		}
		return append(append(out, c), body...)
	}
}

// dial connects with a clean session and keep-alive off.
func dial(tb testing.TB, addr, id string, delivered func([]byte)) *client {
	tb.Helper()
	conn, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	c := &client{conn: conn, delivered: delivered}
	if err := c.hello(id, false); err != nil {
		tb.Fatal(err)
	}
	return c
}

// hello sends CONNECT, with keep-alive off, and awaits the answer.
func (c *client) hello(id string, persistent bool) error {
	flags := byte(0)
	if !persistent {
		flags = 2
	}
	body := append(text(nil, "MQTT"), 4, flags, 0, 0)
	if _, err := c.conn.Write(frame(0x10, text(body, id))); err != nil {
		return fmt.Errorf("connect %s: %w", id, err)
	}
	var ack [4]byte
	if _, err := io.ReadFull(c.conn, ack[:]); err != nil {
		return fmt.Errorf("connect %s: %w", id, err)
	}
	if ack[3] != 0 {
		return fmt.Errorf("connect %s: CONNACK %x", id, ack)
	}
	return nil
}

func (c *client) write(tb testing.TB, b []byte) {
	tb.Helper()
	if _, err := c.conn.Write(b); err != nil {
		tb.Fatal(err)
	}
}

// subscribe awaits the SUBACK; the reader is to be started after it.
func (c *client) subscribe(tb testing.TB, filter string, qos byte) {
	tb.Helper()
	if err := c.ask(filter, qos); err != nil {
		tb.Fatal(err)
	}
}

// ask is subscribe for any goroutine.
func (c *client) ask(filter string, qos byte) error {
	if _, err := c.conn.Write(frame(0x82, append(text([]byte{0, 1}, filter), qos))); err != nil {
		return fmt.Errorf("subscribe %s: %w", filter, err)
	}
	var ack [5]byte
	if _, err := io.ReadFull(c.conn, ack[:]); err != nil {
		return fmt.Errorf("subscribe %s: %w", filter, err)
	}
	if ack[4] > 1 {
		return fmt.Errorf("subscribe %s: SUBACK %x", filter, ack)
	}
	return nil
}

// read counts deliveries and answers QoS 1 ones until the connection ends;
// acknowledgements of one input batch leave in one write.
func (c *client) read() {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	var acks, body []byte
	for {
		first, err := r.ReadByte()
		if err != nil {
			return
		}
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return
		}
		if uint64(cap(body)) < n {
			body = make([]byte, n)
		}
		body = body[:n]
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		if first>>4 == 3 {
			at := 2 + int(binary.BigEndian.Uint16(body))
			if first&0x06 != 0 {
				acks = append(acks, 0x40, 2, body[at], body[at+1])
				at += 2
			}
			if c.delivered != nil {
				c.delivered(body[at:])
			}
		}
		if len(acks) > 0 && r.Buffered() == 0 {
			if _, err := c.conn.Write(acks); err != nil {
				return
			}
			acks = acks[:0]
		}
	}
}

// publication returns a PUBLISH with a 100-byte payload.
func publication(topic string, qos byte) []byte {
	body := text(nil, topic)
	if qos > 0 {
		body = append(body, 0, 1)
	}
	return frame(0x30|qos<<1, append(body, make([]byte, 100)...))
}

// cpuSeconds returns the user and system time of a process so far.
func cpuSeconds(tb testing.TB, pid int) float64 {
	tb.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		tb.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err := errors.Join(err1, err2); err != nil {
		tb.Fatal(err)
	}
	return (user + system) / 100
}

// residentKB returns the resident set of a process.
func residentKB(tb testing.TB, pid int) float64 {
	tb.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				tb.Fatal(err)
			}
			return kb
		}
	}
	tb.Fatal("no VmRSS")
	return 0
}

// shape is one load: who publishes to whom, with how much outstanding.
type shape struct {
	name                    string
	publishers, subscribers int
	qos                     byte
	// messages is the number of publications in all.
	messages int
	// window is the number of publications that may be outstanding at each
	// publisher; batch is how many go into one write.
	window, batch int
}

// run plays the load and returns the server's CPU-seconds per million
// deliveries. Every delivery is awaited, so nothing may be lost.
func (s shape) run(tb testing.TB, addr string, pid int, tag string) float64 {
	tb.Helper()
	perMessage := 1
	topicOf := func(publisher int) string { return fmt.Sprintf("bench/%s/%d", tag, publisher) }
	paired := s.publishers == s.subscribers
	if !paired && s.publishers == 1 {
		perMessage = s.subscribers
	}
	tokens := make([]chan struct{}, s.publishers)
	for i := range tokens {
		tokens[i] = make(chan struct{}, s.window*perMessage)
	}
	var deliveries atomic.Int64
	total := int64(s.messages) * int64(perMessage)
	done := make(chan struct{})
	var clients []*client
	var readers sync.WaitGroup
	start := func(c *client) {
		clients = append(clients, c)
		readers.Go(c.read)
	}
	for i := range s.subscribers {
		deliver := func(payload []byte) {
			tokens[binary.BigEndian.Uint32(payload)] <- struct{}{}
			if deliveries.Add(1) == total {
				close(done)
			}
		}
		c := dial(tb, addr, fmt.Sprintf("%s-s%d", tag, i), deliver)
		filter := topicOf(i)
		if !paired {
			filter = fmt.Sprintf("bench/%s/+", tag)
		}
		c.subscribe(tb, filter, s.qos)
		start(c)
	}
	before := cpuSeconds(tb, pid)
	var senders sync.WaitGroup
	for i := range s.publishers {
		c := dial(tb, addr, fmt.Sprintf("%s-p%d", tag, i), nil)
		start(c)
		packet := publication(topicOf(i), s.qos)
		binary.BigEndian.PutUint32(packet[len(packet)-100:], uint32(i))
		var write []byte
		for range s.batch {
			write = append(write, packet...)
		}
		senders.Go(func() {
			outstanding := 0
			for range s.messages / s.publishers / s.batch {
				for outstanding+s.batch*perMessage > s.window*perMessage {
					<-tokens[i]
					outstanding--
				}
				if _, err := c.conn.Write(write); err != nil {
					tb.Errorf("publisher %d: %v", i, err)
					return
				}
				outstanding += s.batch * perMessage
			}
			for ; outstanding > 0; outstanding-- {
				<-tokens[i]
			}
		})
	}
	select {
	case <-done:
	case <-time.After(3 * time.Minute):
		tb.Fatalf("%s: %d of %d deliveries after three minutes", s.name, deliveries.Load(), total)
	}
	senders.Wait()
	used := cpuSeconds(tb, pid) - before
	for _, c := range clients {
		_ = c.conn.Close() // the measurement is over
	}
	readers.Wait()
	return used / float64(total) * 1e6
}
