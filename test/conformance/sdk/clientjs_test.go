package sdk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// jsLibrary is a library for JavaScript in a program of its own.
type jsLibrary struct {
	name    string
	version int
	stdin   io.Writer
	answers chan jsAnswer

	mu          sync.Mutex
	connections map[string]*jsConnection
}

// jsAnswer is a line of the program: the outcome of the last call, or a message
// on a connection.
type jsAnswer struct {
	Done    bool   `json:"done"`
	Error   string `json:"error"`
	Resumed bool   `json:"resumed"`
	On      string `json:"on"`
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	// Properties are the user properties of MQTT 5.
	Properties string `json:"properties"`
}

// javascript starts the program when the library is made for a test.
func javascript(name string, version int) func(t *testing.T) library {
	return func(t *testing.T) library {
		t.Helper()
		needJavaScript(t)
		l := &jsLibrary{name: name, version: version, answers: make(chan jsAnswer, 1), connections: map[string]*jsConnection{}}
		l.start(t)
		return l
	}
}

// start runs the program until the test ends.
func (l *jsLibrary) start(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", "client.mjs")
	cmd.Dir = javascriptDir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.stdin = stdin
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(l.answers)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var a jsAnswer
			if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
				a = jsAnswer{Done: true, Error: "not JSON: " + lines.Text()}
			}
			if a.Done {
				l.answers <- a
				continue
			}
			l.mu.Lock()
			on := l.connections[a.On]
			l.mu.Unlock()
			on.deliveries <- delivery{a.Topic, a.Payload, a.Properties}
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close() // the program ends with it
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait() // killed, maybe
		if t.Failed() {
			t.Logf("the program's standard error:\n%s", stderr.Bytes())
		}
	})
}

// call has the program do something.
func (l *jsLibrary) call(what, on string, members any) (jsAnswer, error) {
	line, err := json.Marshal(members)
	if err != nil {
		return jsAnswer{}, err
	}
	all := map[string]any{}
	if err := json.Unmarshal(line, &all); err != nil {
		return jsAnswer{}, err
	}
	all["do"], all["on"] = what, on
	if err := json.NewEncoder(l.stdin).Encode(all); err != nil {
		return jsAnswer{}, err
	}
	select {
	case a, ok := <-l.answers:
		switch {
		case !ok:
			return a, errors.New("the program has ended")
		case a.Error != "":
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-time.After(30 * time.Second):
		return jsAnswer{}, fmt.Errorf("no answer to %s", what)
	}
}

func (l *jsLibrary) connect(t *testing.T, o *opening) (connection, error) {
	t.Helper()
	c := &jsConnection{library: l, deliveries: make(chan delivery, 64)}
	l.mu.Lock()
	c.on = fmt.Sprint(o.ClientID, "#", len(l.connections))
	l.connections[c.on] = c
	l.mu.Unlock()
	o.Library, o.Version = l.name, l.version
	a, err := l.call("connect", c.on, o)
	c.wasResumed = a.Resumed
	return c, err
}

// jsConnection is one connection of the program.
type jsConnection struct {
	library    *jsLibrary
	on         string
	wasResumed bool
	deliveries chan delivery
}

func (c *jsConnection) resumed() bool { return c.wasResumed }

func (c *jsConnection) subscribe(filter string) error {
	_, err := c.library.call("subscribe", c.on, map[string]string{"topic": filter})
	return err
}

func (c *jsConnection) publish(topic, payload string, retain bool) error {
	_, err := c.library.call("publish", c.on, map[string]any{"topic": topic, "payload": payload, "retain": retain})
	return err
}

func (c *jsConnection) received() <-chan delivery { return c.deliveries }

func (c *jsConnection) leave() error {
	_, err := c.library.call("leave", c.on, struct{}{})
	return err
}

func (c *jsConnection) lives() int { return 1 }
