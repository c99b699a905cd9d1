package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

const demoDevices = 40

// demo is a running `muster demo` and what it has printed.
type demo struct {
	t      *testing.T
	binary string
	cmd    *exec.Cmd
	read   chan struct{}

	mu   sync.Mutex
	text strings.Builder
}

// startDemo runs the demo under an almost empty environment, and returns when
// it has printed everything that it prints by itself.
func startDemo(t *testing.T, dataDir string) *demo {
	t.Helper()
	d := &demo{t: t, binary: testkit.Binary(t), read: make(chan struct{})}
	d.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), d.binary, "demo", "--data-dir", dataDir,
		"--http-addr", "127.0.0.1:0", "--mqtt-addr", "127.0.0.1:0", "--tls-addr", "127.0.0.1:0",
		"--devices", fmt.Sprint(demoDevices), "--sites", "4", "--interval", "1s", "--session", "20s")
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	d.cmd.Dir = t.TempDir()
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = d.cmd.Stdout
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.read)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			d.mu.Lock()
			d.text.WriteString(line)
			d.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it has ended by itself, or the test failed
		<-d.read
		_ = d.cmd.Wait() // the test has looked at it already
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dataDir, "demo", "server.log"))
			t.Logf("the demo printed:\n%s\nthe server's log:\n%s", d.printed(), log)
		}
	})
	testkit.Poll(t, 90*time.Second, "the demo prints what to try", func() error {
		select {
		case <-d.read:
			t.Fatal("the demo ended")
		default:
		}
		if !strings.Contains(d.printed(), "Press ctrl-C") {
			return io.ErrNoProgress
		}
		return nil
	})
	return d
}

func (d *demo) printed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}

// commands returns the printed lines to type, our own or the AWS CLI's.
func (d *demo) commands(pattern string) []string {
	var all []string
	for _, found := range regexp.MustCompile(`(?m)^  (`+pattern+` .*)$`).FindAllStringSubmatch(d.printed(), -1) {
		all = append(all, found[1])
	}
	return all
}

// shell types a command as it was printed.
func (d *demo) shell(command string) (string, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Env, cmd.Dir = []string{"PATH=" + os.Getenv("PATH")}, d.cmd.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", command, err, out)
	}
	return string(out), err
}

