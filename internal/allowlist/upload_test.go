package allowlist

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

// TestFormatsAndAlgorithms: every format with every way of signing is taken, kept bit
// for bit, and lets its devices in.
func TestFormatsAndAlgorithms(t *testing.T) { onEngines(t, formatsAndAlgorithms) }

func formatsAndAlgorithms(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	for _, algorithm := range []Algorithm{Ed25519, ES256, RS256} {
		t.Run(string(algorithm), func(t *testing.T) {
			r := newRig(t)
			f := newFactory(t, algorithm, "line-1")
			r.acme(f, nil)
			csv := func(serial string) []byte {
				return []byte("serial,model,spkiSha256,manufacturedAt,vetted\r\n" + serial + ",pump-g2," + print(serial) + ",2026-11-18,true\r\n")
			}
			lines := func(serial string) []byte {
				return []byte(`{"model":"pump-g2","serial":"` + serial + `","vetted":true,"spkiSha256":"` + print(serial) + `"}` + "\n\n")
			}
			detached := func(body []byte) string {
				parts := strings.Split(string(f.seal(body)), ".")
				return parts[0] + ".." + parts[2]
			}
			cases := map[string]func(serial string) (body []byte, signature, kid string){
				"jws":          func(s string) ([]byte, string, string) { return f.seal(written(t, "l-jws", r.now, pump(s))), "", "" },
				"jws-lines":    func(s string) ([]byte, string, string) { return f.seal(lines(s)), "", "" },
				"jws-detached": func(s string) ([]byte, string, string) { b := csv(s); return b, detached(b), "" },
				"csv":          func(s string) ([]byte, string, string) { b := csv(s); return b, f.plain(b), "" },
				"csv-kid":      func(s string) ([]byte, string, string) { b := csv(s); return b, f.plain(b) + "\n", "line-1" },
				"lines":        func(s string) ([]byte, string, string) { b := lines(s); return b, f.plain(b), "" },
				"document": func(s string) ([]byte, string, string) {
					b := bytes.ReplaceAll(written(t, "l-document", r.now, pump(s)), []byte(`,"`), []byte(",\n \""))
					return b, f.plain(b), ""
				},
			}
			for name, of := range cases {
				body, signature, kid := of("B7-" + name)
				list := "l-" + name
				made, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: list, Body: body, Signature: signature, KeyID: kid})
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if made.SignerKey != "line-1" || made.Entries != 1 || made.Status != Quarantined {
					t.Errorf("%s: %+v", name, made)
				}
				if _, err := r.Accept(r.as("vic"), account, list, 1, ""); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				m, err := r.Match(t.Context(), account, Query{Serial: "B7-" + name, Model: "pump-g2", Fingerprints: []string{print("B7-" + name)}})
				if err != nil || m.Reason != "" || m.List != list || m.Found != ByFingerprint {
					t.Errorf("%s: %+v, %v", name, m, err)
				}
				back, err := r.Original(r.as("rita"), account, list, 1)
				if err != nil || !bytes.Equal(back, body) {
					t.Errorf("%s: the original is another: %v", name, err)
				}
			}
		})
	}
}

// TestRefusedUploads: what is tampered with, signed by somebody else, out of order,
// replayed, or for somebody else is refused in words, on record, and nothing is kept.
func TestRefusedUploads(t *testing.T) { onEngines(t, refusedUploads) }

