package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestFactory: the simulated factory through the built binary, scaled down. Every device
// goes the whole way from a signed list to active service, every rogue is refused and
// raised, every ledger is complete and verified, and nothing of the list is in the
// server's log. A server that has no identity for lists says so.
func TestFactory(t *testing.T) {
	t.Parallel()
	key, err := age.GenerateX25519Identity()
	must(t, err)
	identity := filepath.Join(t.TempDir(), "identity")
	must(t, os.WriteFile(identity, []byte(key.String()+"\n"), 0o600))
	server := testkit.NewServer(t, t.TempDir(), "--allow-list.identity-file", identity, "--provisioning.require-binding")
	server.Start()
	out := t.TempDir()
	const devices, rogues = 240, 16
	printed, err := server.Muster(t.Context(), "sim", "--factory", "--devices", "240", "--rogues", "16", "--run", "works", "--json", "--out", out,
		"--mqtt-endpoint", strings.Replace(server.MQTTAddr, "127.0.0.1", "localhost", 1))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Joined      int      `json:"joined"`
		Approved    int      `json:"approved"`
		Active      int      `json:"active"`
		Refused     int      `json:"refused"`
		Raised      int      `json:"raised"`
		Quarantined int      `json:"quarantined"`
		Complete    int      `json:"completeLedgers"`
		Verified    bool     `json:"verified"`
		Problems    []string `json:"problems"`
	}
	must(t, json.Unmarshal([]byte(printed), &report))
	if report.Joined != devices || report.Active != devices || report.Complete != devices || report.Approved != devices/100 ||
		report.Refused != rogues || report.Raised != rogues || report.Quarantined != rogues/4 || !report.Verified || len(report.Problems) > 0 {
		t.Errorf("%s", printed)
	}
	for name, says := range map[string]string{
		"plan.md": "Provisioning plan", "device.md": "held, seen on", "ledger.md": "revision 1 of allow list works-shift",
	} {
		text, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || !bytes.Contains(text, []byte(says)) {
			t.Errorf("%s does not say %q: %v", name, says, err)
		}
	}
	if strings.Contains(server.Log(), "qa/works-") {
		t.Error("the log has what only the list says")
	}
	if doctor, err := server.Muster(t.Context(), "doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, doctor)
	}

	bare := testkit.NewServer(t, t.TempDir())
	bare.Start()
	if _, err := bare.Muster(t.Context(), "sim", "--factory", "--devices", "4", "--rogues", "0",
		"--mqtt-endpoint", strings.Replace(bare.MQTTAddr, "127.0.0.1", "localhost", 1)); err == nil || !strings.Contains(err.Error(), "allow-list.identity-file") {
		t.Errorf("without an identity: %v", err)
	}
}
