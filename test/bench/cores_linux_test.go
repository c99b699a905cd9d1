//go:build bench

package bench_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// cores says where servers run while the load keeps off them.
type cores struct{ server, load, all unix.CPUSet }

// apart keeps this process, which is the load, off the first core until the
// test ends. Servers that start puts there have that core to themselves as far
// as this benchmark goes.
func apart(t *testing.T) *cores {
	t.Helper()
	c := &cores{}
	if err := unix.SchedGetaffinity(0, &c.all); err != nil {
		t.Fatal(err)
	}
	c.load = c.all
	for cpu := range len(c.all) * strconv.IntSize {
		if c.all.IsSet(cpu) {
			c.server.Set(cpu)
			c.load.Clear(cpu)
			break
		}
	}
	if c.load.Count() == 0 {
		fmt.Println("one core only: server and load share it, so that ratios count and rates do not")
		c.load = c.all
		return c
	}
	confine(t, &c.load)
	t.Cleanup(func() { confine(t, &c.all) })
	return c
}

// confine moves all threads of this process; new ones follow their makers.
func confine(t *testing.T, to *unix.CPUSet) {
	t.Helper()
	runtime.GOMAXPROCS(to.Count())
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedSetaffinity(id, to); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
}

// start calls begin on the servers' core: processes inherit it.
func (c *cores) start(t *testing.T, begin func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &c.server); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &c.load); err != nil {
			t.Error(err)
		}
	}()
	begin()
}

// openFiles makes room for n connections here and in the servers started from
// now on.
func openFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = limit.Max
	if limit.Max < n {
		t.Fatalf("%d files may be open, this part needs %d: raise ulimit -n", limit.Max, n)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}
