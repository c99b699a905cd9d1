package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestDaily runs testdata/daily.sh, the commands of an operator's day, on an
// empty server.
func TestDaily(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws", "openssl")
	script, err := filepath.Abs("testdata/daily.sh")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	const promised = 40
	commands := map[string]bool{}
	for _, m := range regexp.MustCompile(`aws ((?:iot|iot-data|sts) [a-z0-9-]+)`).FindAllStringSubmatch(string(text), -1) {
		commands[m[1]] = true
	}
	if len(commands) < promised {
		t.Errorf("the script has %d different commands, want %d", len(commands), promised)
	}
	server := testkit.StartServer(t)
	cmd := exec.CommandContext(t.Context(), "sh", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(newOperator(t, server).env, "AWS_ENDPOINT=http://"+server.HTTPAddr)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}
