package registry

import (
	"strings"
	"testing"
)

// onPostgres tells whether a test runs as a part of TestOnPostgreSQL.
func onPostgres(t *testing.T) bool {
	t.Helper()
	return strings.HasPrefix(t.Name(), "TestOnPostgreSQL/")
}

// rounds is how often a race is run: a database takes longer to make than a
// folder in memory.
func rounds(t *testing.T, most int) int {
	t.Helper()
	if onPostgres(t) {
		return most / 10
	}
	return most
}

// TestOnPostgreSQL repeats tests on the other engine: those of records with
// several rows each, of scans that go on where a page ended and of races.
func TestOnPostgreSQL(t *testing.T) {
	t.Parallel()
	cluster.Get(t)
	for name, test := range map[string]func(*testing.T){
		"IndexingConfiguration":                TestIndexingConfiguration,
		"RaceToIndexOffOrGroup":                TestRaceToIndexOffOrGroup,
		"RaceToSourceOffOrQuery":               TestRaceToSourceOffOrQuery,
		"CreateBillingGroup":                   TestCreateBillingGroup,
		"UpdateBillingGroup":                   TestUpdateBillingGroup,
		"ThingsOfBillingGroups":                TestThingsOfBillingGroups,
		"ListBillingGroups":                    TestListBillingGroups,
		"DeleteBillingGroup":                   TestDeleteBillingGroup,
		"RaceForABillingGroup":                 TestRaceForABillingGroup,
		"TagsOfTheRegistry":                    TestTagsOfTheRegistry,
		"TransferAndAccept":                    TestTransferAndAccept,
		"RejectAndCancel":                      TestRejectAndCancel,
		"TransferRefuses":                      TestTransferRefuses,
		"PendingTransferTakesNothing":          TestPendingTransferTakesNothing,
		"TransferIsEndedOnce":                  TestTransferIsEndedOnce,
		"ImportRevocationList":                 TestImportRevocationList,
		"ImportRefuses":                        TestImportRefuses,
		"ImportGoesOn":                         TestImportGoesOn,
		"ImportAgainstRegistrations":           TestImportAgainstRegistrations,
		"ImportEndsATransfer":                  TestImportEndsATransfer,
		"ListOutlivesItsAuthority":             TestListOutlivesItsAuthority,
		"EachRevoked":                          TestEachRevoked,
		"ListExpiring":                         TestListExpiring,
		"ImportCreates":                        TestImportCreates,
		"ImportUpserts":                        TestImportUpserts,
		"ImportBillingGroups":                  TestImportBillingGroups,
		"ImportFollowsAttributeRules":          TestImportFollowsAttributeRules,
		"ImportLastOfANameWins":                TestImportLastOfANameWins,
		"ImportDryRun":                         TestImportDryRun,
		"ImportSeesTheTypeChange":              TestImportSeesTheTypeChange,
		"ImportCommitFails":                    TestImportCommitFails,
		"ImportTooMany":                        TestImportTooMany,
		"RaceOfImports":                        TestRaceOfImports,
		"Decommission":                         TestDecommission,
		"DecommissionKeepsCertificates":        TestDecommissionKeepsCertificates,
		"PastThings":                           TestPastThings,
		"DecommissionRefuses":                  TestDecommissionRefuses,
		"DecommissionFailsWhole":               TestDecommissionFailsWhole,
		"DecommissionRaces":                    TestDecommissionRaces,
		"AttributeRulesAreChecked":             TestAttributeRulesAreChecked,
		"AttributeRulesAreEnforced":            TestAttributeRulesAreEnforced,
		"CheckAttributeRules":                  TestCheckAttributeRules,
		"RulesRaceWithCreation":                TestRulesRaceWithCreation,
		"RegistrationCode":                     TestRegistrationCode,
		"RegisterCACertificate":                TestRegisterCACertificate,
		"RegisterCACertificateRefuses":         TestRegisterCACertificateRefuses,
		"TenCAsWithOneSubject":                 TestTenCAsWithOneSubject,
		"OneAccountHasACAInModeDefault":        TestOneAccountHasACAInModeDefault,
		"UpdateCACertificate":                  TestUpdateCACertificate,
		"DeleteCACertificate":                  TestDeleteCACertificate,
		"ListCACertificates":                   TestListCACertificates,
		"RegisterCertificate":                  TestRegisterCertificate,
		"RegisterCertificateRefuses":           TestRegisterCertificateRefuses,
		"ExpiredAuthorityTakesNoCertificates":  TestExpiredAuthorityTakesNoCertificates,
		"RegisterCertificateUnderOneOfSeveral": TestRegisterCertificateUnderOneOfSeveral,
		"ListCertificatesByCA":                 TestListCertificatesByCA,
		"CertificatesOfABirthAuthority":        TestCertificatesOfABirthAuthority,
		"MarkedCertificates":                   TestMarkedCertificates,
		"Quarantine":                           TestQuarantine,
		"QuarantineOfAThingThatGoes":           TestQuarantineOfAThingThatGoes,
		"QuarantineBatch":                      TestQuarantineBatch,
	} {
		t.Run(name, test)
	}
}
