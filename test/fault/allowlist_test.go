package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/listsign"
	"github.com/muster-iot/muster/internal/testkit"
)

// listFlags are a server's that has allow lists.
func listFlags(t *testing.T, more ...string) []string {
	t.Helper()
	text, _, err := listsign.Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "allow-list.age")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return append([]string{"--allow-list.identity-file", path}, more...)
}

// supplierKey makes the supplier acme, whose lists are accepted by their signature or
// by a person.
func (r *joinRig) supplierKey(signed bool) *listsign.Key {
	r.t.Helper()
	key, err := listsign.Generate(listsign.ES256)
	r.need(err)
	public, err := key.PublicPEM()
	r.need(err)
	_, err = r.api.PutSupplier(r.t.Context(), "acme", apiclient.Supplier{AcceptSigned: signed})
	r.need(err)
	_, err = r.api.PutSupplierKey(r.t.Context(), "acme", apiclient.SupplierKey{ID: "line-1", PublicKey: string(public)})
	r.need(err)
	return key
}

// uploadSerials uploads a list of serial numbers.
func (r *joinRig) uploadSerials(key *listsign.Key, list string, serials []string) apiclient.AllowListRevision {
	r.t.Helper()
	var text strings.Builder
	text.WriteString("serial,vetted\n")
	for _, s := range serials {
		text.WriteString(s + ",true\n")
	}
	signed, err := key.Compact("line-1", []byte(text.String()))
	r.need(err)
	made, err := r.api.UploadAllowList(r.t.Context(), apiclient.AllowListUpload{Supplier: "acme", List: list, Body: []byte(signed)})
	r.need(err)
	return made
}

// listed says what the lists have of a serial number.
func (r *joinRig) listed(serial string) apiclient.AllowListCheck {
	r.t.Helper()
	c, err := r.api.CheckAllowLists(r.t.Context(), apiclient.ListedDevice{Serial: serial})
	r.need(err)
	return c
}

// The server dies again and again while lists of 20,000 devices are accepted. After
// each time all devices of a list may join or none of them; an answered acceptance is
// kept, one that had begun ends by itself, and one that had not can be asked for again.
func TestKilledServerWhileAListIsAccepted(t *testing.T) {
	acceptThroughKills(t, newJoinRig(t, listFlags(t)...))
}

func TestKilledServerWhileAListIsAcceptedOnPostgreSQL(t *testing.T) {
	database := testkit.StartPostgres(t)
	acceptThroughKills(t, newJoinRig(t, listFlags(t, "--store", database.Database(t))...))
}

