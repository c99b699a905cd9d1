package provisioning

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// A token that is not the requester's opens nothing, and nobody learns why: wrong,
// cut, tampered with, of another account, of another claim.
func TestTokensOfOthers(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	_, err := r.CreateTemplate(t.Context(), otherAccount, CreateTemplateCommand{Name: "pumps", Body: flowBody, Enabled: true, RoleARN: flowRole})
	r.need(err)
	claim, thief := r.claim(), r.claim()
	made, others := r.issued(claim), r.issued(thief)
	raw, err := base64.RawURLEncoding.DecodeString(made.Token)
	r.need(err)
	flip := func(at int) string {
		changed := append([]byte(nil), raw...)
		changed[at] ^= 1
		return base64.RawURLEncoding.EncodeToString(changed)
	}
	swapped, err := base64.RawURLEncoding.DecodeString(others.Token)
	r.need(err)
	copy(swapped, raw[:idSize])
	abroad := claim
	abroad.Account = otherAccount
	user := claim
	user.Principal = fleet.Principal{Kind: fleet.PrincipalUser, ID: "kim"}
	nobody := claim
	nobody.Principal = fleet.Principal{}
	for name, c := range map[string]struct {
		who   Requester
		token string
	}{
		"empty":                       {claim, ""},
		"one letter":                  {claim, "x"},
		"cut":                         {claim, made.Token[:len(made.Token)-1]},
		"with a tail":                 {claim, made.Token + "A"},
		"with padding":                {claim, made.Token + "=="},
		"with a space":                {claim, made.Token + " "},
		"huge":                        {claim, strings.Repeat(made.Token, 1000)},
		"no letters of base64":        {claim, strings.Repeat("!", len(made.Token))},
		"other letters for the same":  {claim, made.Token[:len(made.Token)-1] + string(made.Token[len(made.Token)-1]+1)},
		"another secret":              {claim, flip(len(raw) - 1)},
		"another secret in front":     {claim, flip(idSize)},
		"another certificate":         {claim, flip(0)},
		"the secret of another one":   {claim, base64.RawURLEncoding.EncodeToString(swapped)},
		"the token of another claim":  {claim, others.Token},
		"by another claim":            {thief, made.Token},
		"by the same claim elsewhere": {abroad, made.Token},
		"by a user":                   {user, made.Token},
		"by nobody":                   {nobody, made.Token},
	} {
		_, err := r.join(c.who, c.token, "1")
		if !errors.Is(err, ErrToken) || fault.From(err).Message != "Certificate ownership token is not valid" {
			t.Errorf("%s: %v", name, err)
		}
		r.untouched(made.CertificateID, "pump-1")
	}
	_, err = r.join(claim, made.Token, "1")
	r.need(err)
	r.joined("pump-1", "leeds", made.CertificateID)
}

// Replay. Outcome: the same claim may use its token over another connection, with
// another client id and address, as a device does that has lost its first one; a
// second use is refused, whoever tries and with whatever parameters.
func TestTokenFromAnotherConnectionAndTwice(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	claim.RemoteAddr = "192.0.2.1:1000"
	made := r.issued(claim)
	again := claim
	again.ClientID, again.RemoteAddr = "fac-2", "192.0.2.9:2000"
	r.boot()
	_, err := r.join(again, made.Token, "1")
	r.need(err)
	r.joined("pump-1", "leeds", made.CertificateID)
	device := again
	device.Principal.ID = made.CertificateID
	for name, who := range map[string]Requester{"the first connection": claim, "the second": again, "the device itself": device} {
		for _, serial := range []string{"1", "2"} {
			if _, err := r.join(who, made.Token, serial); !errors.Is(err, ErrToken) {
				t.Errorf("%s with serial %s: %v", name, serial, err)
			}
		}
	}
	if exists, err := r.registry.ThingExists(t.Context(), flowAccount, "pump-2"); err != nil || exists {
		t.Errorf("a second thing exists: %v, %v", exists, err)
	}
}