func refusedUploads(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f, stranger := newFactory(t, Ed25519, "line-1"), newFactory(t, Ed25519, "line-1")
	r.acme(f, nil)
	if _, err := r.PutSupplier(r.as("sam"), account, Supplier{ID: "other"}); err != nil {
		t.Fatal(err)
	}
	first := f.seal(written(t, "week-47", r.now, pump("B7-0001"), pump("B7-0002")))
	r.accepted("week-47", first)
	csv := []byte("serial,vetted\nB7-0003,true\nB7-0004,true\n")
	parts := strings.Split(string(f.seal(written(t, "week-47", r.now.Add(time.Hour), pump("B7-0005")))), ".")
	to := func(recipient string) []byte {
		parsed, err := age.ParseX25519Recipient(recipient)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w, err := age.Encrypt(&out, parsed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.seal(written(t, "week-47", r.now.Add(2*time.Hour), pump("B7-0006")))); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	someone, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	mine, err := r.Recipient()
	if err != nil {
		t.Fatal(err)
	}
	damaged := to(mine)
	damaged[len(damaged)-3] ^= 1
	later := func(entries ...Entry) []byte {
		return f.seal(written(t, "week-47", r.now.Add(3*time.Hour), entries...))
	}
	before := len(r.events())
	refusals := 0
	for name, c := range map[string]struct {
		upload Upload
		code   fault.Code
		text   string
	}{
		"another payload": {Upload{Body: []byte(parts[0] + "." + strings.Split(string(first), ".")[1] + "." + parts[2])}, fault.InvalidRequest, "signature: is not that of the list"},
		"tampered CSV":    {Upload{Body: bytes.Replace(csv, []byte("0003"), []byte("0009"), 1), Signature: f.plain(csv)}, fault.InvalidRequest, "signature: is not that of the list"},
		"re-ordered CSV":  {Upload{Body: []byte("serial,vetted\nB7-0004,true\nB7-0003,true\n"), Signature: f.plain(csv)}, fault.InvalidRequest, "signature: is not that of the list"},
		"stranger's key":  {Upload{Body: stranger.seal(written(t, "week-47", r.now.Add(time.Hour), pump("B7-1")))}, fault.InvalidRequest, "signature: is not that of the list"},
		"other algorithm": {Upload{Body: []byte("eyJhbGciOiJub25lIiwia2lkIjoibGluZS0xIn0." + parts[1] + ".")}, fault.InvalidRequest, "alg must be"},
		"critical header": {Upload{Body: []byte("eyJhbGciOiJFZERTQSIsImNyaXQiOlsiYjY0Il0sImtpZCI6ImxpbmUtMSJ9." + parts[1] + "." + parts[2])}, fault.InvalidRequest, "the header of the JWS may have"},
		"replayed":        {Upload{Body: first}, fault.InvalidRequest, "issuedAt: the document is not newer"},
		"older":           {Upload{Body: f.seal(written(t, "week-47", r.now.Add(-time.Minute), pump("B7-8")))}, fault.InvalidRequest, "issuedAt: the document is not newer"},
		"of another list": {Upload{Body: f.seal(written(t, "week-48", r.now.Add(time.Hour), pump("B7-8")))}, fault.InvalidRequest, "the document is of another list"},
		"other supplier":  {Upload{Supplier: "other", Body: []byte("serial\nB7-1\n")}, fault.InvalidRequest, "is of another supplier"},
		"wrong recipient": {Upload{Body: to(someone.Recipient().String())}, fault.InvalidRequest, "is encrypted to somebody else; the recipient of this installation is " + mine},
		"damaged age":     {Upload{Body: damaged}, fault.InvalidRequest, "its age encryption is damaged"},
		"no entries":      {Upload{Body: later()}, fault.InvalidRequest, "entries: a list has 1 to"},
		"one twice":       {Upload{Body: later(pump("B7-1"), pump("B7-2"), pump("B7-1"))}, fault.InvalidRequest, "entries[2].serial: is that of entries[0]"},
		"a key twice":     {Upload{Body: later(pump("B7-1"), Entry{Serial: "B7-2", Fingerprint: print("B7-1")})}, fault.InvalidRequest, "entries[1].spkiSha256: is that of entries[0]"},
		"bad date":        {Upload{Body: later(Entry{Serial: "B7-1", ManufacturedAt: "18.11.2026"})}, fault.InvalidRequest, "entries[0].manufacturedAt: must be a date"},
		"empty":           {Upload{Body: []byte("  \n"), Signature: f.plain([]byte("  \n"))}, fault.InvalidRequest, "list: is empty"},
		"no columns":      {Upload{Body: []byte("B7-77,true\n"), Signature: f.plain([]byte("B7-77,true\n"))}, fault.InvalidRequest, "what the header of the CSV has in column 1"},
	} {
		u := c.upload
		u.List = "week-47"
		if u.Supplier == "" {
			u.Supplier = "acme"
		}
		_, err := r.Upload(r.as("uma"), account, u)
		if fault.CodeOf(err) != c.code || !strings.Contains(fault.From(err).Message, c.text) {
			t.Errorf("%s: %v", name, err)
		}
		refusals++
	}
	all := r.events()[before:]
	if len(all) != refusals {
		t.Errorf("%d events for %d refusals", len(all), refusals)
	}
	for _, e := range all {
		if changed, ok := e.(event.AllowListChanged); !ok || changed.Change != event.AllowListUploadRefused || len(changed.Digest) != 64 {
			t.Errorf("%+v", e)
		}
	}
	if l, err := r.List(t.Context(), account, "week-47"); err != nil || l.Last != 1 || l.Current != 1 {
		t.Errorf("%+v, %v", l, err)
	}

	// The same bytes under another list's name, where no document says which it is.
	if _, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "lines", Body: csv, Signature: f.plain(csv)}); err != nil {
		t.Fatal(err)
	}
	_, err = r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "others", Body: csv, Signature: f.plain(csv)})
	says(t, err, fault.Conflict, "are revision 1 of list lines already")

	// The right recipient, plain and in armour.
	if _, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "week-47", Body: to(mine)}); err != nil {
		t.Error(err)
	}
	var text bytes.Buffer
	w := armor.NewWriter(&text)
	if _, err := w.Write(slices.Concat(to(mine))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "week-47", Body: text.Bytes()})
	says(t, err, fault.InvalidRequest, "not newer") // it was opened and read
}

