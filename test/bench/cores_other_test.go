//go:build bench && !linux

package bench_test

import "testing"

// cores is of use on Linux only.
type cores struct{}

func apart(t *testing.T) *cores {
	t.Helper()
	t.Fatal("reads /proc and pins processes to cores: runs on Linux only")
	return nil
}

func (c *cores) start(_ *testing.T, begin func()) { begin() }

func openFiles(*testing.T, uint64) {}