// A token after an hour. Outcome: it is good to the last millisecond and not
// longer; the certificate is deleted at the next sweep, not before, and one that
// was used stays.
func TestTokenAfterAnHour(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	used, last, late := r.issued(claim), r.issued(claim), r.issued(claim)
	_, err := r.join(claim, used.Token, "1")
	r.need(err)
	r.pass(TokenLife - time.Millisecond)
	if n := r.sweep(); n != 0 {
		t.Errorf("%d certificates were deleted too early", n)
	}
	_, err = r.join(claim, last.Token, "2")
	r.need(err)
	r.pass(time.Millisecond)
	_, err = r.join(claim, late.Token, "3")
	if !errors.Is(err, ErrToken) {
		t.Errorf("after an hour: %v", err)
	}
	r.untouched(late.CertificateID, "pump-3")
	if n := r.sweep(); n != 1 || !r.gone(late.CertificateID) {
		t.Errorf("%d certificates were deleted; the late one is gone: %v", n, r.gone(late.CertificateID))
	}
	_, err = r.join(claim, late.Token, "3")
	if !errors.Is(err, ErrToken) {
		t.Errorf("after the sweep: %v", err)
	}
	r.joined("pump-1", "leeds", used.CertificateID)
	r.joined("pump-2", "leeds", last.CertificateID)
	if n := r.sweep(); n != 0 {
		t.Errorf("%d certificates were deleted in a second sweep", n)
	}
}

// The server's clock steps between create and provision. Outcome: a step back
// leaves the token good until the hour that was told is over by the clock as it
// goes; a step forward beyond the hour ends it, and the device asks again.
func TestClockStepsBetweenCreateAndProvision(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{ClaimRate: 10, ClaimOutstanding: 10})
	r.template("pumps", flowBody)
	claim := r.claim()
	made, slow := r.issued(claim), r.issued(claim)
	r.pass(-30 * time.Minute)
	if n := r.sweep(); n != 0 {
		t.Errorf("%d certificates were deleted", n)
	}
	_, err := r.join(claim, made.Token, "1")
	r.need(err)
	r.joined("pump-1", "leeds", made.CertificateID)
	r.pass(TokenLife + 30*time.Minute)
	_, err = r.join(claim, slow.Token, "2")
	if !errors.Is(err, ErrToken) {
		t.Errorf("after the hour: %v", err)
	}
	if n := r.sweep(); n != 1 {
		t.Errorf("%d certificates were deleted, want 1", n)
	}
	made = r.issued(claim)
	r.pass(24 * time.Hour)
	_, err = r.join(claim, made.Token, "3")
	if !errors.Is(err, ErrToken) {
		t.Errorf("after a step of a day: %v", err)
	}
	made = r.issued(claim)
	_, err = r.join(claim, made.Token, "3")
	r.need(err)
	r.joined("pump-3", "leeds", made.CertificateID)
}

// A certificate that was looked after meanwhile is no device's any more: activated,
// revoked or deleted by the operator.
func TestTokenOfACertificateThatTheOperatorHasTaken(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	for i, status := range []string{registry.StatusActive, registry.StatusInactive, registry.StatusRevoked, ""} {
		made := r.issued(claim)
		if status != "" {
			r.need(r.registry.UpdateCertificate(t.Context(), flowAccount, made.CertificateID, status))
		} else {
			r.need(r.registry.DeleteCertificate(t.Context(), flowAccount, made.CertificateID, false))
		}
		_, err := r.join(claim, made.Token, fmt.Sprint(i))
		if !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", status, err)
		}
		if status != "" && r.status(made.CertificateID) != status {
			t.Errorf("%s: the certificate is %s", status, r.status(made.CertificateID))
		}
		r.pass(TokenLife)
		if n := r.sweep(); n != 0 {
			t.Errorf("%s: %d certificates were deleted that the operator has taken", status, n)
		}
	}
}

// The claim of a trusted user is for one template and five minutes (§3.5), and can
// do nothing else.
func TestClaimOfATrustedUser(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	r.template("lamps", flowBody)
	r.template("off", flowBody, func(c *CreateTemplateCommand) { c.Enabled = false })
	_, err := r.CreateClaim(t.Context(), flowAccount, "off")
	wantCode(t, err, fault.InvalidRequest)
	_, err = r.CreateClaim(t.Context(), flowAccount, "none")
	wantCode(t, err, fault.ResourceNotFound)
	claim, err := r.CreateClaim(t.Context(), flowAccount, "pumps")
	r.need(err)
	if !claim.Expires.Equal(r.now().Add(5 * time.Minute)) {
		t.Errorf("the claim ends %v", claim.Expires)
	}
	who := Requester{Account: flowAccount, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: claim.CertificateID}, ClientID: "phone"}
	made := r.issued(who)
	_, err = r.Provision(t.Context(), who, ProvisionCommand{Template: "lamps", Token: made.Token, Parameters: map[string]string{"SerialNumber": "1"}})
	wantCode(t, err, fault.Forbidden)
	r.untouched(made.CertificateID, "pump-1")
	_, err = r.join(who, made.Token, "1")
	r.need(err)
	r.joined("pump-1", "leeds", made.CertificateID)
	// A token cannot make a device of the claim itself.
	made = r.issued(who)
	_, err = r.RegisterThing(t.Context(), flowAccount, RegisterCommand{
		Body: `{"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":"` + claim.CertificateID + `"}}}}`,
	})
	wantCode(t, err, fault.RegistrationFailure)
	// When its time is over nothing more is possible.
	r.pass(ClaimLife)
	r.sweep()
	_, err = r.join(who, made.Token, "2")
	wantCode(t, err, fault.Forbidden)
	r.untouched(made.CertificateID, "pump-2")
}

