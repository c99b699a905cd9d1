package sdk

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

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
