package certprovider

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// security-provisioning §3.5.
func TestProviderSigns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, key := r.authority("Plant CA"), newKey(t)
	r.register(account, ca)
	csr, answer := request(t, key), ca.issue(r.now, &key.PublicKey)
	r.functions.sign = says(answer)

	// Without a provider our own authority signs, and no function is asked.
	_, _, signed, err := r.Sign(t.Context(), device(account), csr)
	if err != nil || signed {
		t.Fatal(signed, err)
	}
	if _, err := r.joining.CreateFromCSR(t.Context(), device(account), csr); !errors.Is(err, errOwn) {
		t.Errorf("without a provider: %v", err)
	}
	r.create()
	got, id, signed, err := r.Sign(t.Context(), device(account), csr)
	if err != nil || !signed || got != answer || id != ca.id() {
		t.Fatal(got, id, signed, err)
	}
	var told map[string]string
	if err := json.Unmarshal([]byte(r.functions.inputs[0]), &told); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, told, map[string]string{"certificateSigningRequest": csr, "principalId": "c1a1", "clientId": "fac-1"})

	// What devices get waits under the authority, as any certificate of theirs.
	issued, err := r.joining.CreateFromCSR(t.Context(), device(account), csr)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := r.registry.DescribeCertificate(t.Context(), account, issued.CertificateID)
	if err != nil || issued.Token == "" {
		t.Fatal(issued, err)
	}
	wantEqual(t, []string{kept.PEM, kept.CA, kept.Status, kept.Mode}, []string{answer, ca.id(), registry.StatusPendingActivation, registry.ModeSNIOnly})

	// A certificate goes to one device.
	_, err = r.joining.CreateFromCSR(t.Context(), device(account), csr)
	wantCode(t, err, fault.ResourceAlreadyExists)

	// The other account has none, and its devices are not signed for by this one.
	if _, _, signed, err := r.Sign(t.Context(), device(neighbour), csr); err != nil || signed {
		t.Error(signed, err)
	}
	wantEqual(t, r.outcomes(), map[string]float64{"signed": 3})

	// The function that counts is that of the moment.
	if _, err := r.Update(t.Context(), account, UpdateCommand{Name: "own,ca", FunctionARN: new(otherARN)}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := r.Sign(t.Context(), device(account), csr); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, r.functions.names, []string{"sign", "sign", "sign", "other"})
	if err := r.Delete(t.Context(), account, "own,ca"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.joining.CreateFromCSR(t.Context(), device(account), csr); !errors.Is(err, errOwn) {
		t.Errorf("after the provider: %v", err)
	}
}

