package deviceauth_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// A certificate that other accounts may have too must come by a name.
func TestSNIOnlyNeedsAName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)
	s, err := deviceauth.New(deviceauth.Options{
		Registry: w.fleetFake, Region: region, Account: func(string) (fleet.Account, error) { return account, nil },
		Named:      func(name string) bool { return name == "ours" },
		Disconnect: func(fleet.Account, string) {}, Now: func() time.Time { return start }, Logger: slog.New(slog.NewJSONHandler(w.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		sniOnly bool
		ok      bool
	}{{"ours", true, true}, {"ours", false, true}, {"", false, true}, {"", true, false}, {"other", true, false}} {
		w.certificates[w.id] = deviceauth.Certificate{ID: w.id, ARN: w.arn, Status: "ACTIVE", SNIOnly: c.sniOnly}
		_, err := s.Identify(t.Context(), c.name, w.certificate)
		if (err == nil) != c.ok || err != nil && fault.CodeOf(err) != fault.Unauthorized {
			t.Errorf("%+v: %v", c, err)
		}
		a, err := s.Admit(t.Context(), deviceauth.Request{Certificate: w.certificate, ServerName: c.name, ClientID: "x"})
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			a.Guard.Close()
		}
	}
	told := s.ClientRefusals(account, "x").Refusals
	if len(told) != 1 || told[0].Count != 2 || !strings.Contains(told[0].Reason, "endpoint name of its account") || len(told[0].Fixes) == 0 {
		t.Errorf("told %+v", told)
	}
}
