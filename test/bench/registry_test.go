//go:build bench

package bench_test

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

const (
	// registryRounds is how often each operation is measured.
	registryRounds = 300
	// registryGroups divide the things; the last ones of the file are in one
	// more, which is deleted with its members.
	registryGroups   = 200
	registryDeletion = 100_000 // or half of the things when they are few
	// registryRare is how few things have the rare type: one in so many.
	registryRare = 10_000
)

// fleetOf is a server with things and what is measured of it.
type fleetOf struct {
	t      *testing.T
	server *testkit.Server
	api    *apiclient.Client
	n      int
	// doomed is how many things are in the group that is deleted.
	doomed int
}

// TestRegistry loads a registry with muster import and reports what its
// operations cost then: on the embedded store, and on PostgreSQL.
func TestRegistry(t *testing.T) {
	for _, n := range environment(t, "MUSTER_BENCH_THINGS", "1000000") {
		server := testkit.StartServer(t, "--log.level", "warn", "--mqtt-insecure-addr", "")
		measureRegistry(t, server, n, "embedded", func() float64 { return folderMB(t, server.DataDir) })
		server.Stop()
	}
	for _, n := range environment(t, "MUSTER_BENCH_PG_THINGS", "100000") {
		if n == 0 {
			continue
		}
		var pool testkit.PostgresPool
		database := pool.Get(t).Database(t)
		server := testkit.StartServer(t, "--log.level", "warn", "--mqtt-insecure-addr", "", "--store", database)
		measureRegistry(t, server, n, "PostgreSQL", func() float64 { return databaseMB(t, database) })
		server.Stop()
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	}
}

func measureRegistry(t *testing.T, server *testkit.Server, n int, store string, disk func() float64) {
	t.Helper()
	f := &fleetOf{t: t, server: server, api: newAPI(t, server), n: n, doomed: min(registryDeletion, n/2)}
	file := f.file()
	f.prepare()
	before := residentKB(t, server.PID())
	cpu := cpuSeconds(t, server.PID())
	took := f.load(file)
	cpu = cpuSeconds(t, server.PID()) - cpu
	loaded := residentKB(t, server.PID())
	begun := time.Now()
	f.await(int64(n))
	searchable := time.Since(begun)

	table(fmt.Sprintf("registry: %d things, %s, loaded by muster import", n, store), "what", "figure")
	row("import", fmt.Sprintf("%s s, %s things/s, %s µs of server CPU each", number(took.Seconds(), 1), number(float64(n)/took.Seconds(), 0), number(cpu/float64(n)*1e6, 0)))
	row("resident before / when loaded", fmt.Sprintf("%s / %s MB", number(before/1024, 0), number(loaded/1024, 0)))
	row("searchable behind the import", fmt.Sprintf("%s s", number(searchable.Seconds(), 2)))
	took = f.load(file)
	row("the same file again, all unchanged", fmt.Sprintf("%s s, %s things/s", number(took.Seconds(), 1), number(float64(n)/took.Seconds(), 0)))
	server.Stop()
	row("on disk, event log included", fmt.Sprintf("%s MB", number(disk(), 0)))
	begun = time.Now()
	server.Start()
	row("start until ready", fmt.Sprintf("%s s", number(time.Since(begun).Seconds(), 2)))
	row("resident after the start", fmt.Sprintf("%s MB", number(residentKB(t, server.PID())/1024, 0)))
	f.operations()
	row("resident at the end", fmt.Sprintf("%s MB", number(residentKB(t, server.PID())/1024, 0)))
}

func (f *fleetOf) name(i int) string { return fmt.Sprintf("device-%07d", i) }

