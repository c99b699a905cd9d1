package apiclient

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/awsapi/sigv4"
)

// secret signs everything here.
const secret = "wJalrXUtnFEMI-example"

// serve runs a handler behind a check of the signature and returns a client.
func serve(t *testing.T, service string, handle http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		a, err := sigv4.Parse(r)
		if err != nil {
			t.Errorf("signature: %v", err)
		} else if err := a.Verify(r, body, secret, time.Now()); err != nil || a.Service != service || a.Region != "local" {
			t.Errorf("signature for %s in %s: %v", a.Service, a.Region, err)
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		handle(w, r)
	}))
	t.Cleanup(server.Close)
	c, err := New(Options{Endpoint: server.URL + "/", Credentials: Credentials{AccessKeyID: "AKIATEST", Secret: secret, Region: "local"}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func TestListWalksPages(t *testing.T) {
	t.Parallel()
	c := serve(t, "iot", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("thingTypeName") != "Pump" || q.Get("maxResults") == "" {
			t.Errorf("query %v", q)
		}
		switch q.Get("nextToken") {
		case "":
			fmt.Fprint(w, `{"things":[{"thingName":"a"},{"thingName":"b"}],"nextToken":"t/2"}`)
		case "t/2":
			fmt.Fprint(w, `{"things":[{"thingName":"c","attributes":{"site":"leeds"}}]}`)
		}
	})
	got, err := c.ListThings(t.Context(), ThingFilter{TypeName: "Pump"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []Thing{{ThingName: "a"}, {ThingName: "b"}, {ThingName: "c", Attributes: map[string]string{"site": "leeds"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	first, err := c.ListThings(t.Context(), ThingFilter{TypeName: "Pump"}, 2)
	if err != nil || len(first) != 2 {
		t.Errorf("limit 2 gave %v, %v", first, err)
	}
}

func TestSearchWalksPages(t *testing.T) {
	t.Parallel()
	c := serve(t, "iot", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			QueryString string `json:"queryString"`
			NextToken   string `json:"nextToken"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.QueryString != "a:b" {
			t.Errorf("got %+v, %v", in, err)
		}
		if in.NextToken == "" {
			fmt.Fprint(w, `{"things":[{"thingName":"a","connectivity":{"connected":true,"timestamp":5}}],"nextToken":"x"}`)
			return
		}
		fmt.Fprint(w, `{"things":[{"thingName":"b","shadow":"{}"}]}`)
	})
	got, err := c.Search(t.Context(), "a:b", 0)
	want := []Found{{ThingName: "a", Connectivity: &Connectivity{Connected: true, Timestamp: 5}}, {ThingName: "b", Shadow: "{}"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestNamesAreEscaped(t *testing.T) {
	t.Parallel()
	c := serve(t, "iotdata", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " ", r.URL.EscapedPath(), " ", r.URL.Query().Get("name"))
	})
	got, err := c.UpdateShadow(t.Context(), "a:b c/d", "$next", []byte(`{}`))
	if err != nil || string(got) != "POST /things/a:b%20c%2Fd/shadow $next" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	c := serve(t, "iot", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "proxy") {
			http.Error(w, "bad gateway", http.StatusBadGateway)
			return
		}
		w.Header().Set("x-amzn-ErrorType", "ResourceNotFoundException:http://internal/")
		w.Header().Set("x-amzn-RequestId", "42")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"Thing x does not exist"}`)
	})
	_, err := c.DescribeThing(t.Context(), "x")
	if !Is(err, "ResourceNotFoundException") || err.Error() != "ResourceNotFoundException: Thing x does not exist (request id 42)" {
		t.Errorf("got %v", err)
	}
	if _, err := c.DescribeThing(t.Context(), "proxy"); err == nil || err.Error() != "bad gateway" {
		t.Errorf("got %v", err)
	}
}

func TestCredentialSources(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("credentials", "[default]\naws_access_key_id = FOLDER\naws_secret_access_key = s=1\nregion = local\n\n[other]\naws_access_key_id=OTHER\naws_secret_access_key=s2\n")
	named := write("named", "# mine\n[ default ]\nAWS_ACCESS_KEY_ID = NAMED\naws_secret_access_key = s3\n")
	half := write("half", "[default]\naws_access_key_id = HALF\n")
	for name, c := range map[string]struct {
		src  CredentialSources
		env  map[string]string
		want Credentials
		err  string
	}{
		"data folder":       {CredentialSources{DataDir: dir}, nil, Credentials{"FOLDER", "s=1", "", "local"}, ""},
		"profile":           {CredentialSources{DataDir: dir, Profile: "other"}, nil, Credentials{"OTHER", "s2", "", "us-east-1"}, ""},
		"profile variable":  {CredentialSources{DataDir: dir}, map[string]string{"AWS_PROFILE": "other"}, Credentials{"OTHER", "s2", "", "us-east-1"}, ""},
		"variables":         {CredentialSources{DataDir: dir}, map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s4", "AWS_SESSION_TOKEN": "t", "AWS_REGION": "r1"}, Credentials{"ENV", "s4", "t", "r1"}, ""},
		"half of variables": {CredentialSources{DataDir: dir}, map[string]string{"AWS_ACCESS_KEY_ID": "ENV"}, Credentials{"FOLDER", "s=1", "", "local"}, ""},
		"file variable":     {CredentialSources{DataDir: dir}, map[string]string{"AWS_SHARED_CREDENTIALS_FILE": named}, Credentials{"NAMED", "s3", "", "us-east-1"}, ""},
		"file before all":   {CredentialSources{DataDir: dir, File: named, Region: "r2"}, map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s4", "AWS_REGION": "r1"}, Credentials{"NAMED", "s3", "", "r2"}, ""},
		"profile before variables": {
			CredentialSources{DataDir: dir, Profile: "other"},
			map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s4"},
			Credentials{"OTHER", "s2", "", "us-east-1"},
			"",
		},
		"variables before the profile variable": {
			CredentialSources{DataDir: dir},
			map[string]string{"AWS_PROFILE": "other", "AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s4"},
			Credentials{"ENV", "s4", "", "us-east-1"},
			"",
		},
		"no such profile":    {CredentialSources{DataDir: dir, Profile: "x"}, nil, Credentials{}, `has no profile "x"`},
		"no secret":          {CredentialSources{File: half}, nil, Credentials{}, "has no aws_access_key_id and aws_secret"},
		"nothing":            {CredentialSources{DataDir: dir + "/none"}, nil, Credentials{}, "name a file with --credentials"},
		"named file missing": {CredentialSources{File: dir + "/none", DataDir: dir}, nil, Credentials{}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.src.LookupEnv = func(n string) (string, bool) { v, ok := c.env[n]; return v, ok }
			got, err := c.src.Load()
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
}

func TestNewRefusesBadEndpoints(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"localhost:8080", "ftp://x", "http://", "::"} {
		if _, err := New(Options{Endpoint: endpoint}); err == nil {
			t.Errorf("%q was accepted", endpoint)
		}
	}
	if _, err := New(Options{Endpoint: "https://x", CAFile: "/none"}); err == nil {
		t.Error("a missing CA file was accepted")
	}
}