// TestKeysHaveTimes: a key signs from its begin to its end, and what it is does not
// change.
func TestKeysHaveTimes(t *testing.T) { onEngines(t, keysHaveTimes) }

func keysHaveTimes(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f := newFactory(t, ES256, "line-1")
	r.acme(f, nil)
	upload := func(list string) error {
		b := []byte("serial\n" + list + "\n")
		_, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: list, Body: b, Signature: f.plain(b)})
		return err
	}
	if err := upload("a"); err != nil {
		t.Fatal(err)
	}
	end := r.now.Add(time.Hour)
	if _, err := r.PutSigningKey(r.as("sam"), account, "acme", SigningKey{ID: "line-1", PublicKey: f.text, Until: end}); err != nil {
		t.Fatal(err)
	}
	r.now = end
	says(t, upload("b"), fault.InvalidRequest, "key line-1 of the supplier is not valid at this time")
	_, err := r.PutSigningKey(r.as("sam"), account, "acme", SigningKey{ID: "line-1", PublicKey: newFactory(t, ES256, "x").text})
	says(t, err, fault.Conflict, "has another key with kid line-1")
	_, err = r.PutSigningKey(r.as("sam"), account, "acme", SigningKey{ID: "k", PublicKey: "none"})
	says(t, err, fault.InvalidRequest, "publicKey: must be one PEM block")
	if _, err := r.PutSupplier(r.as("sam"), account, Supplier{ID: "acme", Status: Suspended}); err != nil {
		t.Fatal(err)
	}
	r.now = end.Add(-time.Minute)
	says(t, upload("c"), fault.InvalidRequest, "supplier acme is SUSPENDED")
}

// TestTwoRoles: who has uploaded a revision can neither accept nor read it, two people
// delete a list, and each reading is on record before it.
func TestTwoRoles(t *testing.T) { onEngines(t, twoRoles) }

