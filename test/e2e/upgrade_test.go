package e2e_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/testkit"
)

// update writes the golden data folder of the current format instead of
// testing: `go test ./test/e2e -run TestUpgrade -update`. Do it once for each
// new format and never for an old one: those folders stand for what is out
// there.
var update = flag.Bool("update", false, "write the golden data folder of the current format") //nolint:gochecknoglobals // flags are global

// goldenThing is the device in every golden folder.
const goldenThing = "pump-7"

// Entries of a golden archive beside the data folder.
const (
	goldenData    = "data/"
	goldenAnswers = "answers.json"
	goldenCert    = "device.pem"
	goldenKey     = "device.key"
)

func goldenPath(format int) string {
	return filepath.Join("testdata", fmt.Sprintf("format-%d.tar.gz", format))
}

// question is one signed request whose answer must survive.
type question struct {
	Service string `json:"service"`
	Method  string `json:"method"`
	Path    string `json:"path"`
	Query   string `json:"query,omitempty"`
	Body    string `json:"body,omitempty"`
}

func (q question) String() string { return q.Method + " " + q.Path + "?" + q.Query + " " + q.Body }

// questions are asked of every golden folder. More may be added for later
// formats: a folder holds its own list.
func questions(certificateID, certificateARN string) []question {
	control := func(path ...string) question {
		return question{Service: apiclient.ServiceControl, Method: http.MethodGet, Path: apiclient.Path(path...)}
	}
	search := func(query string) question {
		q := control("indices", "search")
		q.Method, q.Body = http.MethodPost, fmt.Sprintf(`{"queryString":%q}`, query)
		return q
	}
	shadow := question{Service: apiclient.ServiceData, Method: http.MethodGet, Path: apiclient.Path("things", goldenThing, "shadow")}
	named := shadow
	named.Query = "name=config"
	targets := question{
		Service: apiclient.ServiceControl, Method: http.MethodPost, Path: apiclient.Path("attached-policies", certificateARN),
	}
	return []question{
		control("things"), control("things", goldenThing), control("things", goldenThing, "principals"),
		control("thing-types", "Pump"), control("thing-groups", "pumps"), control("thing-groups", "low-battery"),
		control("thing-groups", "pumps", "things"), control("thing-groups", "low-battery", "things"),
		control("certificates", certificateID), control("policies", "device"), control("policies", "device", "version"), targets,
		shadow, named, search("shadow.reported.battery<30"), search("shadow.name.config.desired.mode:eco AND attributes.site:leeds"),
	}
}

// ask returns the answer without what is different each time.
func ask(t *testing.T, api *apiclient.Client, q question) any {
	t.Helper()
	query, err := url.ParseQuery(q.Query)
	must(t, err)
	var out map[string]any
	request := apiclient.Request{Service: q.Service, Method: q.Method, Path: q.Path, Query: query, Body: []byte(q.Body)}
	body, err := api.Raw(t.Context(), request)
	if err != nil {
		t.Fatalf("%v: %v", q, err)
	}
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("%v: %q: %v", q, body, err)
	}
	if q.Service == apiclient.ServiceData {
		delete(out, "timestamp") // the time of the answer
	}
	return out
}

// recorded is a question and what the server said.
type recorded struct {
	Question question `json:"question"`
	Answer   any      `json:"answer"`
}

func interview(t *testing.T, api *apiclient.Client, all []question) []recorded {
	t.Helper()
	var out []recorded
	for _, q := range all {
		out = append(out, recorded{q, ask(t, api, q)})
	}
	return out
}

// populate makes one of everything that the format holds.
func populate(t *testing.T, api *apiclient.Client) identity {
	t.Helper()
	ctx := t.Context()
	must(t, api.CreatePolicy(ctx, "device", devicePolicy))
	must(t, api.CreateThingType(ctx, "Pump", "pumps", []string{"site"}))
	must(t, api.CreateGroup(ctx, "plant", "", "everything"))
	must(t, api.CreateGroup(ctx, "pumps", "plant", ""))
	must(t, api.CreateDynamicGroup(ctx, "low-battery", "shadow.reported.battery<30", "to be charged"))
	_, err := api.CreateThing(ctx, goldenThing, "Pump", map[string]string{"site": "leeds", "hw": "r2"})
	must(t, err)
	must(t, api.AddToGroup(ctx, goldenThing, "pumps"))
	i := newIdentity(t, api)
	must(t, api.AttachThingPrincipal(ctx, goldenThing, i.certificate.ARN))
	_, err = api.UpdateShadow(ctx, goldenThing, "", []byte(`{"state":{"desired":{"led":"on"},"reported":{"battery":12,"led":"off"}}}`))
	must(t, err)
	_, err = api.UpdateShadow(ctx, goldenThing, "config", []byte(`{"state":{"desired":{"mode":"eco"}}}`))
	must(t, err)
	testkit.Poll(t, 15*time.Second, "the dynamic group has the device", func() error {
		members, err := api.GroupMembers(ctx, "low-battery", false, 0)
		if err == nil && !slices.Equal(members, []string{goldenThing}) {
			err = fmt.Errorf("it has %q", members)
		}
		return err
	})
	return i
}

