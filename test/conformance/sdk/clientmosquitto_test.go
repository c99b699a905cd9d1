package sdk

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// pool reads certificates from a file.
func pool(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(text) {
		t.Fatalf("%s holds no certificate", path)
	}
	return p
}

// mosquittoClients are mosquitto_pub and mosquitto_sub. They know no WebSocket.
type mosquittoClients struct{ version int }

func mosquitto(version int) func(t *testing.T) library {
	return func(t *testing.T) library {
		t.Helper()
		testkit.Need(t, "mosquitto_pub", "mosquitto_sub", "stdbuf")
		return mosquittoClients{version}
	}
}

// connect only prepares: a program connects for each publish and subscription.
func (l mosquittoClients) connect(t *testing.T, o *opening) (connection, error) {
	t.Helper()
	host, port, _ := strings.Cut(o.Addr, ":")
	args := []string{"-h", host, "-p", port, "-i", o.ClientID, "-q", "1", "-V", map[int]string{4: "mqttv311", 5: "mqttv5"}[l.version]}
	if o.Scheme == "mqtts" {
		args = append(args, "--cafile", o.CA)
	}
	if o.Cert != "" {
		args = append(args, "--cert", o.Cert, "--key", o.Key)
	}
	if o.ALPN != "" {
		args = append(args, "--tls-alpn", o.ALPN)
	}
	if o.Username != "" {
		args = append(args, "-u", o.Username, "-P", o.Password)
	}
	c := &mosquittoConnection{t: t, args: args, deliveries: make(chan delivery, 64)}
	if o.Persistent {
		if c.stay = []string{"-c"}; l.version == 5 {
			c.stay = append(c.stay, "-x", "3600")
		}
	}
	return c, nil
}

// mosquittoConnection is a subscribed mosquitto_sub and what publishes beside it.
type mosquittoConnection struct {
	t *testing.T
	// args are for both programs, stay asks for a persistent session.
	args, stay []string
	sub        *exec.Cmd
	read       chan struct{}
	deliveries chan delivery
}

func (c *mosquittoConnection) resumed() bool { return false }

func (c *mosquittoConnection) publish(topic, payload string, retain bool) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), 15*time.Second)
	defer cancel()
	args := slices.Concat(c.args, []string{"-t", topic, "-m", payload})
	if retain {
		args = append(args, "-r")
	}
	cmd := exec.CommandContext(ctx, "mosquitto_pub", args...)
	cmd.Env = append(os.Environ(), "LANG=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mosquitto_pub: %w: %s", err, out)
	}
	return nil
}

func (c *mosquittoConnection) subscribe(filter string) error {
	// Lines begin with a mark, so that the debug lines are told from messages.
	args := append([]string{"-oL", "mosquitto_sub", "-d", "-F", "message %t %p", "-t", filter}, c.args...)
	c.sub = exec.CommandContext(c.t.Context(), "stdbuf", append(args, c.stay...)...)
	out, err := c.sub.StdoutPipe()
	if err != nil {
		return err
	}
	c.sub.Stderr = c.sub.Stdout
	if err := c.sub.Start(); err != nil {
		return err
	}
	subscribed := make(chan error, 1)
	c.read = make(chan struct{})
	go func() {
		defer close(c.read)
		said := ""
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said += lines.Text() + "\n"
			if codes, ok := strings.CutPrefix(lines.Text(), "Subscribed (mid: 1): "); ok {
				if subscribed <- nil; codes != "1" {
					c.t.Errorf("subscribed with %s", codes)
				}
			}
			if m, ok := strings.CutPrefix(lines.Text(), "message "); ok {
				topic, payload, _ := strings.Cut(m, " ")
				c.deliveries <- delivery{topic: topic, payload: payload}
			}
		}
		select {
		case subscribed <- errors.New("mosquitto_sub: " + said):
		default: // subscribed, or the first one counts
		}
	}()
	c.t.Cleanup(func() {
		_ = c.sub.Process.Kill() // it has left, or the test failed
		<-c.read
	})
	select {
	case err := <-subscribed:
		return err
	case <-time.After(15 * time.Second):
		return errors.New("mosquitto_sub: not subscribed")
	}
}

func (c *mosquittoConnection) received() <-chan delivery { return c.deliveries }

// leave has mosquitto_sub send DISCONNECT.
func (c *mosquittoConnection) leave() error {
	if err := c.sub.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-c.read
	if err := c.sub.Wait(); err != nil {
		return fmt.Errorf("mosquitto_sub: %w", err)
	}
	return nil
}

// lives are those of mosquitto_pub and mosquitto_sub.
func (c *mosquittoConnection) lives() int { return 2 }

// TestMosquittoWill kills a subscriber that has left a will, by both versions.
func TestMosquittoWill(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, version := range []int{4, 5} {
		id := fmt.Sprintf("mortal%d", version)
		made, err := mosquitto(version)(t).connect(t, p.opening(t, overMQTT, id, nothingWrong))
		if err != nil {
			t.Fatal(err)
		}
		c, ok := made.(*mosquittoConnection)
		if !ok {
			t.Fatalf("%T", made)
		}
		topic := "devices/" + id + "/will"
		c.stay = []string{"--will-topic", topic, "--will-payload", "gone", "--will-qos", "1"}
		if err := c.subscribe("commands/" + id); err != nil {
			t.Fatal(err)
		}
		if err := c.sub.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		p.waitFor(t, id, "the will", func(s sighting) bool { return s.Topic == topic && s.Payload == "gone" })
	}
}
