package event

// RogueDevice reports a device that has joined, or was refused when it tried to, and
// of which nothing says that somebody has made it. It is told once for a device's
// life, and for a refused one while its attempts are remembered.
type RogueDevice struct {
	// Device is its key in the ledger; for an attempt what it called itself.
	Device        string `json:"device"`
	Thing         string `json:"thing,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	ClaimID       string `json:"claimId,omitempty"`
	Template      string `json:"template,omitempty"`
	// Attempt says that it was not let in.
	Attempt bool   `json:"attempt,omitempty"`
	Reason  string `json:"reason"`
}

// LedgerAnchored tells where the ledger of an account ends, so that the audit trail
// bears witness.
type LedgerAnchored struct {
	Entries uint64 `json:"entries"`
	Hash    string `json:"hash"`
}

func (RogueDevice) isEvent()    {}
func (LedgerAnchored) isEvent() {}