func acceptThroughKills(t *testing.T, r *joinRig) {
	t.Helper()
	const entries, sample = 20_000, 100
	key := r.supplierKey(false)
	vic := r.user("vic", "MusterAllowListVetter")
	serialsOf := func(list string) []string {
		all := make([]string, entries)
		for i := range all {
			all[i] = fmt.Sprintf("%s-%05d", list, i)
		}
		return all
	}
	// How long an acceptance takes when nothing happens.
	r.uploadSerials(key, "calm", serialsOf("calm"))
	begun := time.Now()
	_, err := vic.VetAllowList(t.Context(), "calm", 1, "accept", "")
	r.need(err)
	takes := time.Since(begun)
	t.Logf("an acceptance takes %v", takes)
	cut, whole := 0, 0
	for round := range kills(t, 5) {
		list := fmt.Sprintf("list-%d", round)
		serials := serialsOf(list)
		r.uploadSerials(key, list, serials)
		answered := make(chan error, 1)
		go func() {
			_, err := vic.VetAllowList(context.WithoutCancel(t.Context()), list, 1, "accept", "")
			answered <- err
		}()
		select {
		case <-time.After(rand.N(takes)):
		case <-t.Context().Done():
		}
		r.server.Kill()
		r.server.Start()
		told := <-answered == nil
		if told {
			whole++
		} else {
			cut++
		}
		// First and last among them: they are written first and last.
		some := []string{serials[0], serials[entries-1]}
		for range sample {
			some = append(some, serials[rand.IntN(entries)])
		}
		joins := func() (first bool) {
			t.Helper()
			for i, serial := range some {
				allowed := r.listed(serial).Allowed
				if i == 0 {
					first = allowed
				}
				// It may be made ready just now: from then on all have to be there.
				if first && !allowed {
					t.Errorf("round %d: %s may not join, and %s may", round, serial, some[0])
				}
				first = first || allowed
			}
			return first
		}
		if all := joins(); told && !all {
			t.Errorf("round %d: an answered acceptance is gone", round)
		}
		testkit.Poll(t, 30*time.Second, "the acceptance goes on or has not begun", func() error {
			found, err := r.api.AllowListRevision(t.Context(), list, 1)
			if err == nil && found.Status != "ACCEPTED" && found.Status != "QUARANTINED" {
				err = fmt.Errorf("it is %s", found.Status)
			}
			if err == nil && found.Status == "QUARANTINED" {
				if joins() {
					t.Errorf("round %d: devices of a list that nobody has accepted may join", round)
				}
				_, err = vic.VetAllowList(t.Context(), list, 1, "accept", "")
			}
			return err
		})
		if !joins() {
			t.Errorf("round %d: none of an accepted list may join", round)
		}
		// Nothing of the lists before has gone.
		if c := r.listed("calm-19999"); !c.Allowed {
			t.Errorf("round %d: %+v", round, c)
		}
		if out, err := r.server.Muster(t.Context(), "doctor"); err != nil {
			t.Errorf("round %d: %v\n%s", round, err, out)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d acceptances were cut, %d were answered before the kill", cut, whole)
	if cut == 0 {
		t.Error("no kill has met an acceptance")
	}
}

// user makes a user with policies and a client with its key.
func (r *joinRig) user(name string, policies ...string) *apiclient.Client {
	r.t.Helper()
	r.muster("user", "create", name)
	for _, policy := range policies {
		r.muster("user", "attach", name, policy)
	}
	var made struct {
		AccessKeyID     string `json:"accessKeyId"`
		SecretAccessKey string `json:"secretAccessKey"`
	}
	r.need(json.Unmarshal([]byte(r.muster("key", "create", name, "-o", "json")), &made))
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + r.server.HTTPAddr, Credentials: apiclient.Credentials{AccessKeyID: made.AccessKeyID, Secret: made.SecretAccessKey, Region: "us-east-1"}, Now: time.Now,
	})
	r.need(err)
	r.t.Cleanup(api.CloseIdle)
	return api
}

// Four devices race for each of forty entries while the server dies. In the end one of
// each four has joined, its entry is its, and who was told before the kill that it has
// joined is that one.
func TestKilledServerWhileDevicesRaceForEntries(t *testing.T) {
	raceThroughKills(t, newJoinRig(t, listFlags(t)...))
}

func TestKilledServerWhileDevicesRaceForEntriesOnPostgreSQL(t *testing.T) {
	database := testkit.StartPostgres(t)
	raceThroughKills(t, newJoinRig(t, listFlags(t, "--store", database.Database(t))...))
}

