package sdk

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestConnectingPage runs every command and program of docs/connecting.md.
func TestConnectingPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "connecting.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```(sh|js|go)\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 7 {
		t.Fatalf("the page has %d programs, want 7", len(blocks))
	}
	p := newPlace(t)
	filled := strings.NewReplacer(
		"iot.example.net", "localhost", "8883", portOf(t, p.server.MQTTAddr), "8443", portOf(t, p.server.TLSAddr),
		"/var/lib/muster/ca.pem", filepath.Join(p.server.DataDir, "ca.pem"), "pump7.pem", p.good.cert, "pump7.key", p.good.key,
	)
	for i, b := range blocks {
		// One after the other: they are one device.
		t.Run(fmt.Sprintf("%d %s", i, b[1]), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := runBlock(ctx, t, b[1], filled.Replace(b[2])).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			p.waitFor(t, "pump7", "what the program publishes", func(s sighting) bool { return s.Topic == "devices/pump7/temp" && s.Payload == "21" })
		})
	}
}

// runBlock prepares to run text in its language.
func runBlock(ctx context.Context, t *testing.T, language, text string) *exec.Cmd {
	t.Helper()
	switch language {
	case "sh":
		testkit.Need(t, "sh", "mosquitto_pub")
		return exec.CommandContext(ctx, "sh", "-ec", text)
	case "js":
		needJavaScript(t)
		cmd := exec.CommandContext(ctx, "node", "--input-type=module", "-e", text)
		cmd.Dir = javascriptDir
		return cmd
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(ctx, "go", "run", file)
}

// TestConnectingTable compares the table of docs/connecting.md with what
// TestClients does.
func TestConnectingTable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "connecting.md"))
	if err != nil {
		t.Fatal(err)
	}
	columns := []string{"mosquitto", "mqttjs", "paho.golang", "sdk-v2", "sdk-v1"}
	want := map[string][]string{}
	for _, w := range every() {
		cells := make([]string, len(columns))
		for i, column := range columns {
			var versions []string
			for _, m := range matrices() {
				if strings.HasPrefix(m.name, column) && slices.ContainsFunc(m.ways, func(x way) bool { return x.name == w.name }) {
					versions = append(versions, map[int]string{4: "3.1.1", 5: "5"}[m.version])
				}
			}
			if cells[i] = strings.Join(versions, ", "); cells[i] == "" {
				cells[i] = "–"
			}
		}
		if before, ok := want[w.row]; ok && !slices.Equal(before, cells) {
			t.Errorf("%s: ways of one row are tested with different clients: %q and %q", w.row, before, cells)
		}
		want[w.row] = cells
	}
	got := map[string][]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(strings.Trim(line, "| \n"), " | "); len(cells) == len(columns)+1 && cells[0] != "Way" {
			got[cells[0]] = cells[1:]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the table of the page (-tested +page):\n%s", diff)
	}
}
