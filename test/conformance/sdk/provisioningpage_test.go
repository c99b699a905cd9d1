package sdk

import (
	"bytes"
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

// TestProvisioningPage runs every command of docs/provisioning.md as one session
// of an operator's shell, with other ports and files.
func TestProvisioningPage(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "bash", "aws", "openssl", "node", "curl", "mosquitto_pub")
	needJavaScript(t)
	page, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "provisioning.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 12 {
		t.Fatalf("the page has %d blocks of commands, want 12", len(blocks))
	}
	dir := t.TempDir()
	gate, sign := filepath.Join(dir, "gate"), filepath.Join(dir, "sign")
	for _, function := range []string{gate, sign} {
		// The server wants its functions to be there when it starts.
		if err := os.WriteFile(function, []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	modules, err := filepath.Abs(filepath.Join(javascriptDir, "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	server := startServerWith(t, "--function.target", "gate=exec:"+gate, "--function.target", "sign=exec:"+sign)
	if err := os.Symlink(testkit.Binary(t), filepath.Join(dir, "muster")); err != nil {
		t.Fatal(err)
	}
	id, secret := server.Credentials()
	filled := strings.NewReplacer(
		"iot.example.net", "localhost", "8883", portOf(t, server.MQTTAddr), "8443", portOf(t, server.TLSAddr),
		"/var/lib/muster", server.DataDir, "/usr/local/bin", dir,
	)
	for i, b := range blocks {
		// Each goes on with the variables of those before.
		script := "set -euo pipefail\n[ ! -f .variables ] || . ./.variables\nset -x\n" + filled.Replace(b[1]) + "\nset +x\ndeclare -p MUSTER_ENDPOINT_URL AWS_ENDPOINT_URL AWS_CA_BUNDLE AWS_DEFAULT_REGION >.variables\n"
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "bash", "-c", script)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "AWS_ACCESS_KEY_ID="+id, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_PAGER=", "AWS_CONFIG_FILE=/dev/null")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v:\n%s", err, out.String())
			}
		})
	}
}
