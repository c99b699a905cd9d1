//go:build bench

package bench_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSoak keeps up a rate of shadow updates for MUSTER_SOAK_MINUTES and
// checks at the end that every update is there and that doctor finds nothing.
// `make soak` runs it.
func TestSoak(t *testing.T) {
	if os.Getenv("MUSTER_SOAK_MINUTES") == "" {
		t.Skip("MUSTER_SOAK_MINUTES is not set")
	}
	minutes := environment(t, "MUSTER_SOAK_MINUTES", "")[0]
	rate := environment(t, "MUSTER_SOAK_RATE", "6000")[0]
	groups := environment(t, "MUSTER_SOAK_GROUPS", "100")[0]
	l := newLoad(t, groups)
	fmt.Printf("\nsoak: %d minutes, %d updates/s offered, %d dynamic groups, pebble\n", minutes, rate, groups)
	for minute := range minutes {
		f := l.run(58*time.Second, rate) // and two unmeasured seconds
		if minute%5 == 4 || minute == minutes-1 || minute == 0 {
			fmt.Printf("minute %3d  %v  %5.0f MB resident  %6.0f MB on disk\n",
				minute+1, f, residentKB(t, l.server.PID())/1024, diskMB(t, l.server.DataDir))
		}
		if t.Failed() {
			return
		}
	}
	l.close()
	api := newAPI(t, l.server)
	total := uint64(0)
	for i, w := range l.writers {
		document, err := api.GetShadow(t.Context(), loadThing(i), "")
		if err != nil {
			t.Fatal(err)
		}
		var shadow struct {
			Version uint64 `json:"version"`
		}
		if err := json.Unmarshal(document, &shadow); err != nil {
			t.Fatal(err)
		}
		if shadow.Version != w.sequence {
			t.Errorf("%s is at version %d after %d accepted updates", loadThing(i), shadow.Version, w.sequence)
		}
		total += w.sequence
	}
	begun := time.Now()
	out, err := l.server.Muster(t.Context(), "doctor")
	if err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	fmt.Printf("%d updates, every version accounted for; doctor took %.1f s:\n%s", total, time.Since(begun).Seconds(), out)
	l.server.Stop()
	if code := l.server.ExitCode(); code != 0 {
		t.Errorf("the server ended with code %d", code)
	}
	begun = time.Now()
	l.server.Start()
	fmt.Printf("ready again after a restart: %.2f s\n", time.Since(begun).Seconds())
}

// diskMB is the size of a folder.
func diskMB(t *testing.T, root string) float64 {
	t.Helper()
	total := int64(0)
	err := filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // the store deletes files while we look
		}
		if info, err := entry.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return float64(total) / (1 << 20)
}