// Whatever is wrong with an answer, the device is refused, is told of what kind
// it was, and nothing is registered.
func TestWrongAnswersRefuseTheDevice(t *testing.T) {
	t.Parallel()
	now := newRig(t).now
	type world struct {
		ca, foreign, neighbours, asleep *testCA
		mine, another                   *x509.Certificate
	}
	edited := func(edit func(*x509.Certificate)) func(*rig, *world) string {
		return func(_ *rig, w *world) string { return w.ca.issue(now, w.mine.PublicKey, edit) }
	}
	for name, c := range map[string]struct {
		answer  func(*rig, *world) string
		sign    func(context.Context, []byte) ([]byte, error)
		code    fault.Code
		says    string
		outcome string
	}{
		"hangs":          {sign: fails(errLate), says: "did not answer in time", outcome: "timeout"},
		"dies":           {sign: fails(errors.New("exit status 1")), says: "gave no answer", outcome: "failed"},
		"busy":           {sign: fails(errBusy), code: fault.Throttling, says: "is busy", outcome: "busy"},
		"nothing":        {sign: raw(""), says: "no JSON object", outcome: "unfit"},
		"no JSON":        {sign: raw("-----BEGIN CERTIFICATE-----"), says: "no JSON object", outcome: "unfit"},
		"list":           {sign: raw("[]"), says: "no JSON object", outcome: "unfit"},
		"null":           {sign: raw("null"), says: "gave no certificate", outcome: "unfit"},
		"no member":      {sign: raw(`{"certificate":"x"}`), says: "gave no certificate", outcome: "unfit"},
		"number":         {sign: raw(`{"certificatePem":7}`), says: "no JSON object", outcome: "unfit"},
		"garbage":        {sign: says("hello"), says: "no PEM block of type CERTIFICATE", outcome: "unfit"},
		"garbage inside": {sign: says("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), says: "no valid X.509", outcome: "unfit"},
		"oversize":       {sign: says(strings.Repeat("x", 65537)), says: "at most 65536", outcome: "unfit"},
		"another key":    {answer: func(_ *rig, w *world) string { return w.ca.issue(now, w.another.PublicKey) }, says: "not for the key of the request", outcome: "unfit"},
		"foreign CA":     {answer: func(_ *rig, w *world) string { return w.foreign.issue(now, w.mine.PublicKey) }, says: "no registered CA certificate", outcome: "unfit"},
		"neighbour's CA": {answer: func(_ *rig, w *world) string { return w.neighbours.issue(now, w.mine.PublicKey) }, says: "no registered CA certificate", outcome: "unfit"},
		"inactive CA":    {answer: func(_ *rig, w *world) string { return w.asleep.issue(now, w.mine.PublicKey) }, says: "is INACTIVE", outcome: "unfit"},
		"false signature": {answer: func(r *rig, w *world) string {
			claimed := *w.ca.cert
			claimed.PublicKey = &w.foreign.key.PublicKey
			return (&testCA{t: r.t, key: w.foreign.key, cert: &claimed}).issue(now, w.mine.PublicKey)
		}, says: "no registered CA certificate", outcome: "unfit"},
		"intermediate": {answer: func(r *rig, w *world) string {
			key := newKey(r.t)
			template := *w.foreign.cert
			template.SerialNumber = w.mine.SerialNumber
			between, _ := certify(r.t, &template, w.ca.cert, &key.PublicKey, w.ca.key)
			return (&testCA{t: r.t, key: key, cert: between}).issue(now, w.mine.PublicKey)
		}, says: "no registered CA certificate", outcome: "unfit"},
		"chain":     {answer: func(_ *rig, w *world) string { return w.ca.issue(now, w.mine.PublicKey) + w.ca.pem }, says: "must hold one certificate", outcome: "unfit"},
		"expired":   {answer: edited(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-time.Hour), now }), says: "expired on", outcome: "unfit"},
		"not yet":   {answer: edited(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }), says: "not valid before", outcome: "unfit"},
		"authority": {answer: edited(func(c *x509.Certificate) { c.IsCA = true }), says: "of an authority", outcome: "unfit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.create()
			w := &world{ca: r.authority("Plant CA"), foreign: r.authority("Foreign"), neighbours: r.authority("Neighbour"), asleep: r.authority("Asleep")}
			r.register(account, w.ca)
			r.register(account, w.asleep)
			r.register(neighbour, w.neighbours)
			err := r.registry.UpdateCACertificate(t.Context(), account, registry.UpdateCACommand{ID: w.asleep.id(), Status: registry.StatusInactive})
			if err != nil {
				t.Fatal(err)
			}
			key, another := newKey(t), newKey(t)
			w.mine, w.another = &x509.Certificate{PublicKey: &key.PublicKey, SerialNumber: w.ca.cert.SerialNumber}, &x509.Certificate{PublicKey: &another.PublicKey}
			if r.functions.sign = c.sign; c.sign == nil {
				r.functions.sign = says(c.answer(r, w))
			}
			if c.code == "" {
				c.code = fault.Unavailable
			}
			_, err = r.joining.CreateFromCSR(t.Context(), device(account), request(t, key))
			wantCode(t, err, c.code)
			if message := fault.From(err).Message; !strings.Contains(message, c.says) || strings.Contains(message, "exit status") {
				t.Errorf("the device is told %q, want %q", message, c.says)
			}
			if text := err.Error(); !strings.Contains(text, "certificate provider own,ca of account 000000000001") {
				t.Errorf("the log has %q", text)
			}
			wantEqual(t, r.outcomes(), map[string]float64{c.outcome: 1})
			left, err := r.registry.ListCertificates(t.Context(), account, true, registry.Page{})
			if err != nil || len(left.Items) != 0 {
				t.Errorf("kept %v, %v", left.Items, err)
			}
		})
	}
}

// A request that nobody may sign costs no invocation.
func TestBadRequestsAreNotPassedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create()
	good := request(t, newKey(t))
	for name, csr := range map[string]string{
		"empty": "", "long": strings.Repeat("x", 4097), "text": "hello",
		"bent": strings.Replace(good, "\n", "\nAAAA", 1), "kind": strings.ReplaceAll(good, "CERTIFICATE REQUEST", "CERTIFICATE"),
	} {
		_, _, signed, err := r.Sign(t.Context(), device(account), csr)
		if fault.CodeOf(err) != fault.InvalidRequest || signed {
			t.Errorf("%s: %v, %v", name, signed, err)
		}
	}
	if n := r.functions.asked(); n != 0 {
		t.Errorf("%d invocations", n)
	}
}

// A provider whose function left the configuration, or whose record cannot be
// read, does not hand its account back to our own authority.
func TestNobodySignsInPlaceOfAProvider(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	csr := request(t, newKey(t))
	for _, value := range []string{`{"v":1,"name":"p","function":"arn:aws:lambda:us-east-1:1:function:sign"}`, `{"v":2}`, `{`} {
		_, err := r.engine.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: providerKey(account), Value: []byte(value)}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.joining.CreateFromCSR(t.Context(), device(account), csr); err == nil || errors.Is(err, errOwn) {
			t.Errorf("%s: %v", value, err)
		}
	}
}