func (d *demo) enter(command string) string {
	d.t.Helper()
	out, err := d.shell(command)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// interrupt presses ctrl-C and waits for the end.
func (d *demo) interrupt() {
	d.t.Helper()
	must(d.t, d.cmd.Process.Signal(syscall.SIGINT))
	select {
	case <-d.read:
	case <-time.After(40 * time.Second):
		d.t.Fatal("the demo did not end")
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("ctrl-C: %v, want exit code 0", err)
	}
	if !strings.Contains(d.printed(), "fleet: ") {
		d.t.Error("the demo did not say what the fleet has done")
	}
}

// TestDemo goes through the demo twice on one folder and types what it prints.
func TestDemo(t *testing.T) {
	t.Parallel()
	dataDir := filepath.Join(t.TempDir(), "data")
	d := startDemo(t, dataDir)
	commands := d.commands(regexp.QuoteMeta(d.binary))
	if len(commands) != 5 {
		t.Fatalf("the demo prints %d commands of ours, want 5: %q", len(commands), commands)
	}
	for _, command := range commands {
		switch {
		case strings.Contains(command, " search "):
			if out := d.enter(command); !strings.HasPrefix(out, "THING ") {
				t.Errorf("%s: printed %q", command, out)
			}
			// The same question without the battery finds everybody online.
			online := strings.Replace(command, "shadow.reported.battery<30 AND ", "", 1)
			testkit.Poll(t, 30*time.Second, "most devices are online", func() error {
				if n := strings.Count(d.enter(online), " yes "); n < demoDevices/2 {
					return fmt.Errorf("%d of %d", n, demoDevices)
				}
				return nil
			})
		case strings.Contains(command, " groups members "):
			d.enter(command)
		case strings.Contains(command, " shadow get "):
			d.checkShadow(command, "")
		case strings.Contains(command, " shadow update "):
			if out := d.enter(command); !strings.Contains(out, `"led"`) {
				t.Errorf("%s: printed %q", command, out)
			}
		case strings.Contains(command, " sub "):
			// As printed it would go on for ever.
			if out := d.enter(command + " --count 3"); strings.Count(out, "/shadow/update/accepted") != 3 {
				t.Errorf("%s: printed %q", command, out)
			}
		default:
			t.Errorf("the demo prints the unknown command %s", command)
		}
	}
	get := strings.Replace(commands[3], "shadow update", "shadow get", 1)
	get, _, _ = strings.Cut(get, " --desired")
	testkit.Poll(t, 60*time.Second, "the device obeys", func() error { return d.obeyed(get) })

	aws := d.commands(`AWS_SHARED_CREDENTIALS_FILE=\S+ aws`)
	if _, err := exec.LookPath("aws"); err == nil && len(aws) == 0 {
		t.Error("the demo prints no commands for the AWS CLI, which is installed")
	}
	for _, command := range aws {
		if out := d.enter(command); !json.Valid([]byte(firstJSON(out))) {
			t.Errorf("%s: printed %q", command, out)
		}
	}

	before := d.fleet(commands[0])
	if len(before) != demoDevices {
		t.Errorf("%d devices, want %d", len(before), demoDevices)
	}
	d.interrupt()

	again := startDemo(t, dataDir)
	commands = again.commands(regexp.QuoteMeta(again.binary))
	after := again.fleet(commands[0])
	for name, id := range before {
		if after[name] != id {
			t.Errorf("%s has id %q in the second run, had %q", name, after[name], id)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d devices in the second run, had %d", len(after), len(before))
	}
	get, _, _ = strings.Cut(commands[2], "\n")
	again.checkShadow(get, "on")
	again.interrupt()
}

// shadow types a command that prints a shadow.
func (d *demo) shadow(command string) (reported map[string]any, err error) {
	out, err := d.shell(command)
	if err != nil {
		return nil, err
	}
	var document struct {
		State struct {
			Reported map[string]any `json:"reported"`
		} `json:"state"`
	}
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		return nil, fmt.Errorf("%s: printed %q: %w", command, out, err)
	}
	return document.State.Reported, nil
}

// checkShadow demands a battery, and the led as given unless that is "".
func (d *demo) checkShadow(command, led string) {
	d.t.Helper()
	reported, err := d.shadow(command)
	if _, ok := reported["battery"].(float64); err != nil || !ok || led != "" && reported["led"] != led {
		d.t.Errorf("%s: reported %v, want a battery and the led %q (%v)", command, reported, led, err)
	}
}

// obeyed reports whether the device has switched its led on.
func (d *demo) obeyed(command string) error {
	reported, err := d.shadow(command)
	if err == nil && reported["led"] != "on" {
		err = fmt.Errorf("the led is %v", reported["led"])
	}
	return err
}

// fleet returns the ids of all devices, asked with the flags of a printed
// search command.
func (d *demo) fleet(search string) map[string]string {
	d.t.Helper()
	flags, _, _ := strings.Cut(search, " '")
	var found []struct {
		ThingName string `json:"thingName"`
		ThingID   string `json:"thingId"`
	}
	if err := json.Unmarshal([]byte(d.enter(flags+" 'thingName:*' --limit 0 -o json")), &found); err != nil {
		d.t.Fatal(err)
	}
	ids := map[string]string{}
	for _, f := range found {
		ids[f.ThingName] = f.ThingID
	}
	return ids
}

// firstJSON cuts the first JSON value from what a command printed; one of the
// AWS commands prints the shadow and then its answer's other members.
func firstJSON(out string) string {
	var value json.RawMessage
	_ = json.NewDecoder(strings.NewReader(out)).Decode(&value) // an empty value is not valid
	return string(value)
}
