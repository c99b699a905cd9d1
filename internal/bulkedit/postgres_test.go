package bulkedit

import (
	"strings"
	"testing"
)

// onPostgres tells whether a test runs as a part of TestOnPostgreSQL.
func onPostgres(tb testing.TB) bool {
	tb.Helper()
	return strings.HasPrefix(tb.Name(), "TestOnPostgreSQL/")
}

// strides is the distance between the places that a test tries: a database takes
// longer to make than a folder in memory.
func strides(t *testing.T, least int) int {
	t.Helper()
	if onPostgres(t) {
		return 3 * least
	}
	return least
}

// TestOnPostgreSQL repeats on the other engine the tests that need no virtual time.
func TestOnPostgreSQL(t *testing.T) {
	t.Parallel()
	cluster.Get(t)
	for name, test := range map[string]func(*testing.T){
		"EditChangesWhatMatches":              TestEditChangesWhatMatches,
		"EditIsItsStartersDoing":              TestEditIsItsStartersDoing,
		"PreviewTellsWhatWillBeRefused":       TestPreviewTellsWhatWillBeRefused,
		"StartNeedsThePermissionForEachThing": TestStartNeedsThePermissionForEachThing,
		"EditOfShadows":                       TestEditOfShadows,
		"AKilledEditChangesEachThingOnce":     TestAKilledEditChangesEachThingOnce,
		"AKilledUndoRestoresEachThingOnce":    TestAKilledUndoRestoresEachThingOnce,
		"TwoRunnersChangeEachThingOnce":       TestTwoRunnersChangeEachThingOnce,
		"AFailureStands":                      TestAFailureStands,
		"UnknownEdits":                        TestUnknownEdits,
		"ControlUnderWay":                     TestControlUnderWay,
		"UndoRestoresWhatIsAsTheEditLeftIt":   TestUndoRestoresWhatIsAsTheEditLeftIt,
		"UndoOfADeletionMakesThingsAnew":      TestUndoOfADeletionMakesThingsAnew,
		"DeletionKeepsTheRules":               TestDeletionKeepsTheRules,
		"DecommissionIsTriedAgain":            TestDecommissionIsTriedAgain,
		"UndoNeedsPermissions":                TestUndoNeedsPermissions,
		"DriftIsRepairedByQuery":              TestDriftIsRepairedByQuery,
		"DriftThatChangesIsNotOverwritten":    TestDriftThatChangesIsNotOverwritten,
		"AKilledRepairSettlesEachThingOnce":   TestAKilledRepairSettlesEachThingOnce,
	} {
		t.Run(name, test)
	}
}