// file writes the things: a type, two groups at most, five attributes, some with
// a billing group.
func (f *fleetOf) file() string {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), "things.csv")
	out, err := os.Create(path)
	if err != nil {
		f.t.Fatal(err)
	}
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, "name,type,billing_group,groups,attr.site,attr.serial,attr.hw,attr.customer,attr.line")
	for i := range f.n {
		typeName, payer, groups := "Pump", "", fmt.Sprintf("site-%d", i%registryGroups)
		if i%registryRare == 7 {
			typeName = "Rare"
		}
		if i >= f.n-f.doomed {
			groups, payer = groups+";doomed", "doomed"
		}
		fmt.Fprintf(w, "%s,%s,%s,%s,site-%d,SN%07d,r%d,customer-%d,line-%d\n",
			f.name(i), typeName, payer, groups, i%registryGroups, i, i%7, i*7919%5000, i%12)
	}
	if err := w.Flush(); err != nil {
		f.t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// prepare makes types and groups.
func (f *fleetOf) prepare() {
	f.t.Helper()
	for _, name := range []string{"Pump", "Rare"} {
		if err := f.api.CreateThingType(f.t.Context(), name, "", nil); err != nil {
			f.t.Fatal(err)
		}
	}
	each(f.t, registryGroups, func(ctx context.Context, i int) error {
		return f.api.CreateGroup(ctx, fmt.Sprintf("site-%d", i), "", "")
	})
	if err := f.api.CreateGroup(f.t.Context(), "doomed", "", ""); err != nil {
		f.t.Fatal(err)
	}
	if err := f.call(http.MethodPost, "/billing-groups/doomed", nil, map[string]any{}, nil); err != nil {
		f.t.Fatal(err)
	}
}

// load runs the command that an operator runs.
func (f *fleetOf) load(file string) time.Duration {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), testkit.Binary(f.t), "import", "things", file,
		"--endpoint-url", "http://"+f.server.HTTPAddr, "--data-dir", f.server.DataDir)
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 0 failed") {
		f.t.Fatalf("import: %v\n%s", err, out)
	}
	return time.Since(begun)
}

// await waits until the index has everything.
func (f *fleetOf) await(n int64) {
	f.t.Helper()
	last := f.name(int(n) - 1)
	testkit.Poll(f.t, 10*time.Minute, "everything is searchable", func() error {
		found, err := f.api.Search(f.t.Context(), "thingName:"+last, 1)
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("the last one is not")
		}
		return err
	})
}

// operations measures what a full registry costs.
func (f *fleetOf) operations() {
	f.t.Helper()
	some := func() string { return f.name(rand.IntN(f.n - f.doomed)) }
	list := func(query url.Values) func() error {
		return func() error {
			var page struct{ Things []apiclient.Thing }
			err := f.call(http.MethodGet, "/things", query, nil, &page)
			if err == nil && len(page.Things) == 0 {
				err = fmt.Errorf("nothing is listed for %v", query)
			}
			return err
		}
	}
	search := func(query string) func() error {
		return func() error {
			found, err := f.api.Search(f.t.Context(), query, 100)
			if err == nil && len(found) == 0 {
				err = fmt.Errorf("nothing is found for %s", query)
			}
			return err
		}
	}
	row("**operation**", "**p50 / p99**")
	f.measure("DescribeThing", registryRounds, func() error { _, err := f.api.DescribeThing(f.t.Context(), some()); return err })
	f.measure("ListThings, first 250", registryRounds, list(url.Values{"maxResults": {"250"}}))
	f.measure("… by type, first 250 of nearly all", registryRounds, list(url.Values{"maxResults": {"250"}, "thingTypeName": {"Pump"}}))
	f.measure("… by a type that one in 10,000 has", registryRounds, list(url.Values{"maxResults": {"250"}, "thingTypeName": {"Rare"}}))
	f.measure("… by attribute, first 250 of one in 200", registryRounds, list(url.Values{"maxResults": {"250"}, "attributeName": {"site"}, "attributeValue": {"site-17"}}))
	f.measure("… by the start of an attribute", registryRounds,
		list(url.Values{"maxResults": {"250"}, "attributeName": {"serial"}, "attributeValue": {"SN00123"}, "usePrefixAttributeValue": {"true"}}))
	f.measure("… by rare type and common attribute", registryRounds,
		list(url.Values{"maxResults": {"250"}, "thingTypeName": {"Rare"}, "attributeName": {"site"}, "attributeValue": {"site-7"}}))
	f.measure("ListThingsInThingGroup, first 250", registryRounds, func() error {
		return f.call(http.MethodGet, "/thing-groups/site-17/things", url.Values{"maxResults": {"250"}}, nil, nil)
	})
	f.pages()
	f.measure("SearchIndex thingName:device-00123*", registryRounds, search("thingName:device-00123*"))
	f.measure("SearchIndex attributes.site:site-17 AND attributes.hw:r3, first 100", registryRounds, search("attributes.site:site-17 AND attributes.hw:r3"))
	f.measure("SearchIndex attributes.serial:SN00123*", registryRounds, search("attributes.serial:SN00123*"))
	n := 0
	f.measure("UpdateThing, one attribute", registryRounds, func() error {
		n++
		return f.call(http.MethodPatch, apiclient.Path("things", some()), nil,
			map[string]any{"attributePayload": map[string]any{"attributes": map[string]string{"hw": fmt.Sprintf("u%d", n)}, "merge": true}}, nil)
	})
	next := 0
	f.measure("DeleteThing", registryRounds, func() error {
		next++
		return f.api.DeleteThing(f.t.Context(), f.name(f.n-f.doomed-next))
	})
	f.measure(fmt.Sprintf("DeleteThingGroup with %d members", f.doomed), 1, func() error {
		return f.call(http.MethodDelete, "/thing-groups/doomed", nil, nil, nil)
	})
	f.measure(fmt.Sprintf("DeleteBillingGroup with %d members", f.doomed), 1, func() error {
		return f.call(http.MethodDelete, "/billing-groups/doomed", nil, nil, nil)
	})
}