func raceThroughKills(t *testing.T, r *joinRig) {
	t.Helper()
	const entries, racers = 40, 4
	key := r.supplierKey(true)
	r.muster("approvals", "authority", "lists", "--allow-list")
	r.muster("approvals", "bind", "pumps", "--authority", "lists")
	rounds := kills(t, 2)
	for round := range rounds {
		serials := make([]string, entries)
		for i := range serials {
			serials[i] = fmt.Sprintf("pump-%d-%02d", round, i)
		}
		if made := r.uploadSerials(key, fmt.Sprintf("list-%d", round), serials); made.Status != "ACCEPTED" {
			t.Fatalf("%+v", made)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		racing := make([][]*joiner, entries)
		refused := make([][]bool, entries)
		for i, serial := range serials {
			refused[i] = make([]bool, racers)
			for range racers {
				racing[i] = append(racing[i], r.joiner(serial))
			}
		}
		var joined atomic.Int64
		race := func() {
			var together sync.WaitGroup
			for i := range racing {
				for k, d := range racing[i] {
					if d.told || d.spent || refused[i][k] {
						continue
					}
					together.Go(func() {
						err := d.join(ctx)
						if d.told {
							joined.Add(1)
						}
						if no, ok := errors.AsType[*joinError](err); ok {
							if refused[i][k] = no.ErrorCode == "AccessDenied"; !refused[i][k] && no.ErrorCode != "Throttling" {
								t.Errorf("%s: %v", d.serial, no)
							}
						}
					})
				}
			}
			together.Wait()
		}
		done := make(chan struct{})
		go func() { race(); close(done) }()
		for enough := 1 + rand.Int64N(entries/2); joined.Load() < enough; {
			select {
			case <-done:
				t.Fatalf("round %d: only %d have joined", round, joined.Load())
			case <-time.After(time.Millisecond):
			}
		}
		r.server.Kill()
		<-done
		told := 0
		for i := range racing {
			for _, d := range racing[i] {
				if d.told {
					told++
				}
			}
		}
		r.server.Start()
		for again := 0; again < 20 && ctx.Err() == nil; again++ {
			race()
		}
		for i, serial := range serials {
			var winner *joiner
			for k, d := range racing[i] {
				switch {
				case d.told || d.spent:
					if winner != nil {
						t.Errorf("%s: two have joined", serial)
					}
					winner = d
				case !refused[i][k]:
					t.Errorf("%s: a device was never answered", serial)
				}
			}
			c := r.listed(serial)
			if winner == nil || c.State != "CLAIMED" || c.CertificateID != winner.id || c.Thing != serial {
				t.Errorf("%s: %+v, joined %v", serial, c, winner != nil)
				continue
			}
			principals, err := r.api.ThingPrincipals(ctx, serial)
			r.need(err)
			if len(principals) != 1 || !strings.HasSuffix(principals[0], "/"+winner.id) {
				t.Errorf("%s: %v", serial, principals)
			}
		}
		t.Logf("round %d: %d of %d had been told before the kill", round, told, entries)
		if t.Failed() {
			t.FailNow()
		}
	}
}

// A list says yes to a device and a person has to, too; the server dies meanwhile. The
// person sees where the list has it; a device on no list never comes to the person.
func TestApproverSeesTheList(t *testing.T) {
	r := newJoinRig(t, listFlags(t)...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.uploadSerials(r.supplierKey(true), "w47", []string{"pump-1", "pump-2"})
	r.muster("user-group", "create", "leads")
	r.muster("approvals", "authority", "of-leads", "--group", "leads")
	r.muster("approvals", "authority", "lists", "--supplier", "acme", "--serial-parameter", "SerialNumber")
	r.muster("approvals", "bind", "pumps", "--authority", "lists", "--authority", "of-leads")
	lead := r.approver("lee", "leads")
	d, rogue := r.joiner("pump-1"), r.joiner("rogue-1")
	id := d.pending(ctx)
	if err := rogue.join(ctx); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("on no list: %v", err)
	}
	r.server.Kill()
	r.server.Start()
	waiting, err := lead.Approvals(ctx, "", "", 0)
	r.need(err)
	if len(waiting) != 1 || waiting[0].ID != id {
		t.Fatalf("%+v", waiting)
	}
	if out := r.muster("approvals", "show", id); !strings.Contains(out, "found by lists") || !strings.Contains(out, "revision 1 of allow list w47 of supplier acme, by serial") {
		t.Errorf("shown:\n%s", out)
	}
	if c := r.listed("pump-1"); c.State != "UNUSED" {
		t.Errorf("claimed before it has joined: %+v", c)
	}
	_, err = lead.Vote(ctx, id, "approve", "", "on the delivery note")
	r.need(err)
	r.need(d.join(ctx))
	if c := r.listed("pump-1"); !d.told || c.State != "CLAIMED" || c.CertificateID != d.id || c.Thing != "pump-1" {
		t.Errorf("%+v, joined %v", c, d.told)
	}
}
