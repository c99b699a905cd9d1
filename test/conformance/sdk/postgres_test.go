package sdk

import (
	"testing"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestOnPostgreSQL repeats what operators do on servers that keep their state
// in a database: whole flows, each on a database of its own.
func TestOnPostgreSQL(t *testing.T) {
	t.Parallel()
	cluster := testkit.StartPostgres(t)
	for name, check := range map[string]func(*testing.T, ...string){
		"Answers":            checkAnswers, // billing groups, tags, transfers and all else that is called
		"AuditTrail":         checkAuditTrail,
		"ClosedAccount":      checkClosedAccount,
		"Decommission":       checkDecommission,
		"KilledDecommission": checkKilledDecommission,
		"RevocationList":     checkRevocationList,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, "--store", cluster.Database(t))
		})
	}
}
