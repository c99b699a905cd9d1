package event

import "time"

// CertificatePurposeChanged reports what a certificate is for from now on, by an
// operator's mark.
type CertificatePurposeChanged struct {
	CertificateID string `json:"certificateId"`
	// Purpose and PreviousPurpose are BIRTH, CLAIM or OPERATIONAL. They are the same
	// where only limits or the serial have changed.
	Purpose         string `json:"purpose"`
	PreviousPurpose string `json:"previousPurpose"`
	Serial          string `json:"serial,omitempty"`
	Template        string `json:"template,omitempty"`
}

// BirthCertificateChanged reports a step in the life of a certificate that is
// for provisioning only.
type BirthCertificateChanged struct {
	CertificateID string      `json:"certificateId"`
	Change        BirthChange `json:"change"`
	// Thing is the one that was provisioned with it, ReplacedBy the id of the
	// operational certificate that this has brought.
	Thing      string `json:"thing,omitempty"`
	ReplacedBy string `json:"replacedBy,omitempty"`
	Uses       int    `json:"uses,omitempty"`
	// Until is the end of the window for a certificate that was opened again, Reason
	// why it was.
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// BirthChange says what happened to a birth certificate.
type BirthChange string

// Changes of birth certificates.
const (
	// BirthUsed is a device that was provisioned with it.
	BirthUsed BirthChange = "USED"
	// BirthReopened and BirthClosed are begin and unused end of a window in which
	// its device may be provisioned again.
	BirthReopened BirthChange = "REOPENED"
	BirthClosed   BirthChange = "CLOSED"
)

// BirthCertificateMisused reports a certificate for provisioning that was used
// for another device than the one it is for. What it asked for was refused.
type BirthCertificateMisused struct {
	CertificateID string `json:"certificateId"`
	ClientID      string `json:"clientId,omitempty"`
	// Serial or Thing is what the certificate is for, OtherSerial or OtherThing what
	// was asked for with it.
	Serial      string `json:"serial,omitempty"`
	OtherSerial string `json:"otherSerial,omitempty"`
	Thing       string `json:"thing,omitempty"`
	OtherThing  string `json:"otherThing,omitempty"`
	Reason      string `json:"reason"`
}

// ThingQuarantined reports a thing that can be provisioned and do nothing else
// until it is released. It is in the group of that name by the same commit.
type ThingQuarantined struct {
	Thing  string `json:"thing"`
	Reason string `json:"reason"`
	// By is who or what has put it there.
	By string `json:"by"`
	// Certificates are those that it has at that moment.
	Certificates []string `json:"certificates,omitempty"`
}

// ThingReleased reports the end of a quarantine.
type ThingReleased struct {
	Thing string `json:"thing"`
	// Reason is why it is let go, Since when it was put there.
	Reason       string    `json:"reason,omitempty"`
	Since        time.Time `json:"since"`
	Certificates []string  `json:"certificates,omitempty"`
}

func (CertificatePurposeChanged) isEvent() {}
func (BirthCertificateChanged) isEvent()   {}
func (BirthCertificateMisused) isEvent()   {}
func (ThingQuarantined) isEvent()          {}
func (ThingReleased) isEvent()             {}