func twoRoles(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, nil)
	body := f.seal(written(t, "w", r.now, pump("B7-1")))
	if _, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "w", Body: body}); err != nil {
		t.Fatal(err)
	}
	_, err := r.Accept(r.as("uma"), account, "w", 1, "")
	says(t, err, fault.Forbidden, "you have uploaded revision 1")
	_, err = r.Original(r.as("uma"), account, "w", 1)
	says(t, err, fault.Forbidden, "you have uploaded revision 1")
	if m, err := r.Match(t.Context(), account, Query{Serial: "B7-1"}); err != nil || m.Reason != Unknown {
		t.Errorf("matched before it was accepted: %+v, %v", m, err)
	}
	_, err = r.Reject(r.as("vic"), account, "w", 1, " ")
	says(t, err, fault.InvalidRequest, "note must say why")
	if _, err := r.Accept(r.as("vic"), account, "w", 1, "checked by telephone"); err != nil {
		t.Fatal(err)
	}
	_, err = r.Reject(r.as("vic"), account, "w", 1, "too late")
	says(t, err, fault.Conflict, "is ACCEPTED")

	// Not signed: only where the supplier's may be.
	plain := []byte("serial,vetted\nB7-2,true\n")
	if _, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "u", Body: plain}); err != nil {
		t.Fatal(err)
	}
	_, err = r.Accept(r.as("vic"), account, "u", 1, "")
	says(t, err, fault.InvalidRequest, "is not signed")
	if _, err := r.PutSupplier(r.as("sam"), account, Supplier{ID: "acme", AcceptUnsigned: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Accept(r.as("vic"), account, "u", 1, ""); err != nil {
		t.Error(err)
	}

	// Signed and accepted without a person.
	if _, err := r.PutSupplier(r.as("sam"), account, Supplier{ID: "acme", AcceptSigned: true}); err != nil {
		t.Fatal(err)
	}
	made, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "w", Body: f.seal(written(t, "w", r.now.Add(time.Minute), pump("B7-1"), pump("B7-9")))})
	if err != nil || made.Status != Accepted || made.VettedBy != "signature of key line-1" {
		t.Fatalf("%+v, %v", made, err)
	}
	if old, err := r.Revision(t.Context(), account, "w", 1); err != nil || old.Status != Superseded {
		t.Errorf("%+v, %v", old, err)
	}
	d, err := r.Diff(r.as("rita"), account, "w", 1, 2)
	if err != nil || d.AddedCount != 1 || d.Added[0] != "B7-9/pump-g2" || d.RemovedCount+d.ChangedCount != 0 {
		t.Errorf("%+v, %v", d, err)
	}

	if _, err := r.Delete(r.as("uma"), account, "w"); err != nil {
		t.Fatal(err)
	}
	_, err = r.Delete(r.as("uma"), account, "w")
	says(t, err, fault.Forbidden, "another person agrees")
	if _, err := r.KeepList(r.as("uma"), account, "w"); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"uma", "vic"} {
		if _, err := r.Delete(r.as(who), account, "w"); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := r.Match(t.Context(), account, Query{Serial: "B7-9"}); err != nil || m.Reason != Unknown {
		t.Errorf("matched on a deleted list: %+v, %v", m, err)
	}
	_, err = r.Original(r.as("rita"), account, "w", 2)
	says(t, err, fault.ResourceNotFound, "is gone with its list")
	tombstone, err := r.Revision(t.Context(), account, "w", 2)
	sum := sha256.Sum256(nil)
	if l, again := r.List(t.Context(), account, "w"); err != nil || again != nil || tombstone.Digest == "" || tombstone.Digest == hex.EncodeToString(sum[:]) || l.Deleted.IsZero() || l.ConfirmedBy != "arn:aws:iam::000000000042:user/vic" {
		t.Errorf("%+v, %+v, %v, %v", l, tombstone, err, again)
	}
	_, err = r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "w", Body: f.seal(written(t, "w", r.now.Add(time.Hour), pump("B7-1")))})
	says(t, err, fault.Conflict, "was deleted")

	readings := map[event.AllowListReading]int{}
	for _, e := range r.events() {
		if read, ok := e.(event.AllowListRead); ok {
			readings[read.What]++
		}
	}
	if readings[event.AllowListReadDifference] != 2 || readings[event.AllowListReadOriginal] != 1 {
		t.Errorf("readings on record: %v", readings)
	}
}

// TestTenRevisions: the first original is the same after ten revisions, and the newest
// is what devices are matched against.
func TestTenRevisions(t *testing.T) { onEngines(t, tenRevisions) }

