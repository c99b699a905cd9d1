package e2e_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// TestFileDescriptorsUsedUp takes all the file descriptors that the server may
// have. Devices that are connected are served meanwhile, and as soon as some
// are free again everybody gets in: the listeners live.
func TestFileDescriptorsUsedUp(t *testing.T) {
	t.Parallel()
	const spare, flood = 24, 200
	r := newHostileRig(t)
	var before unix.Rlimit
	must(t, unix.Prlimit(r.server.PID(), unix.RLIMIT_NOFILE, nil, &before))
	limit := before
	limit.Cur = uint64(descriptors(t, r.server.PID()) + spare)
	must(t, unix.Prlimit(r.server.PID(), unix.RLIMIT_NOFILE, &limit, nil))
	var held []net.Conn
	for i := range flood {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.targets[i%len(r.targets)].addr)
		must(t, err) // the kernel takes them whether they are accepted or not
		t.Cleanup(func() { _ = conn.Close() })
		held = append(held, conn)
	}
	testkit.Poll(t, patience, "all descriptors are taken", func() error {
		if got := descriptors(t, r.server.PID()); got < int(limit.Cur)-2 {
			return fmt.Errorf("%d of %d are", got, limit.Cur)
		}
		return nil
	})
	for range 5 {
		r.reports++
		if a, err := r.good.report(t.Context(), r.reports); err != nil || a.Version != r.reports {
			t.Fatalf("the connected device, meanwhile: version %d, %v", a.Version, err)
		}
	}
	for _, conn := range held {
		_ = conn.Close()
	}
	must(t, unix.Prlimit(r.server.PID(), unix.RLIMIT_NOFILE, &before, nil))
	testkit.Poll(t, 2*patience, "a new device gets in on every port", func() error {
		for _, g := range r.targets {
			conn, err := g.dial(t.Context())
			if err != nil {
				return fmt.Errorf("%s: %w", g.name, err)
			}
			c, err := client.Connect(t.Context(), conn, client.Options{ClientID: g.thing})
			if err != nil {
				return fmt.Errorf("%s: %w", g.name, err)
			}
			if err := c.Disconnect(); err != nil {
				return err
			}
		}
		return nil
	})
	r.healthy()
	if !strings.Contains(r.server.Log(), "too many open files") {
		t.Error("the log does not say what was lacking")
	}
}

// descriptors counts the open files of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	open, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	must(t, err)
	return len(open)
}
