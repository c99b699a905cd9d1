package app

import "testing"

// TestOnPostgreSQL repeats, on servers with the other engine, the tests of what
// spans several parts: ends of devices and certificates, imports, the trail.
func TestOnPostgreSQL(t *testing.T) {
	t.Parallel()
	cluster.Get(t)
	for name, test := range map[string]func(*testing.T){
		"AttributeRulesOverTheAPI":       TestAttributeRulesOverTheAPI,
		"AuditLists":                     TestAuditLists,
		"BootstrapIntoAnotherAccount":    TestBootstrapIntoAnotherAccount,
		"BootstrapGuests":                TestBootstrapGuests,
		"BootstrapTellsOfApprovals":      TestBootstrapTellsOfApprovals,
		"CertificateRenewal":             TestCertificateRenewal,
		"CertificateRenewalOverRestart":  TestCertificateRenewalOverRestart,
		"ConnectivityOfDevices":          TestConnectivityOfDevices,
		"ConnectivityAfterARestart":      TestConnectivityAfterARestart,
		"DataEventsAreRecorded":          TestDataEventsAreRecordedWhenAskedFor,
		"DecommissionOfADevice":          TestDecommissionOfADevice,
		"DecommissionThatKeeps":          TestDecommissionThatKeepsCertificates,
		"DevicesOfAnAuthority":           TestDevicesOfAnAuthority,
		"EveryKindOfCallIsRecorded":      TestEveryKindOfCallIsRecorded,
		"ImportedListEndsConnections":    TestImportedListEndsConnections,
		"OwnRevocationList":              TestOwnRevocationList,
		"PendingTransferConnectsNobody":  TestPendingTransferConnectsNobody,
		"ShadowsWithDeletedThings":       TestShadowsWithDeletedThings,
		"StartAndSettingsAreRecorded":    TestStartAndSettingsAreRecorded,
		"StrangersAreRecordedAndBounded": TestStrangersAreRecordedAndBounded,
		"FollowerDoesNotHoldUpTheStop":   TestFollowerDoesNotHoldUpTheStop,
		"DoctorFindsAFalsifiedIndex":     TestDoctorFindsAFalsifiedIndex,
		"DoctorHealsConnectivity":        TestDoctorHealsConnectivity,
		"DoctorHealsHistories":           TestDoctorHealsHistories,
		"DoctorHealsMemberships":         TestDoctorHealsMemberships,
		"DoctorHealsRows":                TestDoctorHealsRows,
		"DoctorHealsTheIndex":            TestDoctorHealsTheIndex,
		"DoctorKnowsTheLimitOfGroups":    TestDoctorKnowsTheLimitOfGroups,
		"DoctorLooksAtShadows":           TestDoctorLooksAtShadows,
		"DoctorRefusesToGuess":           TestDoctorRefusesToGuess,
	} {
		t.Run(name, test)
	}
}