// writeGolden makes the folder of the current format.
func writeGolden(t *testing.T) {
	t.Helper()
	server := testkit.StartServer(t)
	api := newAPI(t, server)
	i := populate(t, api)
	answers, err := json.MarshalIndent(interview(t, api, questions(i.certificate.ID, i.certificate.ARN)), "", " ")
	must(t, err)
	server.Stop()
	if code := server.ExitCode(); code != 0 {
		t.Fatalf("the server ended with code %d", code)
	}
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	w := tar.NewWriter(zipped)
	add := func(name string, data []byte) {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Typeflag: tar.TypeReg}))
		_, err := w.Write(data)
		must(t, err)
	}
	add(goldenAnswers, answers)
	add(goldenCert, []byte(i.certificate.PEM))
	add(goldenKey, i.keyPEM)
	must(t, filepath.WalkDir(server.DataDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(server.DataDir, path)
		add(goldenData+filepath.ToSlash(name), data)
		return err
	}))
	must(t, errors.Join(w.Close(), zipped.Close()))
	must(t, os.MkdirAll("testdata", 0o755))
	writeFile(t, goldenPath(datadir.Format), archive.Bytes())
}

// golden is an unpacked archive.
type golden struct {
	dir     string
	answers []recorded
	device  identity
}

func openGolden(t *testing.T, format int) golden {
	t.Helper()
	f, err := os.Open(goldenPath(format))
	must(t, err)
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	must(t, err)
	g := golden{dir: filepath.Join(t.TempDir(), "data")}
	for r := tar.NewReader(zipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return g
		}
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		switch name, inside := strings.CutPrefix(header.Name, goldenData); {
		case inside:
			path := filepath.Join(g.dir, filepath.FromSlash(name))
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			writeFile(t, path, data)
		case name == goldenAnswers:
			must(t, json.Unmarshal(data, &g.answers))
		case name == goldenCert:
			g.device.certificate.PEM = string(data)
		case name == goldenKey:
			g.device.keyPEM = data
		default:
			t.Fatalf("unknown entry %s", header.Name)
		}
	}
}

// added is what answers have gained since: documents say that there are no
// violations.
var added = cmpopts.IgnoreMapEntries(func(name string, _ any) bool { return name == "deviceDefender" }) //nolint:gochecknoglobals // a constant

// TestUpgrade starts the current binary on a data folder of every format that
// ever was: it must give the answers that were given then, let the device in
// with its old certificate, and still do so after a restart.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	if *update {
		writeGolden(t)
	}
	for format := 1; format <= datadir.Format; format++ {
		t.Run(strconv.Itoa(format), func(t *testing.T) {
			t.Parallel()
			g := openGolden(t, format)
			server := testkit.NewServer(t, g.dir)
			for _, round := range []string{"first", "second"} {
				server.Start()
				api := newAPI(t, server)
				if len(g.answers) < 10 {
					t.Fatalf("the golden folder has %d answers", len(g.answers))
				}
				for _, r := range g.answers {
					if diff := cmp.Diff(r.Answer, ask(t, api, r.Question), added); diff != "" {
						t.Errorf("%s start: %v (-then +now):\n%s", round, r.Question, diff)
					}
				}
				if out, err := server.Muster(t.Context(), "doctor"); err != nil {
					t.Errorf("%s start: %v\n%s", round, err, out)
				}
				server.Stop()
				if code := server.ExitCode(); code != 0 {
					t.Errorf("%s start: the server ended with code %d", round, code)
				}
			}
			server.Start()
			a, err := online(t, server, goldenThing, g.device).report(t.Context(), 1)
			if err != nil || a.Version != 2 {
				t.Errorf("the device's update was answered with %+v, %v; want version 2", a, err)
			}
		})
	}
}

// TestFolderRefused checks that a server keeps its hands off a folder that it
// cannot serve, and says why.
func TestFolderRefused(t *testing.T) {
	t.Parallel()
	t.Run("NewerFormat", func(t *testing.T) {
		t.Parallel()
		g := openGolden(t, 1)
		newer := fmt.Sprintf("muster %d\n", datadir.Format+1)
		writeFile(t, filepath.Join(g.dir, "FORMAT"), []byte(newer))
		before := listing(t, g.dir)
		refused(t, serveArgs(g.dir), "FORMAT", fmt.Sprint(datadir.Format+1), "newer")
		if diff := cmp.Diff(before, listing(t, g.dir)); diff != "" {
			t.Errorf("the refused folder was changed:\n%s", diff)
		}
	})
	t.Run("SomebodyElses", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "thesis.txt"), []byte("years of work"))
		refused(t, serveArgs(dir), dir, "not a Muster data folder")
	})
	t.Run("InUse", func(t *testing.T) {
		t.Parallel()
		server := testkit.StartServer(t)
		refused(t, serveArgs(server.DataDir), server.DataDir, "in use by another process")
		if _, err := newAPI(t, server).CreateThing(t.Context(), "still-here", "", nil); err != nil {
			t.Errorf("the first server: %v", err)
		}
	})
}

// listing is every file with its content.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "LOCK" {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	}))
	return out
}
