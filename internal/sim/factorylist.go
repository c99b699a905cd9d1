package sim

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
)

// filled puts the run's name into a text.
func (f *Factory) filled(text string) string { return strings.ReplaceAll(text, "RUN", f.o.Run) }

// keyPrint is the fingerprint of a device's key.
func keyPrint(keyPEM []byte) (string, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return "", errors.New("no key")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// shiftDay is when the devices were made.
func shiftDay() string { return time.Now().UTC().Format(time.DateOnly) }

// announce tells the plan which devices are coming.
func (f *Factory) announce(ctx context.Context) error {
	return each(ctx, f, "announce", f.devices, func(ctx context.Context, d *made) error {
		_, err := f.o.API.ExpectDevice(ctx, d.serial, f.name("plan"), map[string]string{
			"uniqueId": d.serial, "manufacturer": f.name("works"), "modelNumber": d.model, "manufacturingDate": shiftDay(),
		})
		return err //nolint:wrapcheck // the server's own words
	})
}

// listedEntry is a line of the list.
type listedEntry struct {
	Serial         string `json:"serial"`
	Model          string `json:"model"`
	Fingerprint    string `json:"spkiSha256,omitempty"`
	ManufacturedAt string `json:"manufacturedAt"`
	Batch          string `json:"batch"`
	Vetted         bool   `json:"vetted"`
	VetReport      string `json:"vetReport"`
}

// list signs what was made, hands it over and lets somebody else accept it; then devices
// of the template need it, and some of them people too.
func (f *Factory) list(ctx context.Context) error {
	f.plot()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make the line's key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("encode the line's key: %w", err)
	}
	works, list, kid := f.name("works"), f.name("shift"), f.name("line-1")
	if _, err := f.o.API.PutSupplier(ctx, works, apiclient.Supplier{Name: "Simulated works", Templates: []string{f.name("pumps")}}); err != nil {
		return fmt.Errorf("register the supplier: %w", err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if _, err := f.o.API.PutSupplierKey(ctx, works, apiclient.SupplierKey{ID: kid, PublicKey: text}); err != nil {
		return fmt.Errorf("register the line's key: %w", err)
	}
	body, err := f.sign(private, list, kid)
	if err != nil {
		return err
	}
	made, err := f.people.uploader.UploadAllowList(ctx, apiclient.AllowListUpload{Supplier: works, List: list, Name: "Devices of a simulated shift", Body: body})
	if err != nil {
		return fmt.Errorf("upload the list: %w", err)
	}
	if _, err := f.people.vetter.VetAllowList(ctx, list, made.Number, "accept", "compared with the counter of the line"); err != nil {
		return fmt.Errorf("accept the list: %w", err)
	}
	for _, r := range f.rogues {
		if r.kind != stolen {
			continue
		}
		if _, err := f.people.vetter.SetAllowListEntry(ctx, apiclient.ListedDevice{Serial: r.serial}, "BLOCKED", "stolen on the way"); err != nil {
			return fmt.Errorf("block what was stolen: %w", err)
		}
	}
	for name, a := range map[string]apiclient.ApprovalAuthority{
		works: {Kind: "SUPPLIER", Supplier: works}, f.name("leads"): {Kind: "USER_GROUP", Group: f.name("leads")},
	} {
		if _, err := f.o.API.PutApprovalAuthority(ctx, name, a); err != nil {
			return fmt.Errorf("make authority %s: %w", name, err)
		}
	}
	_, err = f.o.API.PutApprovalBinding(ctx, f.name("pumps"), apiclient.ApprovalBinding{
		Rule: "ALL_OF", Authorities: []string{works, f.name("leads")}, AutoApproveIf: "parameters.Inspect:no",
	})
	if err != nil {
		return fmt.Errorf("bind the template: %w", err)
	}
	return nil
}

// sign writes the list as a compact JWS. It has the devices, and what was stolen of them.
func (f *Factory) sign(key ed25519.PrivateKey, list, kid string) ([]byte, error) {
	entries := make([]listedEntry, 0, len(f.devices))
	for _, d := range f.devices {
		e := listedEntry{Serial: d.serial, Model: d.model, ManufacturedAt: shiftDay(), Batch: f.name("1"), Vetted: true, VetReport: "qa/" + d.serial}
		if d.listed {
			e.Fingerprint = d.print
		}
		entries = append(entries, e)
	}
	for _, r := range f.rogues {
		if r.kind == stolen {
			entries = append(entries, listedEntry{Serial: r.serial, Model: "P-100", ManufacturedAt: shiftDay(), Batch: f.name("1"), Vetted: true})
		}
	}
	payload, err := json.Marshal(map[string]any{"v": 1, "list": list, "issuedAt": time.Now().UTC().Format(time.RFC3339), "entries": entries})
	if err != nil {
		return nil, fmt.Errorf("write the list: %w", err)
	}
	header, err := json.Marshal(map[string]string{"alg": "EdDSA", "kid": kid})
	if err != nil {
		return nil, fmt.Errorf("write the list: %w", err)
	}
	message := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return []byte(message + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(message)))), nil
}