// A claim that was revoked or deactivated lets nobody in any more, also over the
// connection that has not ended yet; who has joined by it stays.
func TestRevokedClaim(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	for i, status := range []string{registry.StatusRevoked, registry.StatusInactive} {
		claim := r.claim()
		in, out := r.issued(claim), r.issued(claim)
		_, err := r.join(claim, in.Token, fmt.Sprintf("in-%d", i))
		r.need(err)
		r.need(r.registry.UpdateCertificate(t.Context(), flowAccount, claim.Principal.ID, status))
		_, err = r.join(claim, out.Token, fmt.Sprintf("out-%d", i))
		wantCode(t, err, fault.Forbidden)
		r.untouched(out.CertificateID, fmt.Sprintf("pump-out-%d", i))
		r.joined(fmt.Sprintf("pump-in-%d", i), "leeds", in.CertificateID)
	}
}

// §6.3: so many certificates of one claim a minute; other claims have their own.
func TestClaimRate(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{ClaimRate: 10})
	claim, other := r.claim(), r.claim()
	for range 10 {
		r.issued(claim)
	}
	_, err := r.CreateKeys(t.Context(), claim)
	wantCode(t, err, fault.Throttling)
	_, err = r.CreateFromCSR(t.Context(), claim, "x")
	wantCode(t, err, fault.Throttling)
	r.issued(other)
	r.pass(time.Minute)
	r.issued(claim)
}

// §6.3: so many certificates of one claim may wait; whoever joins makes room, and
// so does the end of the hour. A restart forgets nothing.
func TestClaimOutstanding(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{ClaimOutstanding: 5})
	r.template("pumps", flowBody)
	claim, other := r.claim(), r.claim()
	var made []Issued
	for range 5 {
		made = append(made, r.issued(claim))
	}
	full := func(when string) {
		t.Helper()
		for range 3 {
			if _, err := r.CreateKeys(t.Context(), claim); fault.CodeOf(err) != fault.Throttling {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	full("at once")
	r.issued(other)
	r.boot()
	full("after a restart")
	_, err := r.join(claim, made[0].Token, "1")
	r.need(err)
	r.issued(claim)
	full("after one has joined")
	r.pass(TokenLife)
	r.sweep()
	for range 5 {
		r.issued(claim)
	}
	full("an hour later")
	// What fails takes no place for good.
	r.pass(TokenLife)
	r.sweep()
	for range 20 {
		if _, err := r.CreateFromCSR(t.Context(), claim, "x"); fault.CodeOf(err) != fault.InvalidRequest {
			t.Fatal(err)
		}
	}
	for range 5 {
		r.issued(claim)
	}
	full("after failures")
}

// Many devices of one claim ask at the same moment: no more get a certificate than
// may wait, however they interleave.
func TestClaimOutstandingUnderARush(t *testing.T) {
	t.Parallel()
	for range 10 {
		r := newFlowRig(t, Limits{ClaimOutstanding: 10})
		claim := r.claim()
		var mu sync.Mutex
		made := 0
		var together sync.WaitGroup
		for range 64 {
			together.Go(func() {
				_, err := r.CreateKeys(t.Context(), claim)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					made++
				case fault.CodeOf(err) != fault.Throttling:
					t.Error(err)
				}
			})
		}
		together.Wait()
		waiting, err := r.registry.CountPending(t.Context(), flowAccount, claim.Principal.ID, 100)
		r.need(err)
		if waiting > 10 || waiting != made {
			t.Fatalf("%d certificates wait, %d were made, 10 are allowed", waiting, made)
		}
	}
}
