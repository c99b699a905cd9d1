//go:build soak

package index_test

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// soakSetting is a number from the environment.
func soakSetting(t *testing.T, name string, unset int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return unset
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSoakStanding makes ten million updates against a thousand dynamic groups
// and compares with brute force on the way and at the end.
func TestSoakStanding(t *testing.T) {
	updates := soakSetting(t, "MUSTER_SOAK_UPDATES", 10_000_000)
	groups := soakSetting(t, "MUSTER_SOAK_GROUPS", 1000)
	b := newBrute(t, uint64(time.Now().UnixNano()), 20_000, groups, domain{500, 200, 200})
	begun := time.Now()
	const parts = 20
	for part := range parts {
		b.run(t, updates/parts)
		n := b.checkAll(t)
		t.Logf("%d updates in %v, %d memberships in %d groups, none wrong", (part+1)*updates/parts, time.Since(begun).Round(time.Second), n, groups)
	}
}
