package testkit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// firstPort and lastPort lie below the ports that systems give to outgoing
// connections, which could take a port between a look and its use.
const firstPort, lastPort = 15_000, 32_000

// given are the ports that this process has handed out.
var given sync.Map

// FreePort returns a loopback host:port that was free a moment ago. It never
// returns the same one twice.
func FreePort(tb testing.TB) string {
	tb.Helper()
	port, err := freePort()
	if err != nil {
		tb.Fatal(err)
	}
	return loopback(port)
}

func freePort() (int, error) {
	const tries = 1000
	var err error
	for range tries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", loopback(port)); err == nil {
			_ = l.Close()
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port in %d tries: %w", tries, err)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