// call is one request to the control plane.
func (f *fleetOf) call(method, path string, query url.Values, in, out any) error {
	return f.api.JSON(f.t.Context(), apiclient.Request{Service: apiclient.ServiceControl, Method: method, Path: path, Query: query}, in, out)
}

// measure prints the distribution of an operation's time.
func (f *fleetOf) measure(what string, rounds int, do func() error) {
	f.t.Helper()
	var times []time.Duration
	for range rounds {
		begun := time.Now()
		if err := do(); err != nil {
			f.t.Fatalf("%s: %v", what, err)
		}
		times = append(times, time.Since(begun))
	}
	slices.Sort(times)
	if rounds == 1 {
		row(what, fmt.Sprintf("%s s", number(times[0].Seconds(), 2)))
		return
	}
	row(what, fmt.Sprintf("%s / %s ms", number(milliseconds(times[rounds/2]), 2), number(milliseconds(times[rounds*99/100]), 2)))
}

// pages walks through everything.
func (f *fleetOf) pages() {
	f.t.Helper()
	var times []time.Duration
	seen, last := 0, ""
	query := url.Values{"maxResults": {"250"}}
	begun := time.Now()
	for {
		var page struct {
			Things    []apiclient.Thing
			NextToken string
		}
		at := time.Now()
		if err := f.call(http.MethodGet, "/things", query, nil, &page); err != nil {
			f.t.Fatal(err)
		}
		times = append(times, time.Since(at))
		for _, thing := range page.Things {
			if thing.ThingName <= last {
				f.t.Fatalf("%s stands behind %s", thing.ThingName, last)
			}
			last = thing.ThingName
		}
		seen += len(page.Things)
		if page.NextToken == "" {
			break
		}
		query.Set("nextToken", page.NextToken)
	}
	took := time.Since(begun)
	if seen != f.n {
		f.t.Fatalf("%d of %d things are listed", seen, f.n)
	}
	slices.Sort(times)
	row(fmt.Sprintf("ListThings through all, %d pages in %s s", len(times), number(took.Seconds(), 1)),
		fmt.Sprintf("%s / %s ms", number(milliseconds(times[len(times)/2]), 2), number(milliseconds(times[len(times)*99/100]), 2)))
}

// databaseMB is what a database of PostgreSQL takes.
func databaseMB(t *testing.T, address string) float64 {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var size int64
	if err := conn.QueryRow(t.Context(), "SELECT pg_database_size(current_database())").Scan(&size); err != nil {
		t.Fatal(err)
	}
	return float64(size) / (1 << 20)
}

// folderMB is what the files of a folder take.
func folderMB(t *testing.T, root string) float64 {
	t.Helper()
	var size int64
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return float64(size) / (1 << 20)
}
