package sdk

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/testkit"
)

// TestStorageOutOfReach stops the database under a server: every operation that
// needs it says so in the way that its model has for that, soon, and all goes on
// when the database is back.
func TestStorageOutOfReach(t *testing.T) {
	t.Parallel()
	database := testkit.StartPostgres(t)
	h := newNeighbourhood(t, "--store", database.Database(t))
	n := h.settle("alphasecret")
	n.enlist()
	n.build()
	operations, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for _, op := range operations.Operations(catalog.IoT) {
		documented[op.Name] = op.Errors
	}
	database.StopAtOnce(t)
	for _, a := range acts(t, n, n.secret) {
		errs, known := documented[a.op]
		if !known {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, _, err := n.do(ctx, a)
		cancel()
		want := "InternalFailureException"
		if slices.Contains(errs, "ServiceUnavailableException") {
			want = "ServiceUnavailableException"
		}
		if code(err) != want || !strings.Contains(err.Error(), "storage cannot be reached") {
			t.Errorf("%s: got %v, want %s", a.op, err, want)
		}
	}
	if _, err := h.api.CreateAccount(t.Context(), "", "Another", ""); !apiclient.Is(err, "ServiceUnavailable") {
		t.Errorf("create an account: %v", err)
	}
	database.Start(t)
	testkit.Poll(t, 20*time.Second, "the server goes on", func() error {
		_, err := n.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("afterwards")})
		return err
	})
}
