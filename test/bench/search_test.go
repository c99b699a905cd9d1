//go:build bench

package bench_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

// searchCases are fleet queries from the narrowest to the widest.
func searchCases() []string {
	return []string{
		"thingName:device-0012345",
		"attributes.serial:SN0012*",
		"shadow.reported.battery<3",
		"attributes.site:site-17 AND shadow.reported.battery<20 AND NOT shadow.reported.firmware:1.2.0",
		"shadow.reported.temperature>20 AND shadow.reported.temperature<20.5",
		"shadow.hasDelta:true OR shadow.reported.firmware:1.2.0",
		"thingName:device-*",
	}
}

// TestSearch reports what a search over the API costs beside a registered
// fleet: signature, query, and the first page of a hundred with its documents.
func TestSearch(t *testing.T) {
	n := environment(t, "MUSTER_BENCH_DEVICES", "100000")[0]
	const rounds = 100
	server := testkit.StartServer(t, "--log.level", "warn")
	api := newAPI(t, server)
	begun := time.Now()
	each(t, n, func(ctx context.Context, i int) error {
		_, err := api.CreateThing(ctx, searchThing(i), "", map[string]string{
			"site": fmt.Sprintf("site-%d", i%200), "serial": fmt.Sprintf("SN%07d", i),
		})
		return err
	})
	registered := time.Since(begun)
	begun = time.Now()
	reportAll(t, server, n)
	testkit.Poll(t, time.Minute, "everything is searchable", func() error {
		found, err := api.Search(t.Context(), "thingName:"+searchThing(n-1)+" AND shadow.reported.battery>=0", 1)
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("the last one is not")
		}
		return err
	})
	fmt.Printf("\nsearch over the API, %d devices with a shadow each; registered at %.0f/s, shadows at %.0f/s, server %.0f MB\n",
		n, float64(n)/registered.Seconds(), float64(n)/time.Since(begun).Seconds(), residentKB(t, server.PID())/1024)
	for _, query := range searchCases() {
		var times []time.Duration
		var found []apiclient.Found
		for range rounds {
			begun := time.Now()
			var err error
			if found, err = api.Search(t.Context(), query, 100); err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Since(begun))
		}
		slices.Sort(times)
		fmt.Printf("%6.2f ms  p99 %6.2f ms  %3d rows  %s\n", milliseconds(times[rounds/2]), milliseconds(times[rounds*99/100]), len(found), query)
	}
	server.Stop()
	begun = time.Now()
	server.Start()
	fmt.Printf("ready again after a restart with %d devices: %.2f s\n", n, time.Since(begun).Seconds())
}

func searchThing(i int) string { return fmt.Sprintf("device-%07d", i) }

// reportAll gives every device a shadow. The plain listener lets one
// connection speak for all; a window of answers keeps the server from being
// flooded.
func reportAll(t *testing.T, server *testkit.Server, n int) {
	t.Helper()
	const window = 512
	free := make(chan struct{}, window)
	refused := make(chan string, 1)
	for range window {
		free <- struct{}{}
	}
	c := dial(t, server.PlainMQTTAddr, "reporter", func(payload []byte) {
		if bytes.Contains(payload, []byte(`"code":`)) {
			select {
			case refused <- string(payload):
			default:
			}
		}
		free <- struct{}{}
	})
	c.subscribe(t, "$aws/things/+/shadow/update/accepted", 0)
	c.subscribe(t, "$aws/things/+/shadow/update/rejected", 0)
	ended := make(chan struct{})
	go func() { defer close(ended); c.read() }()
	wait := func() {
		select {
		case <-free:
		case text := <-refused:
			t.Fatalf("an update was refused: %s", text)
		case <-ended:
			t.Fatal("the connection ended")
		case <-time.After(30 * time.Second):
			t.Fatal("no answer for 30 s")
		}
	}
	for i := range n {
		wait()
		firmware := strings.Join([]string{"1", strconv.Itoa(2 + i%3), strconv.Itoa(i % 7)}, ".")
		desired := ""
		if i%50 == 0 {
			desired = `"desired":{"led":"on"},`
		}
		body := append(text(nil, "$aws/things/"+searchThing(i)+"/shadow/update"), 0, 0)
		binary.BigEndian.PutUint16(body[len(body)-2:], uint16(i%60000)+1)
		body = fmt.Appendf(body, `{"state":{%s"reported":{"battery":%d,"temperature":%d.%d,"firmware":%q,"led":"off","uptime":%d}}}`,
			desired, i*7919%101, i*31%40, i%10, firmware, i)
		c.write(t, frame(0x32, body))
	}
	for range window {
		wait()
	}
	_ = c.conn.Close() // the work is done
	<-ended
}