func tenRevisions(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, func(s *Supplier) { s.AcceptSigned = true })
	var bodies [][]byte
	for i := range 10 {
		entries := make([]Entry, 700) // more than one commit
		for j := range entries {
			entries[j] = pump(fmt.Sprintf("B%d-%04d", i, j))
		}
		body := f.seal(written(t, "w", r.now.Add(time.Duration(i)*time.Minute), entries...))
		bodies = append(bodies, body)
		if made, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "w", Body: body}); err != nil || made.Status != Accepted {
			t.Fatalf("%+v, %v", made, err)
		}
	}
	for i, body := range bodies {
		back, err := r.Original(r.as("rita"), account, "w", int64(i+1))
		known, again := r.Revision(t.Context(), account, "w", int64(i+1))
		if sum := sha256.Sum256(body); err != nil || again != nil || !bytes.Equal(back, body) || known.Digest != hex.EncodeToString(sum[:]) {
			t.Errorf("revision %d: %v, %v", i+1, err, again)
		}
		m, err := r.Match(t.Context(), account, Query{Serial: fmt.Sprintf("B%d-0699", i), Fingerprints: []string{print(fmt.Sprintf("B%d-0699", i))}})
		if want := map[bool]Reason{true: Unknown}[i < 9]; err != nil || m.Reason != want {
			t.Errorf("revision %d: %+v, %v", i+1, m, err)
		}
	}
	var seen []int64
	for after := ""; ; {
		page, next, err := r.Revisions(t.Context(), account, "w", after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range page {
			seen = append(seen, one.Number)
		}
		if after = next; after == "" {
			break
		}
	}
	if len(seen) != 10 || seen[9] != 10 {
		t.Errorf("%v", seen)
	}
}

// TestLinks: a link lets one revision in, once, and a list that is refused does not use
// it up.
func TestLinks(t *testing.T) { onEngines(t, testLinks) }

func testLinks(t *testing.T, newRig func(*testing.T) *rig) {
	t.Helper()
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, nil)
	link, err := r.CreateLink(r.as("uma"), account, "acme", "w", time.Hour)
	if err != nil || link.Secret == "" {
		t.Fatalf("%+v, %v", link, err)
	}
	body := f.seal(written(t, "w", r.now, pump("B7-1")))
	_, err = r.UploadBy(t.Context(), account, link.ID, link.Secret+"x", body, "", "")
	says(t, err, fault.Forbidden, "not valid, was used, or is over")
	_, err = r.UploadBy(t.Context(), account, link.ID, link.Secret, append([]byte("x"), body...), "", "")
	says(t, err, fault.InvalidRequest, "list")
	made, err := r.UploadBy(t.Context(), account, link.ID, link.Secret, body, "", "")
	if err != nil || made.Number != 1 || made.Link != link.ID {
		t.Fatalf("%+v, %v", made, err)
	}
	_, err = r.UploadBy(t.Context(), account, link.ID, link.Secret, f.seal(written(t, "w", r.now.Add(time.Hour), pump("B7-2"))), "", "")
	says(t, err, fault.Forbidden, "not valid, was used, or is over")
	// Who has made the link could have used it.
	_, err = r.Accept(r.as("uma"), account, "w", 1, "")
	says(t, err, fault.Forbidden, "you have uploaded")
	if all, _, err := r.Links(t.Context(), account, "", 0); err != nil || len(all) != 1 || all[0].Secret != "" || all[0].Revision != 1 {
		t.Errorf("%+v, %v", all, err)
	}

	old, err := r.CreateLink(r.as("uma"), account, "acme", "w", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(time.Minute)
	_, err = r.CheckLink(t.Context(), account, old.ID, old.Secret)
	says(t, err, fault.Forbidden, "not valid, was used, or is over")
	if err := r.RevokeLink(r.as("uma"), account, old.ID); err != nil {
		t.Error(err)
	}
	says(t, r.RevokeLink(r.as("uma"), account, old.ID), fault.ResourceNotFound, "does not exist")
}
