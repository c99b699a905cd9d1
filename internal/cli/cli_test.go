package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// buffer is written by several goroutines and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// result is what a command left behind.
type result struct {
	code     int
	out, err string
}

// runner runs commands with an environment.
type runner struct {
	env   map[string]string
	serve ServeFunc
}

// options are those of a process whose output goes into buffers.
func (r runner) options(out, errs *buffer) Options {
	return Options{
		Out: out, Err: errs, Now: time.Now, Serve: r.serve,
		LookupEnv: func(name string) (string, bool) { v, ok := r.env[name]; return v, ok },
	}
}

// run runs one command to its end.
func (r runner) run(ctx context.Context, args ...string) result {
	var out, errs buffer
	code := Execute(ctx, r.options(&out, &errs), args)
	return result{code, out.String(), errs.String()}
}

// rest starts a server with fixed answers by method and path.
func rest(t *testing.T, answers map[string]string) runner {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.Method+" "+r.URL.EscapedPath()]
		if !ok {
			w.Header().Set("x-amzn-ErrorType", "ResourceNotFoundException")
			w.Header().Set("x-amzn-RequestId", "req-7")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"nothing at `+r.URL.Path+`"}`)
			return
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	return runner{env: map[string]string{"MUSTER_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "s"}}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	r := rest(t, map[string]string{
		"GET /things":        `{"things":[{"thingName":"a","thingTypeName":"Pump","version":2,"attributes":{"site":"leeds","hw":"r1"}},{"thingName":"b:1"}]}`,
		"GET /things/b:1":    `{"thingName":"b:1","thingId":"i","version":1}`,
		"POST /things/b:1":   `{}`,
		"DELETE /things/b:1": `{}`,
		"GET /thing-groups":  `{"thingGroups":[{"groupName":"g","groupArn":"arn:g"}]}`,
		"GET /thing-groups/low": `{"thingGroupName":"low","thingGroupArn":"arn:low","queryString":"shadow.reported.battery<20","status":"ACTIVE",
			"thingGroupProperties":{"thingGroupDescription":"d"},"thingGroupMetadata":{}}`,
		"GET /thing-groups/north":      `{"thingGroupName":"north","thingGroupMetadata":{"parentGroupName":"uk","rootToParentThingGroups":[{"groupName":"sites"},{"groupName":"uk"}]}}`,
		"GET /thing-groups/low/things": `{"things":["a","b:1"]}`,
		"GET /billing-groups":          `{"billingGroups":[{"groupName":"plant-4","groupArn":"arn:p"}]}`,
		"GET /billing-groups/plant-4": `{"billingGroupName":"plant-4","billingGroupArn":"arn:p","version":3,
			"billingGroupProperties":{"billingGroupDescription":"d"}}`,
		"GET /billing-groups/plant-4/things": `{"things":["a","b:1"]}`,
		"POST /indices/search": `{"things":[{"thingName":"a","shadow":"{\"reported\":{\"battery\":7,\"led\":\"\\u001b[31mred\",\"gps\":{\"x\":1}}}",
			"connectivity":{"connected":true,"timestamp":1700000000000}},{"thingName":"b"}]}`,
		"GET /things/a/shadow":  `{"state":{"reported":{"battery":7}},"version":3}`,
		"POST /things/a/shadow": `{"state":{"desired":{"led":"on"}},"version":4}`,
	})
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"things": {[]string{"things", "list"}, "THING  TYPE  VERSION  ATTRIBUTES\na      Pump  2        hw=r1 site=leeds\nb:1          0\n"},
		"csv":    {[]string{"things", "list", "-o", "csv"}, "thing,type,version,attributes\na,Pump,2,hw=r1 site=leeds\nb:1,,0,\n"},
		"json": {
			[]string{"things", "describe", "b:1", "--output", "json"},
			"{\n  \"thingName\": \"b:1\",\n  \"thingId\": \"i\",\n  \"version\": 1\n}\n",
		},
		"create":                {[]string{"things", "create", "b:1", "site=leeds"}, "THING  TYPE  VERSION  ATTRIBUTES\nb:1          1\n"},
		"delete":                {[]string{"things", "delete", "b:1"}, "deleted b:1\n"},
		"groups":                {[]string{"groups", "list"}, "GROUP  ARN\ng      arn:g\n"},
		"members":               {[]string{"groups", "members", "low"}, "THING\na\nb:1\n"},
		"billing groups":        {[]string{"billing-groups", "list"}, "BILLING GROUP  ARN\nplant-4        arn:p\n"},
		"billing group":         {[]string{"billing-groups", "describe", "plant-4"}, "BILLING GROUP  VERSION  DESCRIPTION  ARN\nplant-4        3        d            arn:p\n"},
		"billing group members": {[]string{"billing-groups", "members", "plant-4"}, "THING\na\nb:1\n"},
		"describe":              {[]string{"groups", "describe", "low"}, "PROPERTY     VALUE\nname         low\ndescription  d\nquery        shadow.reported.battery<20\nstatus       ACTIVE\narn          arn:low\n"},
		"below":                 {[]string{"groups", "describe", "north"}, "PROPERTY  VALUE\nname      north\nbelow     sites/uk\n"},
		"search, hostile text made harmless": {
			[]string{"search", "a:b"},
			"THING  TYPE  CONNECTED  SINCE                 REPORTED                     ATTRIBUTES\n" +
				"a            yes        2023-11-14T22:13:20Z  battery=7 led=\\u001b[31mred\n" +
				"b\n",
		},
		"shadow": {[]string{"shadow", "get", "a"}, "{\n  \"state\": {\n    \"reported\": {\n      \"battery\": 7\n    }\n  },\n  \"version\": 3\n}\n"},
		"update": {
			[]string{"shadow", "update", "a", "--desired", `{"led":"on"}`},
			"{\n  \"state\": {\n    \"desired\": {\n      \"led\": \"on\"\n    }\n  },\n  \"version\": 4\n}\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := r.run(t.Context(), c.args...)
			if diff := cmp.Diff(result{0, c.want, ""}, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	r := rest(t, nil)
	lonely := runner{env: map[string]string{"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s", "MUSTER_ENDPOINT_URL": "http://127.0.0.1:1"}}
	empty := t.TempDir()
	for name, c := range map[string]struct {
		r    runner
		args []string
		want string
	}{
		"the server's words":  {r, []string{"things", "describe", "x"}, "muster: ResourceNotFoundException: nothing at /things/x (request id req-7)\n"},
		"which of many":       {r, []string{"things", "delete", "x"}, "delete x: ResourceNotFound"},
		"format":              {rest(t, map[string]string{"GET /things": "{}"}), []string{"things", "list", "-o", "xml"}, `"xml" is none of table, json, csv`},
		"format before deed":  {r, []string{"things", "create", "x", "-o", "xml"}, `"xml" is none of table, json, csv`},
		"format of settings":  {runner{}, []string{"check-config", "--describe", "-o", "xml"}, `"xml" is none of table, json, csv`},
		"limit":               {r, []string{"things", "list", "--limit", "-1"}, "--limit -1 is negative"},
		"attribute":           {r, []string{"things", "list", "--attribute", "site"}, "not name=value"},
		"pair":                {r, []string{"things", "create", "x", "site"}, "not name=value"},
		"no arguments":        {r, []string{"search"}, "accepts 1 arg(s), received 0\nusage: muster search QUERY [flags]\n`muster search --help` tells more\n"},
		"unknown flag":        {r, []string{"things", "list", "--typ", "x"}, "--typ\nusage: muster things list [flags]"},
		"unknown member":      {r, []string{"things", "lst"}, `unknown command "lst" for "muster things"; there are create, decommission, delete, describe, edit, groups, list, past`},
		"mistyped in family":  {r, []string{"shadow", "update", "x", "{}"}, "usage: muster shadow update THING"},
		"unknown command":     {r, []string{"thing"}, "unknown command"},
		"nothing to update":   {r, []string{"shadow", "update", "x"}, "give --desired or --reported"},
		"update not JSON":     {r, []string{"shadow", "update", "x", "--desired", "{led:on}"}, "--desired is not JSON"},
		"server is away":      {lonely, []string{"things", "list"}, "reach the server"},
		"no credentials":      {runner{}, []string{"things", "list", "--data-dir", empty}, "start a server there"},
		"no certificate":      {runner{}, []string{"sub", "a", "--data-dir", empty}, "muster demo"},
		"half a certificate":  {runner{}, []string{"pub", "a", "b", "--cert", "x"}, "belong together"},
		"sub output":          {runner{}, []string{"sub", "a", "-o", "csv"}, "neither text nor json"},
		"sim without server":  {runner{}, []string{"sim", "--data-dir", empty}, "start a server there"},
		"settings":            {runner{}, []string{"check-config", "--http-addr", "0.0.0.0:80"}, "http-addr: \"0.0.0.0:80\" is not a loopback"},
		"certificate missing": {runner{}, []string{"check-config", "--tls-cert", "/none", "--tls-key", "/none"}, "load tls-cert and tls-key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := c.r.run(t.Context(), c.args...)
			if got.code != 1 || !strings.Contains(got.err, c.want) || got.out != "" {
				t.Errorf("got %+v, want %q", got, c.want)
			}
		})
	}
}

func TestCheckConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(file, []byte("store: postgres://u:hidden@db/m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runner{env: map[string]string{"MUSTER_CONFIG": file, "MUSTER_DATA_DIR": "/srv/m"}}.run(t.Context(), "check-config")
	want := "settings are valid: store postgres, data folder /srv/m, settings file " + file + "\n"
	if got.code != 0 || got.out != want {
		t.Errorf("got %+v, want %q", got, want)
	}
	described := runner{}.run(t.Context(), "check-config", "--describe", "-o", "json")
	if !strings.Contains(described.out, `"Path": "mqtt.profile"`) {
		t.Errorf("got %+v", described)
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	t.Parallel()
	var out buffer
	root := New(runner{serve: func(context.Context, ServeRun) error { return nil }}.options(&out, &out))
	var walk func(*cobra.Command)
	seen := 0
	walk = func(cmd *cobra.Command) {
		if cmd.Runnable() {
			seen++
			if cmd.Short == "" || !strings.Contains(cmd.Example, "muster ") {
				t.Errorf("%s has no description or no example", cmd.CommandPath())
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if seen < 15 {
		t.Errorf("only %d commands were looked at", seen)
	}
}

func TestServeGetsSettingsAndReload(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "m.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("log.level: warn\n")
	var called bool
	r := runner{serve: func(_ context.Context, run ServeRun) error {
		called = true
		if run.Settings.Log.Level != "warn" || run.Settings.Region != "local" || run.Version != Version {
			t.Errorf("got %+v", run.Settings)
		}
		write("log.level: debug\n")
		next, err := run.Reload()
		if err != nil || next.Log.Level != "debug" || next.Region != "local" {
			t.Errorf("reload gave %+v, %v", next, err)
		}
		write("log.level: loud\n")
		if _, err := run.Reload(); err == nil {
			t.Error("a wrong file was accepted")
		}
		return errors.New("port is taken")
	}}
	got := r.run(t.Context(), "serve", "--config", file, "--region", "local")
	if !called || got.code != 1 || got.err != "muster: port is taken\n" {
		t.Errorf("got %+v", got)
	}
	if got := (runner{}).run(t.Context(), "serve"); got.code != 1 {
		t.Error("serve without a server")
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain ü 漢": "plain ü 漢", "a\x1b[2Jb": `a\x1b[2Jb`, "a\nb": `a\nb`, `{"a":"b"}` + "\x00": `{"a":"b"}\x00`, "\u202e": `\u202e`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestProgressLines(t *testing.T) {
	t.Parallel()
	var out buffer
	p := &progress{out: &out}
	for i := range 201 {
		p.update("register", i, 200)
	}
	p.update("register", 5, 200) // overtaken
	p.update("connect", 0, 2)
	p.update("connect", 2, 2)
	p.end()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 13 || lines[0] != "register 0 of 200" || lines[10] != "register 200 of 200" || lines[12] != "connect 2 of 2" {
		t.Errorf("got %d lines:\n%s", len(lines), out.String())
	}
	var drawn buffer
	bar := &progress{out: &drawn, terminal: true}
	bar.update("connect", 1, 2)
	bar.end()
	if !strings.Contains(drawn.String(), "connect") {
		t.Errorf("got %q", drawn.String())
	}
}

func TestQuoteAndDialable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"/tmp/a-b_c.d": "/tmp/a-b_c.d", "a b": "'a b'", "it's": `'it'\''s'`, "": "''"} {
		if got := quote(in); got != want {
			t.Errorf("%q: got %s", in, got)
		}
	}
	for in, want := range map[string]string{
		":8883": "localhost:8883", "0.0.0.0:1": "localhost:1", "[::]:2": "localhost:2", "127.0.0.1:3": "127.0.0.1:3", "[::1]:4": "[::1]:4",
	} {
		if got := dialable(in); got != want {
			t.Errorf("%q: got %s", in, got)
		}
	}
}
